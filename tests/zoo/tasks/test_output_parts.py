"""Outputs that join unlike things, told by what makes their parts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.tasks.output_forms import OutputForms, OutputParts
from pocketzoo.zoo.tasks.output_parts import output_parts


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def model(nodes: list[onnx.NodeProto], rank: int = 3, **numbers: list[int]) -> onnx.ModelProto:
    """Of x (batch, 4, n): boxes are Mul, scores are Sigmoid."""
    graph = helper.make_graph(
        [node("Mul", "x x", "boxes"), node("Sigmoid", "x", "scores"), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


BOTH = node("Concat", "boxes scores", "j", axis=1)
LEVEL = [
    node("Concat", "boxes scores", "j", axis=1), node("Reshape", "j same", "k"),
    node("Concat", "scores boxes", "jj", axis=1), node("Reshape", "jj same", "kk"),
]  # fmt: skip
FORMS = {
    "joined": ([node("Concat", "boxes scores", "y", axis=1)], (-2, (4, 8))),
    "joined, axis from the end": ([node("Concat", "boxes scores", "y", axis=-2)], (-2, (4, 8))),
    "three, two of a kind": ([node("Concat", "boxes scores scores", "y", axis=1)], (-2, (4, 12))),
    "in turn": ([node("Concat", "boxes scores boxes", "y", axis=1)], (-2, (4, 8, 12))),
    "nested": ([BOTH, node("Concat", "boxes j", "y", axis=1)], (-2, (8, 12))),
    "transposed": ([BOTH, node("Transpose", "j", "y", perm=[0, 2, 1])], (-1, (4, 8))),
    "unsqueezed": ([BOTH, node("Unsqueeze", "j last", "y")], (-3, (4, 8)), 4),
    "flattened behind": ([BOTH, node("Unsqueeze", "j last", "u"), node("Reshape", "u same", "y")], (-2, (4, 8))),
    "moved before": (
        [node("Transpose", "scores", "t", perm=[0, 2, 1]), node("Transpose", "t", "s", perm=[0, 2, 1]),
         node("Concat", "boxes s", "y", axis=1)],
        (-2, (4, 8)),
    ),
    "split before": (
        [node("Split", "scores", "a b", axis=1), node("Concat", "boxes a b", "y", axis=1)], (-2, (4, 8)),
    ),
    "levels of the same parts": (
        [BOTH, node("Concat", "boxes scores", "i", axis=1), node("Concat", "j i", "y", axis=2)], (-2, (4, 8)),
    ),
    "levels of other parts": ([*LEVEL, node("Concat", "k kk", "y", axis=2)], None),
    "levels alone": ([node("Concat", "scores scores", "y", axis=2)], None),
    "a free length": ([node("Concat", "boxes scores", "y", axis=2)], None),
    "pieces of it": ([BOTH, node("Split", "j", "y z", axis=1)], None),
    "computed from it": ([BOTH, node("Relu", "j", "y")], None),
    "folded into another axis": ([BOTH, node("Reshape", "j flat", "y")], None, 1),
    "none": ([node("Relu", "boxes", "y")], None),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_parts_are_told_by_what_makes_them(form):
    nodes, expected, *rank = FORMS[form]
    found = output_parts(GraphIndex(model(nodes, *rank, same=[0, 8, -1], last=[3], flat=[-1])))
    assert found == ({} if expected is None else {"y": OutputParts(*expected)})


def test_parts_of_an_array():
    parts = OutputParts(-2, (4, 6))
    array = np.arange(36.0).reshape(2, 6, 3)
    boxes, scores = parts.split(array)
    assert (boxes.tolist(), scores.tolist()) == (array[:, :4].tolist(), array[:, 4:].tolist())
    assert [parts.told(0), parts.told(1)] == ["0 to 3 of axis -2", "4 to 5 of axis -2"]
    assert parts.fit(array)
    assert not parts.fit(array[:, :5])
    assert not parts.fit(array.reshape(-1))


def test_what_is_no_graph_has_no_parts(tmp_path):
    onnx.save(model([node("Concat", "boxes scores", "y", axis=1)]), tmp_path / "g.onnx")
    (tmp_path / "g.engine").write_bytes(b"built")
    assert forms_of_files([tmp_path / "g.engine"]) == OutputForms()
    found = forms_of_files([tmp_path / "g.engine", tmp_path / "g.onnx"])
    assert found == OutputForms({"y": OutputParts(-2, (4, 8))})


ENDS = {
    "pixels": ([node("Round", "boxes", "r"), node("Cast", "r", "y", to=TensorProto.UINT8)], True),
    "pixels, moved": (
        [node("Cast", "boxes", "c", to=TensorProto.INT32), node("Transpose", "c", "y", perm=[0, 2, 1])], True,
    ),
    "levels": ([node("QuantizeLinear", "boxes step", "y")], True),
    "classes": ([node("ArgMax", "scores", "y", axis=1)], False),
    "classes of 32 bits": (
        [node("ArgMax", "scores", "a", axis=1), node("Cast", "a", "y", to=TensorProto.INT32)], False,
    ),
    "a mask": ([node("Greater", "scores boxes", "g"), node("Cast", "g", "y", to=TensorProto.UINT8)], False),
    "truth values": ([node("Cast", "boxes", "y", to=TensorProto.BOOL)], False),
    "floats": ([node("Cast", "boxes", "y", to=TensorProto.FLOAT16)], False),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_whole_numbers_are_numbers_where_floats_are_rounded_to_them(end, tmp_path):
    nodes, rounded = ENDS[end]
    made = model(nodes)
    made.graph.output[0].ClearField("type")
    made.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    onnx.save(made, tmp_path / "g.onnx")
    assert forms_of_files([tmp_path / "g.onnx"]).rounded == ({"y"} if rounded else set())
