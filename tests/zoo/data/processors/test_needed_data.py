"""Which data a graph takes, before it is opened."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from pocketzoo.zoo.data.processors.needed_data import needed_data
from pocketzoo.zoo.graphs.signature import signature_of


def signature(*inputs):
    values = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, dims) for name, kind, dims in inputs]
    return signature_of(helper.make_model(helper.make_graph(nodes, "g", values, outputs)))


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS = "samples along the first axis"
GRAPHS = {
    "audio": ([("audio", FLOAT, ["n", 512])], f"an .npz with 'audio' (float32 n x 512), {ROWS}"),
    "a number": (
        [("x", FLOAT, ["n", 3]), ("sr", INT64, [])], f"an .npz with 'x' (float32 n x 3), 'sr' (int64), {ROWS}",
    ),
    "many": (
        [(name, FLOAT, [1, 2]) for name in "abcdef"],
        "an .npz with 'a' (float32 1 x 2), 'b' (float32 1 x 2), 'c' (float32 1 x 2), 'd' (float32 1 x 2) and 2 more, "
        + ROWS,
    ),
    "images": (
        [("images", FLOAT, ["n", 3, "h", "w"])],
        f"an .npz with 'images' (float32 n x 3 x h x w), {ROWS}; or a folder of image files (.jpeg, .jpg, .png, .webp)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_data_that_a_graph_takes_is_told_by_its_inputs(kind, registry):
    inputs, told = GRAPHS[kind]
    assert needed_data(signature(*inputs), "m.onnx", registry) == told
