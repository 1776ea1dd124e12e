"""Graphs above the limit of a message, which is lowered: saved and read, copied, checked and converted like others."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from pocketzoo.core.errors import StorageError, UnsafeFileError
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.files import graph_files
from pocketzoo.zoo.graphs.files.external_tensors import external_tensors, tensors
from pocketzoo.zoo.graphs.files.graph_files import (
    changed,
    check_standard,
    fits,
    message_bytes,
    replace_graph,
    save_graph,
)
from pocketzoo.zoo.graphs.files.load_graph import load_graph, read_graph
from pocketzoo.zoo.graphs.files.weight_files import copy_graph, graph_bytes, remove_graph, weight_files

WEIGHT = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(2, 20)).astype(np.float32)


def typed(name: str, values: np.ndarray) -> TensorProto:
    """As older exporters store it: in the field of its type, not in bytes."""
    return helper.make_tensor(
        name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values.reshape(-1).tolist()
    )


def graph(weight: TensorProto | None = None, opset: int = 17) -> onnx.ModelProto:
    """x times a weight, and then one of two branches with a weight each."""
    value = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["a", f"w_{name}"], [f"y_{name}"])],
            name,
            [],
            [value(f"y_{name}", TensorProto.FLOAT, ["n", 20])],
            [numpy_helper.from_array(WEIGHT * factor, f"w_{name}")],
        )
        for name, factor in (("then", 2), ("else", 3))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("ReduceSum", ["a", "axes"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], **branches),
    ]
    stored = [
        weight or numpy_helper.from_array(WEIGHT, "w"),
        numpy_helper.from_array(np.array([0, 1]), "axes"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    ends = [value(name, TensorProto.FLOAT, ["n", 20]) for name in ("x", "y")]
    return helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], stored, doc_string="words"),
        opset_imports=[helper.make_opsetid("", opset)], ir_version=10, producer_name="somebody",
    )  # fmt: skip


@pytest.fixture
def lowered(monkeypatch):
    monkeypatch.setattr(graph_files, "LARGEST", 3000)


@pytest.mark.parametrize("save", [save_graph, replace_graph])
def test_a_large_graph_is_read_as_it_was_with_its_weights_alongside(save, tmp_path, lowered):
    model, path = graph(), tmp_path / "net.onnx"
    before = model.SerializeToString(deterministic=True)
    save(model, path)
    assert model.SerializeToString(deterministic=True) == before  # it is not changed
    assert load_graph(path) == model == read_graph(path)
    assert weight_files(path) == [tmp_path / "net.onnx.data"]
    assert graph_bytes(path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    facts = [
        {e.key: e.value for e in t.external_data} for t in external_tensors(onnx.load(path, load_external_data=False))
    ]
    assert [int(each["offset"]) % 4096 for each in facts] == [0, 0, 0]
    onnx.checker.check_model(path, full_check=True)
    expected = open_session(model).run(None, {"x": X})
    assert np.array_equal(open_session(path).run(None, {"x": X}), expected)
    x = X @ WEIGHT
    assert np.allclose(expected[0], x @ WEIGHT * (2 if x.sum() > 0 else 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int64", "float64", "uint8", "bool"])
@pytest.mark.parametrize("how", ["bytes", "numbers"])
def test_weights_of_any_type_and_field_are_written(dtype, how, tmp_path, lowered):
    values = (np.random.default_rng(2).normal(size=(50, 50)) * 50).astype(
        ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    )
    tensor = numpy_helper.from_array(values, "v") if how == "bytes" else typed("v", values)
    node = helper.make_node("Identity", ["v"], ["y"])
    made = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("y", tensor.data_type, [50, 50])], [tensor]
    )
    save_graph(helper.make_model(made), tmp_path / "v.onnx")
    read = load_graph(tmp_path / "v.onnx").graph.initializer[0]
    assert np.array_equal(numpy_helper.to_array(read), values)
    assert bool(weight_files(tmp_path / "v.onnx")) == (tensor.ByteSize() > 3000 * 7 / 8)


def test_a_small_graph_in_place_of_a_large_one_takes_its_weights_away(tmp_path, monkeypatch):
    with monkeypatch.context() as low:
        low.setattr(graph_files, "LARGEST", 3000)
        save_graph(graph(), tmp_path / "net.onnx")
        assert len(list(tmp_path.iterdir())) == 2
    save_graph(graph(), tmp_path / "net.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    remove_graph(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    remove_graph(tmp_path / "net.onnx", missing_ok=True)


def test_a_large_graph_is_copied_to_any_name_from_any_number_of_files(tmp_path, refused):
    model = graph()
    onnx.save(
        onnx.load_from_string(model.SerializeToString()),
        tmp_path / "one.onnx",
        save_as_external_data=True,
        location="w.bin",
    )
    split = onnx.load_from_string(model.SerializeToString())
    (tmp_path / "sub").mkdir()
    for number, tensor in enumerate(tensors(split)):
        if len(tensor.raw_data) > 1024:  # with gaps between them, as tools that map them write
            place = "sub/weights.0" if number else "other.onnx.data"
            with (tmp_path / place).open("ab") as file:
                offset = file.truncate(file.tell() + 100)
                file.seek(offset)
                file.write(tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, place, offset, len(tensor.raw_data))
            tensor.ClearField("raw_data")
    onnx.save(split, tmp_path / "several.onnx")
    for name, count in (("one", 1), ("several", 2)):
        copy_graph(tmp_path / f"{name}.onnx", tmp_path / f"{name}-copy.onnx")
        assert load_graph(tmp_path / f"{name}-copy.onnx") == model == load_graph(tmp_path / f"{name}.onnx")
        assert len(weight_files(tmp_path / f"{name}-copy.onnx")) == count
    with refused(StorageError, "the weights of other.onnx would replace", hint="another place"):
        copy_graph(tmp_path / "one.onnx", tmp_path / "other.onnx")
    with (
        refused(StorageError, "the weights of other.onnx would replace", hint="another place"),
        pytest.MonkeyPatch.context() as low,
    ):
        low.setattr(graph_files, "LARGEST", 3000)
        replace_graph(model, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
    assert load_graph(tmp_path / "several.onnx") == model  # whose weights they were


def test_onnx_checks_and_converts_a_large_graph_without_its_weights(monkeypatch):
    model = graph(opset=15)
    expected = version_converter.convert_version(model, 17)
    size = len(model.SerializeToString())
    monkeypatch.setattr(graph_files, "LARGEST", 3000)
    assert not fits(model)
    check_standard(model)
    made = changed(model, lambda light: version_converter.convert_version(light, 17))
    key = lambda model: sorted(t.SerializeToString(deterministic=True) for t in model.graph.initializer)  # noqa: E731
    assert key(made) == key(expected)
    assert list(made.graph.node) == list(expected.graph.node)
    assert list(made.graph.input) == list(expected.graph.input)
    assert abs(message_bytes(model) - size) <= 64
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(onnx.checker.ValidationError, match="Unheard"):
        check_standard(model)


def test_weights_that_were_cut_short_are_refused(tmp_path, refused, lowered):
    save_graph(graph(), tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").write_bytes(b"")
    with refused(UnsafeFileError, "shorter than it says"):
        load_graph(tmp_path / "net.onnx")
