"""Which axis of an output counts classes: as a user says it, or the one that is as long as there are labels."""

from __future__ import annotations

from pathlib import Path

from pocketzoo.core.errors import RecipeError, UnsupportedModelError
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata

LEAST = 3  # axes of an output that has scores at several positions of a sample


def class_axis(
    signature: ModelSignature, metadata: OnnxMetadata, path: Path, progress: Progress
) -> tuple[TensorSpec, int] | None:
    """The output whose classes are told apart at each position of a sample, and the axis that counts them.

    None where nothing is said of classes, or a sample has one row of scores. ``signature``: as samples are counted.

    Raises:
        UnknownNameError: there is no such output.
        RecipeError: the axis that is said is none, counts samples, or is of another length than there are labels.
        UnsupportedModelError: several axes are as long as there are labels.
    """
    said = metadata.classes_axis
    if said is None and not metadata.labels:
        return None
    output = signature.output(said[0]) if said is not None and said[0] else signature.outputs[0]
    if len(output.shape) < LEAST or not output.dtype.startswith("float"):
        if said is not None and said[1] % max(len(output.shape), 1) != 1:
            raise RecipeError(
                f"{output.name!r}, {_told(output)}, has one row for each sample, not classes along axis {said[1]}",
                "leave --classes-axis out",
            )
        return None
    axes = [axis for axis, dim in enumerate(output.shape) if axis != output.batch and dim == len(metadata.labels)]
    if said is not None:
        return output, _checked(output, said[1], metadata)
    if len(axes) > 1:
        raise UnsupportedModelError(
            f"{path}: the output {output.name!r}, {_told(output)}, has {len(metadata.labels)} entries, as there are "
            f"labels, along axes {' and '.join(map(str, axes))}",
            f"say which axis counts classes: --classes-axis {axes[0]}",
        )
    if not axes:
        return None
    progress.say(f"{output.name!r}, {_told(output)}: its classes are along axis {axes[0]}, as long as there are labels")
    return output, axes[0]


def _checked(output: TensorSpec, said: int, metadata: OnnxMetadata) -> int:
    rank, count = len(output.shape), len(metadata.labels)
    axis = said + rank if said < 0 else said
    if not 0 <= axis < rank or axis == output.batch:
        why = "counts samples" if axis == output.batch else "is none of its axes"
        raise RecipeError(
            f"axis {said} of {output.name!r}, {_told(output)}, {why}", "name the axis that counts classes"
        )
    length = output.shape[axis]
    if count and isinstance(length, int) and length != count:
        raise RecipeError(
            f"axis {said} of {output.name!r} is {length} long, but there are {count} labels", "give one label per class"
        )
    return axis


def _told(output: TensorSpec) -> str:
    return " x ".join(map(str, output.shape))
