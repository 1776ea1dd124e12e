"""Graphs of one to three inputs and outputs of several types: import, int8, export and bench, counted again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import pocketzoo
from pocketzoo.api import Dataset, Int8Config, from_arrays
from pocketzoo.zoo.bundles.bundle_signature import bundle_signature
from pocketzoo.zoo.models.import_onnx import open_graph

WIDTH, ROWS = 16, 40
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "bool": TensorProto.BOOL}
OUTPUTS = {"scores": "float32", "best": "int64", "positive": "bool"}
CASES = [
    (("float32",), ("scores",)),
    (("float32", "int64"), ("scores", "best")),
    (("int64", "float32", "uint8"), ("best", "scores", "positive")),
    (("float32", "bool", "float32"), ("positive", "scores")),
    (("uint8",), ("scores", "positive")),
]


def network(types: tuple[str, ...], outputs: tuple[str, ...], path: Path) -> Path:
    """Every input as floats through a layer of its own; their sum through two more, of which the outputs are made."""
    generator = np.random.default_rng(len(types))
    nodes, constants, sums = [], [], []
    for i, dtype in enumerate(types):
        nodes.append(helper.make_node("Cast", [f"in{i}"], [f"f{i}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("MatMul", [f"f{i}", f"w{i}"], [f"h{i}"]))
        constants.append((f"w{i}", generator.normal(size=(WIDTH, 32)) / (40 if dtype == "uint8" else 4)))
        sums.append(f"h{i}")
    nodes.append(helper.make_node("Sum", sums, ["sum"]))
    nodes.append(helper.make_node("Relu", ["sum"], ["hidden"]))
    nodes.append(helper.make_node("MatMul", ["hidden", "last"], ["scores"]))
    constants += [("last", generator.normal(size=(32, 8)) / 4)]
    nodes.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0))
    nodes.append(helper.make_node("Greater", ["scores", "zero"], ["positive"]))
    constants += [("zero", np.zeros(1))]
    shapes = {"scores": ["n", 8], "best": ["n"], "positive": ["n", 8]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f"in{i}", TYPES[dtype], ["n", WIDTH]) for i, dtype in enumerate(types)],
        [helper.make_tensor_value_info(name, TYPES[OUTPUTS[name]], shapes[name]) for name in outputs],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def feed(types: tuple[str, ...], count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    draw = {
        "float32": lambda: generator.normal(size=(count, WIDTH)),
        "int64": lambda: generator.integers(-3, 4, (count, WIDTH)),
        "uint8": lambda: generator.integers(0, 256, (count, WIDTH)),
        "bool": lambda: generator.integers(0, 2, (count, WIDTH)),
    }
    return {f"in{i}": draw[dtype]().astype(dtype) for i, dtype in enumerate(types)}


def data(arrays: dict[str, np.ndarray]) -> Dataset:
    rows = [{name: x[i] for name, x in arrays.items()} for i in range(len(arrays["in0"]))]
    return from_arrays("made", (), rows, None)


def run(graph: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, arrays), strict=True))


def in_batches(graph: Path, arrays: dict[str, np.ndarray], size: int = 32) -> dict[str, np.ndarray]:
    """As ``bench`` does: ranges that are found while it runs are those of a batch."""
    count = len(arrays["in0"])
    parts = [run(graph, {name: x[i : i + size] for name, x in arrays.items()}) for i in range(0, count, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def decibels(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Of floats the ratio of squares; of anything else that of how many values there are and how many differ."""
    if theirs.dtype.kind == "f":
        signal, noise = np.square(theirs, dtype=np.float64).sum(), np.square(ours.astype(np.float64) - theirs).sum()
    else:
        signal, noise = theirs.size, (ours != theirs).sum()
    return None if noise == 0 else float(10 * np.log10(signal / noise))


