"""What grows with a graph grows in proportion: steps of our own code are counted, no seconds.

A pass that looks at all nodes for each node would double what is counted at each doubling twice over.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8
from pocketzoo.deploy.check.check_model import check_graph
from pocketzoo.deploy.half_precision_export import half
from pocketzoo.measure.profile import profile
from pocketzoo.zoo.bundles.bundle import updating
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.graphs.fresh_names import nodes
from pocketzoo.zoo.models.import_onnx import open_graph

ROOT = str(Path(pocketzoo.__file__).parent)
sys.path.insert(0, str(Path(ROOT).parent / "benchmarks"))
from big_graphs import SHAPES  # noqa: E402

SIZES, LARGER = (30, 60, 120), (100, 200, 400)
MOST = 1.02  # times as many steps for one node more of a graph of twice the size: 2 where each looks at all the others


def steps(work: Callable[[], object]) -> int:
    """Instructions of Python that ``work`` runs in our own code: each round of a comprehension has some."""
    count = 0

    def step(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    def call(frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    before = sys.gettrace()
    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def _graph(shape: str, count: int) -> onnx.ModelProto:
    return SHAPES[shape](count)


def _samples(model: onnx.ModelProto) -> list[np.ndarray]:
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return [np.random.default_rng(0).normal(size=(2, *dims)).astype(np.float32)]


def _import(model: onnx.ModelProto, folder: Path, name: str = "big") -> Any:
    onnx.save(model, folder / f"{name}.onnx")
    return open_graph(folder / f"{name}.onnx")


def _int8(model: onnx.ModelProto, folder: Path, **config: Any) -> None:
    plan = int8.plan(model, Int8Config(**config), _samples(model))
    for target in ("cpu", "tensorrt-rtx"):
        int8.apply(model, plan, default_registry().get("target", target))


def _profile(model: onnx.ModelProto, folder: Path) -> None:
    with updating(_import(model, folder), folder / "bundle"):
        pass
    profile(folder / "bundle", seconds=0.0)


def _half(model: onnx.ModelProto, folder: Path) -> None:
    half(model, default_registry().get("target", "tensorrt-rtx"), "fp16", [{"x": _samples(model)[0][:1]}])


def _check(model: onnx.ModelProto, folder: Path) -> None:
    onnx.save(model, folder / "plain.onnx")
    check_graph(folder / "plain.onnx", default_registry().get("target", "cpu"))


WORK: dict[str, Callable[..., object]] = {
    "import": _import,
    "int8": _int8,
    "profile": _profile,
    "half": _half,
    "check": _check,
}
CASES = [
    (work, shape) for work in WORK for shape in SHAPES if shape in ("residual", "transformer") or work != "profile"
]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "shape"), CASES)
def test_twice_the_nodes_are_twice_the_steps(work, shape, tmp_path):
    _growth(work, shape, tmp_path, LARGER)


@pytest.mark.parametrize("work", ["import", "half"])
def test_twice_the_nodes_are_twice_the_steps_of_a_chain(work, tmp_path):
    _growth(work, "residual", tmp_path)


def _growth(work: str, shape: str, folder: Path, sizes: tuple[int, ...] = SIZES) -> None:
    """What a node more costs in a small graph and in a larger one: what is done once is in neither."""
    counts = []
    for turn, count in enumerate((sizes[0], *sizes)):  # the first one loads modules as well
        here = folder / f"{turn}"
        here.mkdir()
        model = _graph(shape, count)
        counts.append((len(list(nodes(model.graph.node))), steps(lambda m=model, f=here: WORK[work](m, f))))
    _, (n, a), (m, b), (o, c) = counts
    assert (c - b) / (o - m) <= MOST * (b - a) / (m - n), counts


@pytest.mark.parametrize("shape", ["residual", "transformer"])
def test_sessions_and_passes_are_as_many_for_any_number_of_nodes(shape, tmp_path, monkeypatch):
    """What goes over the whole graph outside of our own code: loading, shape inference, checks, reading and writing."""
    seen: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        own = getattr(owner, name)

        def call(*given: Any, **more: Any) -> Any:
            seen[name] += 1
            return own(*given, **more)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (onnxruntime, "InferenceSession"),
        (onnx.shape_inference, "infer_shapes"),
        (onnx.checker, "check_model"),
        (onnx, "load"),
        (onnx, "save"),
    ):
        counted(owner, name)
    found = []
    for count in SIZES:
        seen.clear()
        model = _graph(shape, count)
        (folder := tmp_path / str(count)).mkdir()
        _import(model, folder)
        _int8(model, folder)
        found.append(dict(seen))
    assert found[0]["InferenceSession"] > 0
    assert found[0] == found[1] == found[2]
