"""The command that looks for a learning rate."""

from __future__ import annotations

import json


def test_a_rate_is_printed_and_drawn(run, tmp_path):
    out = tmp_path / "curve.svg"
    result = run("find-rate", "tinynet", "--data", "digits", "--steps", 60, "-o", out)
    rate, wrote = result.stdout.splitlines()
    assert wrote == f"wrote {out}"
    assert rate.startswith("--learning-rate 0.")
    assert out.read_text("utf8").startswith("<svg ")
    found = json.loads(run("find-rate", "tinynet", "--data", "digits", "--steps", 60, "--json").stdout)
    assert f"{found['learning_rate']:.2g}" == rate.split()[1]
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"])
