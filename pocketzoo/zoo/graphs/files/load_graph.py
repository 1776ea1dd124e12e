"""Load an ONNX file with its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto

from pocketzoo.core.errors import ExportError
from pocketzoo.zoo.graphs.files.external_data import external_files, load_external
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.graphs.safety import ONNXRUNTIME, References, check_operators, check_size, references


def read_graph(path: Path) -> ModelProto:
    """A graph that was checked, as those of a bundle, with its weights: equal to the one that was saved."""
    model = onnx.load(path, load_external_data=False)
    load_external(model, weight_files(path), path)
    return model


def load_graph(path: Path) -> ModelProto:
    """An ONNX file with its weights, which may lie in a file of its folder.

    Raises:
        ExportError: there is none, or it is not a graph.
        UnsafeFileError: weights lie elsewhere, or one of its operators is onnxruntime's own, and not known to be
            arithmetic.
        TooLargeError: it has more nodes than the limit, functions expanded, or declares larger tensors.
    """
    if not path.is_file():
        raise ExportError(f"there is no file {path}", "check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own types
        raise ExportError(f"{path} is not an ONNX graph", "give a file that an exporter wrote") from error
    if not model.graph.node:
        raise ExportError(f"{path} is not an ONNX graph, or an empty one", "give a file that an exporter wrote")
    contents = references(path)
    check_size(contents, path)
    check_operators(_onnxruntimes(contents), path)  # what operators of other domains are is the target's to say
    load_external(model, external_files(model, path), path)
    return model


def _onnxruntimes(contents: References) -> References:
    own = frozenset(operator for operator in contents.operators if operator[0] == ONNXRUNTIME)
    return replace(contents, operators=own)