@pytest.mark.parametrize(("types", "outputs"), CASES, ids=[f"{len(a)} to {len(b)}" for a, b in CASES])
def test_every_output_of_every_graph_is_right_and_is_measured(types, outputs, tmp_path):
    file, dataset = network(types, outputs, tmp_path / "theirs.onnx"), data(feed(types, 200))
    bundle = open_graph(file)
    signature = bundle_signature(bundle)
    assert [(t.name, t.dtype, t.batch) for t in signature.inputs] == [(f"in{i}", d, 0) for i, d in enumerate(types)]
    assert [(t.name, t.dtype, t.batch) for t in signature.outputs] == [(name, OUTPUTS[name], 0) for name in outputs]
    arrays = feed(types, ROWS)
    reference = run(file, arrays)
    for name, out in run(bundle.graph(""), arrays).items():
        np.testing.assert_allclose(out, reference[name], rtol=1e-4, atol=1e-5)

    small = pocketzoo.compress(
        bundle.path, tmp_path / "small", data=dataset, steps=[Int8Config()], samples=64, keep_slower=True, accept=True
    )
    assert any(entry.precision == "int8" for entry in small.manifest.files.values())
    out = pocketzoo.export(small.path, to="onnx", target="cpu", out=tmp_path / "int8.onnx")
    np.testing.assert_equal(run(out, arrays), run(small.graph("cpu"), arrays))

    tests = dataset.split("test")
    whole = {name: np.stack([sample[name] for sample in tests.samples]) for name in arrays}
    theirs, ours = run(file, whole), in_batches(small.graph("cpu"), whole)
    rows = pocketzoo.bench([bundle.path, small.path], data=dataset, seconds=0, memory=False)
    (row,) = [row for row in rows if row.target == "cpu"]
    expected = {name: decibels(ours[name], theirs[name]) for name in outputs}
    assert list(row.outputs) == list(expected)
    for name, value in expected.items():
        assert row.outputs[name] == (None if value is None else pytest.approx(value, abs=0.01)), name
    assert row.sqnr == min((value for value in row.outputs.values() if value is not None), default=None)
    assert row.outputs["scores"] is None or row.outputs["scores"] > 15


def test_inputs_and_outputs_without_samples_and_with_samples_along_another_axis(tmp_path):
    """Calibrated, timed, profiled and weighed, at any batch."""
    value, generator = helper.make_tensor_value_info, np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["turned"], ["b"], perm=[1, 0]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["scale"], ["total"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            value("scale", TensorProto.FLOAT, [32]),
            value("x", TensorProto.FLOAT, ["n", 16]),
            value("turned", TensorProto.FLOAT, [32, "n"]),
        ],
        [value("y", TensorProto.FLOAT, ["n", 32]), value("z", TensorProto.FLOAT, [32, "n"]),
         value("total", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(generator.normal(size=(16, 32)).astype(np.float32), "w")],
    )  # fmt: skip
    file = tmp_path / "theirs.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)
    count, scale = 120, generator.normal(size=32).astype(np.float32)
    x, turned = (generator.normal(size=(count, n)).astype(np.float32) for n in (16, 32))
    bundle = open_graph(file)
    assert bundle_signature(bundle).batch_axes == {"scale": None, "x": 0, "turned": 1}
    rows = [{"scale": scale, "x": a, "turned": b} for a, b in zip(x, turned, strict=True)]
    small = pocketzoo.compress(
        bundle.path,
        tmp_path / "small",
        data=from_arrays("made", (), rows, None),
        steps=[Int8Config()],
        samples=64,
        keep_slower=True,
        accept=True,
    )
    whole = {"scale": scale, "x": x[:50], "turned": turned[:50].T}
    np.testing.assert_allclose(run(bundle.graph(""), whole)["y"], run(file, whole)["y"], rtol=1e-4, atol=1e-4)
    measured = pocketzoo.bench([bundle.path, small.path], seconds=0, memory=True, batch_sizes=(1, 5))
    for row in measured:
        assert list(row.outputs) == ["y", "z", "total"]
        assert list(row.latency) == ["1", "5"]
        assert row.samples == 64
    assert pocketzoo.profile(small.path, target="cpu", batch=3, seconds=0).nodes
