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


def test_commands_are_measured_on_a_generated_graph(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import nodes

    monkeypatch.setattr(nodes, "COMMANDS", {name: nodes.COMMANDS[name] for name in ("info", "check")})
    found = nodes.commands("residual", 20, tmp_path)
    assert list(found) == ["import", "info", "check"]
    assert all(each["code"] == 0 and each["seconds"] > 0 and each["peak"] > 20_000_000 for each in found.values())


@pytest.mark.parametrize(
    "shape", ["residual", "elementwise", "wide", "transformer", "gathers", "branches", "functions"]
)
def test_generated_graphs_are_valid_and_as_large_as_they_are_to_be(shape, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import onnx
    from big_graphs import SHAPES
    from onnx import inliner

    from pocketzoo.zoo.graphs.fresh_names import nodes

    model = SHAPES[shape](400)
    onnx.checker.check_model(model, full_check=True)
    count = len(list(nodes(inliner.inline_local_functions(model).graph.node)))
    assert 380 <= count <= 440


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 0.5])
def test_the_exponent_of_a_power_is_found(power, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from page_scaling import growth

    counts = [1.0, 4.0, 32.0]
    assert growth(counts, [7.0 * n**power for n in counts]) == pytest.approx(power)
