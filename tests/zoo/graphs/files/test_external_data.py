"""Weights in files alongside a graph: what leads to none is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import UnsafeFileError
from pocketzoo.zoo.graphs.files.external_data import external_files, load_external

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def graph(**facts: str) -> onnx.ModelProto:
    """x times a weight that lies elsewhere."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape, data_location=TensorProto.EXTERNAL)
    for key, value in facts.items():
        weight.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("x", 4), ("y", 3))]
    body = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(body)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + WEIGHT.tobytes())
    place = tmp_path / "m.onnx"
    place.write_bytes(b"m")
    return place


@pytest.mark.parametrize("facts", [{"offset": "8", "length": "48"}, {"offset": "8"}])
def test_weights_are_read_from_where_they_lie(facts, path):
    model = graph(location="w.bin", **facts)
    load_external(model, external_files(model, path), path)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"location": "w.bin", "length": "56"}, "in 56 bytes of 'w.bin', and it has 48"),
        ({"location": "w.bin", "offset": "16"}, "shorter than it says"),
        ({"location": "w.bin", "offset": "57"}, "shorter than it says"),
        ({"location": "w.bin", "offset": "-1"}, "shorter than it says"),
        ({"location": "w.bin", "length": "-2"}, "shorter than it says"),
        ({"location": "w.bin", "length": "1e3"}, "not in bytes"),
        ({"location": "v.bin"}, "which is not there"),
        ({"location": "."}, "keeps weights in"),
        ({"location": "w" * 5000}, "which is not there"),
        ({"location": "w\0.bin"}, "no name of a file"),
        ({"location": ""}, "an absolute path"),
        ({}, "an absolute path"),
        ({"location": "../w.bin"}, "a path outside the folder"),
    ],
)
def test_what_leads_to_no_weights_is_refused(facts, what, path, refused):
    with refused(UnsafeFileError, what):
        external_files(graph(**facts), path)
