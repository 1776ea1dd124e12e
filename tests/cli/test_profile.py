from __future__ import annotations

import json


def test_profile_prints_where_the_time_goes_or_all_of_it(run, compressed, tmp_path):
    out = tmp_path / "p.html"
    shown = run("profile", compressed.path, "--seconds", 0, "--no-torch", "--top", 2, "-o", out).stdout
    assert "int8 for cpu" in shown.splitlines()[0]
    assert "QLinearConv" in shown
    assert "more: see --top" in shown
    assert "left in float: no layer with weights" in shown
    assert f"wrote {out}" in shown
    assert out.stat().st_size > 10_000
    found = json.loads(run("profile", compressed.path, "--seconds", 0, "--no-torch", "--json").stdout)
    assert found["bundle"] == compressed.manifest.name
    assert sum(node["op"] == "QLinearConv" for node in found["nodes"]) > 5


def test_the_float_graph_can_be_asked_for(run, compressed):
    found = json.loads(
        run("profile", compressed.path, "--target", "float", "--seconds", 0, "--no-torch", "--json").stdout
    )
    assert found["target"] == ""
    assert {node["kind"] for node in found["nodes"]} == {"float"}
