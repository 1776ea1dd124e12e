"""What an ONNX file must be to be loaded."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import ExportError, UnsafeFileError
from pocketzoo.zoo.graphs.files.load_graph import load_graph


def test_what_is_no_graph_is_refused(tmp_path, refused):
    info = helper.make_tensor_value_info
    x, y = info("x", TensorProto.FLOAT, ["batch", 6]), info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.zeros((6, 400), np.float32), "w")
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "whole.onnx")
    assert load_graph(tmp_path / "whole.onnx") == model
    onnx.save(onnx.load(tmp_path / "whole.onnx"), tmp_path / "split.onnx", save_as_external_data=True, location="w.bin")
    assert load_graph(tmp_path / "split.onnx") == model
    (tmp_path / "w.bin").unlink()
    with refused(UnsafeFileError, "keeps weights in 'w.bin'", "not there", hint="copy it"):
        load_graph(tmp_path / "split.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message, hint in [
        ("none.onnx", "there is no file", "check the path"),
        ("text.onnx", "is not an ONNX graph", "an exporter wrote"),
        ("empty.onnx", "is not an ONNX graph, or an empty one", "an exporter wrote"),
    ]:
        with refused(ExportError, name, message, hint=hint):
            load_graph(tmp_path / name)
