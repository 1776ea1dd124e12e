"""Graphs that take some lengths alone: what was tried, what failed, and which option says one that works."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.backends.onnxruntime.batch_axes import LENGTHS
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.models.import_onnx import open_graph


def written(path, nodes, dims, **constants):
    graph = helper.make_graph(
        [helper.make_node(op, reads.split(), [made], name=name, **more) for op, reads, made, name, more in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


WINDOWS = (
    [("Reshape", "x s", "r", "windows", {}), ("ReduceMean", "r", "y", "", {"axes": [1]})], ["n", "time"],
    {"s": np.array([0, -1, 24])}, OnnxMetadata(axes={"time": 48}), OnnxMetadata(axes={"time": 50}),
)  # fmt: skip
IMAGES = (
    [("Reshape", "x s", "r", "tiles", {}), ("ReduceMean", "r", "y", "", {"axes": [2, 3, 4, 5]})], ["n", 3, "h", "w"],
    {"s": np.array([0, 3, 3, 32, 3, 32])}, OnnxMetadata(size=96), OnnxMetadata(size=64),
)  # fmt: skip
FORMS = {
    "windows": (WINDOWS, "with time = 8: its node Reshape 'windows' fails: ", "--axis time=N", "time = 50"),
    "images": (
        IMAGES,
        "with h = 224 and w = 224: its node Reshape",
        "--size HEIGHTxWIDTH",
        "h = 64 and w = 64",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_that_takes_some_lengths_alone_says_what_was_tried(form, tmp_path, refused):
    (nodes, dims, constants, works, fails), said, option, told = FORMS[form]
    path = written(tmp_path / "m.onnx", nodes, dims, **constants)
    tried = "(224, 8)" if form == "images" else f"({LENGTHS[0]}, {LENGTHS[1]}, ..., {LENGTHS[-1]})"
    with refused(BundleError, f"that was tried {tried}", said, hint=option):
        open_graph(path)
    with refused(BundleError, f"does not run with {told}: its node", hint=f"a length that it takes, {option}"):
        open_graph(path, fails)
    assert open_graph(path, works).manifest.signature is not None


def test_what_is_not_of_lengths_is_told_as_it_is(tmp_path, refused):
    path = written(
        tmp_path / "m.onnx",
        [("Gather", "w i", "g", "", {"axis": 0}), ("MatMul", "x g", "y", "", {})],
        ["n", 8],
        w=np.ones((2, 8, 4), np.float32),
        i=np.array(5),
    )
    with refused(BundleError, "onnxruntime does not"):
        open_graph(path)
