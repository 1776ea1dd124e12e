"""Every artifact in every precision, of graphs of many kinds: right, or refused by name; never a traceback."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import PocketzooError
from pocketzoo.deploy.export import export
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.tasks.agreement import sqnr

N = helper.make_node
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "int8-fp16", "int8-bf16")
LEAST = {"fp32": 100.0, "fp16": 40.0, "int8": 10.0, "int8-fp16": 10.0}  # dB; of the others a CPU has no kernels
SAMPLES = 12
BUILDS = importlib.util.find_spec("tensorrt_rtx") is not None


def weights(*shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def model(nodes, inputs, outputs, opset=17, **constants):
    """``inputs`` and ``outputs``: name -> (type, shape)."""
    infos = [[helper.make_tensor_value_info(n, *each) for n, each in group.items()] for group in (inputs, outputs)]
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "g", *infos, stored), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def two_and_two():
    """Two inputs, two outputs."""
    nodes = [N("MatMul", ["a", "w"], ["p"]), N("Add", ["p", "b"], ["s"]), N("Relu", ["s"], ["y"]),
             N("MatMul", ["y", "v"], ["z"])]  # fmt: skip
    made = model(nodes, {"a": (FLOAT, ["n", 16]), "b": (FLOAT, ["n", 8])},
                 {"y": (FLOAT, ["n", 8]), "z": (FLOAT, ["n", 4])}, w=weights(16, 8), v=weights(8, 4))  # fmt: skip
    return made, {"a": (16,), "b": (8,)}


def free_pixels():
    """Height and width are free; images have one size by what is said of the file."""
    nodes = [N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), N("Relu", ["c"], ["r"]),
             N("Conv", ["r", "v"], ["y"], pads=[1, 1, 1, 1])]  # fmt: skip
    made = model(nodes, {"x": (FLOAT, ["n", 3, "h", "w"])}, {"y": (FLOAT, ["n", 4, "h", "w"])},
                 w=weights(8, 3, 3, 3), v=weights(4, 8, 3, 3))  # fmt: skip
    return made, {"x": (3, 16, 24)}


def no_batch():
    """Rows are mixed."""
    nodes = [N("MatMul", ["x", "w"], ["a"]), N("MatMul", ["v", "a"], ["y"])]
    made = model(nodes, {"x": (FLOAT, [6, 16])}, {"y": (FLOAT, [6, 8])}, w=weights(16, 8), v=weights(6, 6))
    return made, {"x": (6, 16)}


def identifiers():
    """int64 inputs, which a table and a mask are made of."""
    nodes = [
        N("Gather", ["table", "ids"], ["e"]),
        N("Cast", ["mask"], ["m"], to=FLOAT),
        N("Unsqueeze", ["m", "last"], ["u"]),
        N("Mul", ["e", "u"], ["k"]),
        N("MatMul", ["k", "w"], ["y"]),
    ]
    made = model(nodes, {"ids": (INT64, ["n", 5]), "mask": (INT64, ["n", 5])}, {"y": (FLOAT, ["n", 5, 8])},
                 table=weights(11, 16), w=weights(16, 8), last=np.array([2]))  # fmt: skip
    return made, {"ids": (5,), "mask": (5,)}


def branches():
    """An If by what the input is."""

    def branch(weight):
        return helper.make_graph([N("MatMul", ["x", weight], [f"{weight}_y"])], weight, [],
                                 [helper.make_tensor_value_info(f"{weight}_y", FLOAT, None)])  # fmt: skip

    nodes = [
        N("ReduceMax", ["x"], ["most"], keepdims=0),
        N("Greater", ["most", "limit"], ["is"]),
        N("If", ["is"], ["i"], then_branch=branch("v"), else_branch=branch("w")),
        N("Relu", ["i"], ["y"]),
    ]
    made = model(nodes, {"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 8])},
                 w=weights(16, 8), v=weights(16, 8, seed=1), limit=np.float32(0))  # fmt: skip
    return made, {"x": (16,)}


def recurrent(op, gates):
    """Time first."""
    nodes = [N("Transpose", ["x"], ["t"], perm=[1, 0, 2]), N(op, ["t", "w", "r"], ["o"], hidden_size=8),
             N("Squeeze", ["o", "one"], ["s"]), N("Transpose", ["s"], ["b"], perm=[1, 0, 2]),
             N("MatMul", ["b", "v"], ["y"])]  # fmt: skip
    made = model(nodes, {"x": (FLOAT, ["n", 6, 16])}, {"y": (FLOAT, ["n", 6, 4])}, w=weights(1, 8 * gates, 16),
                 r=weights(1, 8 * gates, 8), v=weights(8, 4), one=np.array([1]))  # fmt: skip
    return made, {"x": (6, 16)}


def channels_last():
    nodes = [N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), N("Conv", ["t", "w"], ["c"]),
             N("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])]  # fmt: skip
    made = model(nodes, {"x": (FLOAT, ["n", 12, 12, 3])}, {"y": (FLOAT, ["n", 10, 10, 8])}, w=weights(8, 3, 3, 3))
    return made, {"x": (12, 12, 3)}


GRAPHS = {
    "two inputs and outputs": two_and_two, "free height and width": free_pixels, "no batch": no_batch,
    "int64 inputs": identifiers, "If": branches, "LSTM": lambda: recurrent("LSTM", 4),
    "GRU": lambda: recurrent("GRU", 3), "NHWC": channels_last,
}  # fmt: skip


@pytest.fixture(params=GRAPHS)
def case(request, tmp_path):
    """A graph's file, its samples' file, and one sample as the graph reads it."""
    made, shapes = GRAPHS[request.param]()
    onnx.save(made, tmp_path / "m.onnx")
    random = np.random.default_rng(1)
    types = {value.name: value.type.tensor_type.elem_type for value in made.graph.input}
    samples = {
        name: random.integers(0, 2, (SAMPLES, *shape)) if types[name] == INT64
        else random.normal(size=(SAMPLES, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }  # fmt: skip
    np.savez(tmp_path / "data.npz", **samples)
    batched = made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if "height" in request.param:
        open_model(tmp_path / "m.onnx", metadata=OnnxMetadata(size=(16, 24)), out=tmp_path / "bundle")
    return tmp_path, {name: array[:1] if batched else array[0] for name, array in samples.items()}


def written(folder, to, precision, suffix):
    """What export wrote, or why not: an error of the house, with what was wrong and what next."""
    try:
        return export(
            folder / ("bundle" if (folder / "bundle").exists() else "m.onnx"), to=to, target="tensorrt-rtx",
            precision=precision, data=folder / "data.npz", out=folder / f"out{suffix}",
        )  # fmt: skip
    except PocketzooError as error:
        refused = error
    assert len(refused.message) > 20
    assert refused.hint
    assert not (folder / f"out{suffix}").exists()
    return refused


def run(path, feed):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: feed[each.name] for each in session.get_inputs()})


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_answer_alike_in_every_precision(case, precision):
    folder, feed = case
    found = written(folder, "onnx", precision, ".onnx")
    if isinstance(found, PocketzooError):
        assert precision in ("fp8", "int8", "int8-fp16", "int8-bf16"), found  # floats go through
        return
    onnx.checker.check_model(onnx.load(found))
    if precision in LEAST:
        for ours, theirs in zip(run(found, feed), run(folder / "m.onnx", feed), strict=True):
            assert ours.dtype == theirs.dtype
            assert sqnr(ours, theirs) >= LEAST[precision]


@pytest.mark.slow
@pytest.mark.skipif(not BUILDS, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_engines_are_built_in_every_precision(case, precision):
    folder, _ = case
    found = written(folder, "tensorrt-rtx", precision, ".engine")
    if isinstance(found, PocketzooError):
        assert precision != "fp32", found
    else:
        assert found.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(("to", "suffix"), [("trtexec", ".trtexec"), ("triton", "")])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-fp16"])
def test_folders_are_written_in_every_precision(case, to, suffix, precision):
    folder, _ = case
    found = written(folder, to, precision, suffix)
    assert isinstance(found, PocketzooError) or list(found.rglob("*.onnx"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensorrt_itself_says_that_it_cannot_build_here(tmp_path, precision):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    made, _ = no_batch()
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(PocketzooError) as caught:
        export(tmp_path / "m.onnx", to="tensorrt", precision=precision, out=tmp_path / "m.engine")
    assert "tensorrt" in caught.value.message.lower()
    assert caught.value.hint
