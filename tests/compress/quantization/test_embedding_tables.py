from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.quantization import embedding_tables as embeddings
from pocketzoo.zoo.graphs.index import GraphIndex

WORDS, SIZE = 600, 16


@pytest.fixture
def model() -> onnx.ModelProto:
    """Two look-ups in one table, a small table, and one that is read whole as well."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(WORDS, SIZE)).astype(np.float32) * np.exp(rng.normal(size=(WORDS, 1))).astype(np.float32)
    table[0] = 0.0  # the padding's row
    tied = rng.normal(size=(SIZE, 1000)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["words.weight", "ids"], ["a"]),
        helper.make_node("Gather", ["words.weight", "zero"], ["b"]),
        helper.make_node("Gather", ["kinds.weight", "zero"], ["c"]),
        helper.make_node("Gather", ["tied.weight", "zero"], ["d"]),
        helper.make_node("Add", ["a", "b"], ["e"]),
        helper.make_node("Add", ["e", "c"], ["f"]),
        helper.make_node("MatMul", ["f", "tied.weight"], ["g"]),
        helper.make_node("Add", ["g", "d"], ["out"]),
    ]
    constants = {
        "words.weight": table,
        "kinds.weight": rng.normal(size=(2, SIZE)).astype(np.float32),
        "tied.weight": tied,
        "zero": np.array(0, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", "length", 1000])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(model: onnx.ModelProto, ids: np.ndarray, name: str) -> np.ndarray:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], {"ids": ids})[0]


def test_a_table_is_what_only_look_ups_read(model):
    assert embeddings.tables(GraphIndex(model)) == ["words.weight"]


def test_rows_that_are_looked_up_equal_those_of_the_dequantized_table(model):
    table = numpy_helper.to_array(model.graph.initializer[0])
    levels, scale = embeddings.rows_to_int8(table)
    before = len(model.SerializeToString())
    embeddings.quantize(model, ["words.weight"])
    onnx.checker.check_model(model, full_check=True)
    ids = np.random.default_rng(1).integers(0, WORDS, (3, 7))
    ids[0, 0] = 0
    np.testing.assert_array_equal(run(model, ids, "a"), (levels * scale[:, None])[ids])
    assert (np.abs(table - levels * scale[:, None]).max(1) <= 0.501 * scale).all()
    assert before - len(model.SerializeToString()) > 2.5 * table.size


def test_nothing_named_changes_nothing(model):
    before = model.SerializeToString()
    embeddings.quantize(model, [])
    assert model.SerializeToString() == before


def looked_up(rows: int, columns: int, **attributes: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["out"], **attributes)],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((rows, columns), np.float32), "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (looked_up(512, 16), True),
        (looked_up(8192, 1), True),
        (looked_up(8191, 1), False),
        (looked_up(512, 15), False),
        (looked_up(512, 16, axis=-2), True),
        (looked_up(512, 16, axis=1), False),
        (looked_up(512, 16, axis=-1), False),
    ],
)
def test_a_table_has_8192_values_and_is_read_by_rows(model, found):
    assert embeddings.LEAST == 8192
    assert embeddings.tables(GraphIndex(model)) == (["table"] if found else [])


def test_a_table_that_is_seen_in_any_other_way_is_none():
    def changed(edit) -> list[str]:
        model = looked_up(512, 16)
        edit(model.graph)
        return embeddings.tables(GraphIndex(model))

    assert changed(lambda graph: None) == ["table"]
    assert changed(lambda graph: graph.output.append(helper.make_empty_tensor_value_info("table"))) == []
    assert changed(lambda graph: graph.node.append(helper.make_node("Neg", ["table"], ["other"]))) == []
    assert changed(lambda graph: graph.node.append(helper.make_node("Gather", ["ids", "table"], ["other"]))) == []
    assert changed(lambda graph: graph.node.pop()) == []

    def of_another_type(value):
        return lambda graph: graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "table"))

    assert changed(of_another_type(np.zeros((512, 16), np.float64))) == []
    assert changed(of_another_type(np.zeros((512, 16), np.float16))) == []
    assert changed(of_another_type(np.zeros((512, 16, 1), np.float32))) == []
    assert changed(of_another_type(np.zeros(8192, np.float32))) == []


def test_rows_in_integers_by_hand():
    table = np.array([[2.54, -1.28, 0.0], [0.0, 0.0, 0.0], [0.12, -12.7, 0.18]], np.float32)
    levels, scale = embeddings.rows_to_int8(table)
    np.testing.assert_allclose(scale, [0.02, 1.0, 0.1], rtol=1e-6)
    assert levels.tolist() == [[127, -64, 0], [0, 0, 0], [1, -127, 2]]
    assert (levels.dtype, scale.dtype) == (np.int8, np.float32)


def test_both_look_ups_of_a_table_read_its_integers_and_others_stay(model):
    embeddings.quantize(model, ["words.weight"])
    kinds = [n.op_type for n in model.graph.node]
    assert kinds == ["Gather", "Gather", "Cast", "Mul"] * 2 + ["Gather", "Gather", "Add", "Add", "MatMul", "Add"]
    first = model.graph.node[:4]
    assert [n.output[0] for n in first] == ["a_rows", "a_scale", "a_levels", "a"]
    assert [list(n.input) for n in first] == [
        ["words.weight_quantized", "ids"],
        ["words.weight_scale", "ids"],
        ["a_rows"],
        ["a_levels", "a_scale"],
    ]
    kinds = {t.name: (t.data_type, list(t.dims)) for t in model.graph.initializer}
    assert kinds["words.weight_quantized"] == (TensorProto.INT8, [WORDS, SIZE])
    assert kinds["words.weight_scale"] == (TensorProto.FLOAT, [WORDS, 1])
    assert kinds["kinds.weight"][0] == TensorProto.FLOAT
    assert "words.weight" not in kinds
