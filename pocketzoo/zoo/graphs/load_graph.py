"""Load an ONNX file that holds all its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from pocketzoo.core.errors import ExportError
from pocketzoo.zoo.graphs.safety import ONNXRUNTIME, References, check_operators, check_size, references


def load_graph(path: Path) -> ModelProto:
    """An ONNX file, without what it may refer to outside itself.

    Raises:
        ExportError: there is none, or it is not a graph.
        UnsafeFileError: one of its operators is onnxruntime's own, and not known to be arithmetic.
        TooLargeError: it has more nodes than the limit, functions expanded, or declares larger tensors.
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
    contents = references(path)
    check_size(contents, path)
    check_operators(_onnxruntimes(contents), path)  # what operators of other domains are is the target's to say
    return model


def _onnxruntimes(contents: References) -> References:
    own = frozenset(operator for operator in contents.operators if operator[0] == ONNXRUNTIME)
    return replace(contents, operators=own)
