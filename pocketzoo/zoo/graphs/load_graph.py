"""Load an ONNX file that holds all its weights."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from pocketzoo.core.errors import ExportError


def load_graph(path: Path) -> ModelProto:
    """An ONNX file, without what it may refer to outside itself.

    Raises:
        ExportError: there is none, or it is not a graph.
    """
    if not path.is_file():
        raise ExportError(f"there is no file {path}", "check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own types
        raise ExportError(f"{path} is not an ONNX graph", "give a file that an exporter wrote") from error
    if outside := [t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]:
        raise ExportError(f"{path} keeps weights in other files, {outside[0]} for one", "save it as one file")
    if not model.graph.node:
        raise ExportError(f"{path} is not an ONNX graph, or an empty one", "give a file that an exporter wrote")
    return model
