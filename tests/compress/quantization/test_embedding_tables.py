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
