"""Weights that an ONNX file keeps in files alongside it, as exporters write them: read, where that is safe."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

from onnx import ModelProto, TensorProto, external_data_helper, helper

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError
from pocketzoo.zoo.graphs.files.external_tensors import external_tensors
from pocketzoo.zoo.graphs.safety import ONE_FILE, leads_away

LARGEST = 2**31 - 1  # bytes of one tensor, which is a message of protobuf by itself
ONE_BYTE = (TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)  # others of a byte may be packed, two in one


def external_files(model: ModelProto, path: Path) -> dict[str, Path]:
    """The files that hold weights of a graph, each below its folder, by the place that it says, sorted.

    Raises:
        UnsafeFileError: one is elsewhere, a link, or missing; or shorter than the graph says.
        UnsupportedModelError: one tensor is larger than what fits into a message.
    """
    places: dict[str, Path] = {}
    for tensor in external_tensors(model):
        facts = {entry.key: entry.value for entry in tensor.external_data}
        name = facts.get("location", "")
        if name not in places:
            places[name] = _checked(name, path)
        total = places[name].stat().st_size
        try:
            offset, length = int(facts.get("offset", 0)), int(facts.get("length", -1))
        except ValueError as error:
            raise UnsafeFileError(
                f"{path} says of {tensor.name!r} where it lies, but not in bytes", ONE_FILE
            ) from error
        expected = _bytes_of(tensor)
        if "length" not in facts and expected is not None:
            length = expected
        end = total if length < 0 and "length" not in facts else offset + length
        if offset < 0 or ("length" in facts and length < 0) or max(offset, end) > total:
            raise UnsafeFileError(
                f"{path} keeps {tensor.name!r} in {name!r}, which is shorter than it says", "copy the file again"
            )
        if expected is not None and end - offset != expected:
            raise UnsafeFileError(
                f"{path} keeps {tensor.name!r} in {end - offset:,} bytes of {name!r}, and it has {expected:,}", ONE_FILE
            )
        if end - offset > LARGEST:
            raise UnsupportedModelError(
                f"{path} keeps {tensor.name!r} in {end - offset:,} bytes, and one tensor may have {LARGEST:,}",
                "export it in halves, or with weights of 16 bits",
            )
    return dict(sorted(places.items()))


def load_external(model: ModelProto, files: Collection[object], path: Path) -> None:
    """Put the weights of those files, which are all, into a graph, in place.

    Raises:
        UnsafeFileError: what lies there is not what the graph says.
    """
    for tensor in external_tensors(model) if files else ():
        name, size = tensor.name, _bytes_of(tensor)
        if size is not None and all(entry.key != "length" for entry in tensor.external_data):
            tensor.external_data.add(key="length", value=str(size))  # or all that follows would be read
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except Exception as error:  # of its checker, of types of its own
            raise UnsafeFileError(f"{path} keeps {name!r} in a file that cannot be read: {error}", ONE_FILE) from error
        tensor.ClearField("data_location")  # as where it never lay elsewhere
        del tensor.external_data[:]


def _bytes_of(tensor: TensorProto) -> int | None:
    """What a tensor takes; None where its type has no whole number of bytes, or is none."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return None
    packed = dtype.itemsize == 1 and tensor.data_type not in ONE_BYTE
    return None if packed else math.prod(tensor.dims) * dtype.itemsize


def _checked(name: str, path: Path) -> Path:
    place = path.parent / name
    what = leads_away(name)
    if not name:
        what = "an absolute path"
    elif "\0" in name:
        what = "no name of a file"
    if not what and os.path.realpath(place) != os.path.join(os.path.realpath(path.parent), os.path.normpath(name)):
        what = "a link"
    if what:
        raise UnsafeFileError(f"{path} keeps weights in {name!r}, {what}", ONE_FILE)
    try:
        there = place.is_file()
    except (OSError, ValueError):  # longer than names are, or with a zero byte
        there = False
    if not there:
        raise UnsafeFileError(
            f"{path} keeps weights in {name!r}, another file, which is not there", f"copy it into {path.parent}"
        )
    return place
