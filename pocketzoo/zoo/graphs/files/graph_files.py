"""What needs a graph as bytes is given it here: one above the limit of a message of protobuf goes through two files.

protobuf writes no message of 2 GB or more, so that above it nothing can be saved, checked or converted as it lies in
memory. There its weights are written to a file alongside, once, or left out where only shapes are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.files import replacing_file, scratch_folder
from pocketzoo.zoo.graphs.contents import tensor_bytes
from pocketzoo.zoo.graphs.files.external_tensors import tensors
from pocketzoo.zoo.graphs.files.weight_files import check_weights_place, remove_graph, weights_place
from pocketzoo.zoo.graphs.fresh_names import graphs

LARGEST = 2**31 - 1  # bytes of a message of protobuf
REST = 1 / 8  # of that, for all that is no weight
SMALL = 1024  # bytes of a tensor that stays in the graph, as shapes and scales do
PAGE = 4096  # where a tensor begins, so that a runtime can map it into memory


def fits(model: ModelProto) -> bool:
    """Whether a graph is surely no more than one message takes."""
    return weights_fit(_stored(model))


def weights_fit(size: int) -> bool:
    """The same of a graph with weights of so many bytes."""
    return size <= LARGEST * (1 - REST)


def message_bytes(model: ModelProto) -> int:
    """What a graph takes in a file, within a few bytes for each tensor of a large one."""
    return int(model.ByteSize()) if fits(model) else _stored(model) + int(_light(model, _emptied).ByteSize())


def save_graph(model: ModelProto, path: Path) -> None:
    """Write a graph to ``path``, in place of one that is there; a large one with its weights alongside.

    Raises:
        UnsupportedModelError: without its weights it is still too large, as with 2 GB in one node.
    """
    remove_graph(path, missing_ok=True)
    if fits(model):
        onnx.save(model, path)
        return
    with weights_place(path).open("wb") as file:
        light = _with_weights(model, file, weights_place(path).name)
    path.write_bytes(_as_bytes(light, path.name))


def replace_graph(model: ModelProto, path: Path) -> None:
    """Write a graph as ``save_graph`` does, each file whole or not at all.

    Raises:
        StorageError: another file has the name that the weights would get.
        UnsupportedModelError: as of ``save_graph``.
    """
    if fits(model):
        with replacing_file(path) as temporary:
            onnx.save(model, temporary)
        return
    weights = weights_place(path)
    check_weights_place(path, [weights.name])
    with replacing_file(weights) as temporary, temporary.open("wb") as file:
        light = _with_weights(model, file, weights.name)
    with replacing_file(path) as temporary:
        temporary.write_bytes(_as_bytes(light, path.name))


@contextmanager
def loadable(model: ModelProto) -> Iterator[bytes | str]:
    """A graph as runtimes load it: its bytes, or the path of a file that is there for as long as it loads.

    Raises:
        UnsupportedModelError: as of ``save_graph``.
    """
    if fits(model):
        yield model.SerializeToString()
        return
    with scratch_folder() as folder:
        save_graph(model, folder / "graph.onnx")
        yield str(folder / "graph.onnx")


def check_standard(model: ModelProto) -> None:
    """Hold a graph against ONNX's standard; of a large one all but its weights.

    Raises:
        onnx.checker.ValidationError: it is not of the standard.
    """
    onnx.checker.check_model(model if fits(model) else _as_inputs(model)[0])


def changed(model: ModelProto, change: Callable[[ModelProto], ModelProto]) -> ModelProto:
    """What ``change``, as onnx's converter, makes of a graph; of a large one it is given no weights, which stay."""
    if fits(model):
        return change(model)
    light, left_out = _as_inputs(model)
    made = change(light)
    names = {tensor.name for tensor in left_out}
    for at in reversed([i for i, value in enumerate(made.graph.input) if value.name in names]):
        del made.graph.input[at]
    for tensor in left_out:
        made.graph.initializer.add().CopyFrom(tensor)
    return made


def _stored(model: ModelProto) -> int:
    return sum(map(tensor_bytes, tensors(model)))


def _light(model: ModelProto, stored: Callable[[TensorProto], TensorProto | None]) -> ModelProto:
    """A copy of a graph with what ``stored`` makes of each larger constant, at any depth; None leaves one of the
    outermost graph out."""
    light = ModelProto()
    _copy_fields(model, light, "graph")
    _copy_fields(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        made = stored(tensor) if tensor_bytes(tensor) >= SMALL else tensor
        if made is not None:
            light.graph.initializer.append(made)
    for graph in graphs(light.graph):
        for tensor in graph.initializer if graph is not light.graph else ():
            if tensor_bytes(tensor) >= SMALL and (made := stored(tensor)) is not None:
                tensor.CopyFrom(made)
    return light


def _copy_fields(source: Any, copied: Any, but: str) -> None:
    """All fields of a message but one: protobuf copies no part of a message of 2 GB by itself."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "ListFields"):
            getattr(copied, field.name).CopyFrom(value)
        elif isinstance(value, (str, bytes, int, float)):
            setattr(copied, field.name, value)
        else:
            getattr(copied, field.name).extend(value)


def _left_out(tensor: TensorProto) -> None:
    return None


def _emptied(tensor: TensorProto) -> TensorProto:
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def _as_inputs(model: ModelProto) -> tuple[ModelProto, list[TensorProto]]:
    """The graph with an input for each larger constant, and these."""
    large = [tensor for tensor in model.graph.initializer if tensor_bytes(tensor) >= SMALL]
    light = _light(model, _left_out)
    listed = {value.name for value in light.graph.input}  # before IR 4 constants were
    light.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in listed
    )
    return light, large


def _with_weights(model: ModelProto, file: BinaryIO, name: str) -> ModelProto:
    """The graph with its weights written to ``file``, which is called ``name``."""

    def stored(tensor: TensorProto) -> TensorProto:
        if tensor.data_type == TensorProto.STRING or tensor.data_location == TensorProto.EXTERNAL:
            return tensor
        raw = tensor.raw_data if tensor.HasField("raw_data") else _raw(tensor)
        file.seek(-(-file.tell() // PAGE) * PAGE)
        made = _emptied(tensor)
        made.data_location = TensorProto.EXTERNAL
        # With the checksum a graph of other weights is another file, for whoever looks at that alone.
        checksum = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        facts = {"location": name, "offset": file.tell(), "length": len(raw), "checksum": checksum}
        for key, value in facts.items():
            made.external_data.add(key=key, value=str(value))
        file.write(raw)
        return made

    return _light(model, stored)


def _raw(tensor: TensorProto) -> bytes:
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def _as_bytes(light: ModelProto, name: str) -> bytes:
    try:
        return bytes(light.SerializeToString())
    except Exception as error:  # protobuf's own
        raise UnsupportedModelError(
            f"{name} has more than {LARGEST:,} bytes besides its weights", "export it in parts"
        ) from error
