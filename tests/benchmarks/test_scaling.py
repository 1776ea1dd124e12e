"""The page of growth is what was recorded; its points run, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


def python(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_is_written_from_the_results():
    written = python("-c", "import page; print(page.scaling(), end='')")
    assert written == (ROOT / "docs" / "scaling.md").read_text("utf8"), "run: python benchmarks/page.py"


@pytest.mark.parametrize(("sweep", "count"), [("batch", 4), ("megabytes", 2), ("bundles", 2)])
def test_a_point_is_measured(sweep, count):
    found = json.loads(python("scaling.py", "--point", sweep, count).splitlines()[-1])
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["peak"] > 20_000_000


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 0.5])
def test_the_exponent_of_a_power_is_found(power, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from page_scaling import growth

    counts = [1.0, 4.0, 32.0]
    assert growth(counts, [7.0 * n**power for n in counts]) == pytest.approx(power)
