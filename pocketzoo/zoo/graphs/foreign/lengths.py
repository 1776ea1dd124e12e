"""Lengths of free axes that a user tells of a graph: by the name of the axis, or height and width of its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import RecipeError, UnknownNameError, nearest
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE_AXES = 4
CHANNELS = (1, 2, 3, 4)


def clear_names(model: ModelProto) -> None:
    """Leave no axis a name that says nothing, in place: "?", one of two axes of a tensor, or a length below 0."""
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        called = [dim.dim_param for dim in dims]
        for dim, name in zip(dims, called, strict=True):
            if dim.dim_value < 0 or (name and (not name.strip("?") or called.count(name) > 1)):
                dim.Clear()


def told_lengths(signature: ModelSignature, metadata: OnnxMetadata) -> dict[str, int]:
    """Free axis by its name -> its length: those that are named, and height and width of images, where both are given.

    What data shows of other axes holds as well.

    Raises:
        RecipeError: two axes have one name, and are to be of different lengths.
    """
    told = dict(metadata.axes)
    sides = metadata.sides
    for tensor in signature.inputs if sides is not None else ():
        for dim, side in zip(_height_and_width(tensor), sides or (), strict=False):
            if isinstance(dim, str) and told.setdefault(dim, side) != side:
                raise RecipeError(
                    f"the axis {dim!r} of {tensor.name!r} cannot be {told[dim]} and {side} long",
                    "give one length: --size 224",
                )
    return {**metadata.seen, **told}


def shown_sides(signature: ModelSignature, metadata: OnnxMetadata) -> tuple[int, int] | None:
    """(height, width) in pixels, as they are told, or as data shows them of the first input that is images."""
    if metadata.sides is not None:
        return metadata.sides
    for height, width in (sides for tensor in signature.inputs if len(sides := _height_and_width(tensor)) == 2):
        shown = [metadata.seen.get(dim, 0) if isinstance(dim, str) else dim for dim in (height, width)]
        if all(shown):
            return shown[0], shown[1]
    return None


def check_axes(signature: ModelSignature, metadata: OnnxMetadata, path: Path) -> None:
    """Raises:
    UnknownNameError: the metadata names an axis that no input has, that is fixed, or that counts samples.
    """
    free = {n for t in signature.inputs for axis, n in t.free.items() if axis != t.batch}
    for name in metadata.axes:
        if name not in free:
            raise UnknownNameError(f"{path} has no free axis {name!r}", nearest(name, free) if free else "it has none")


def _height_and_width(tensor: TensorSpec) -> tuple[str | int, ...]:
    """Of an input of four axes; channels come first, or where only the last may be those, last."""
    if len(tensor.shape) != IMAGE_AXES:
        return ()
    last = tensor.shape[3] in CHANNELS and tensor.shape[1] not in CHANNELS
    return tensor.shape[1:3] if last else tensor.shape[2:4]
