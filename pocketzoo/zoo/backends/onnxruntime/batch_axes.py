"""Which axis of each input and output of a graph counts samples: found by running it, not by what axes are called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.graphs.foreign.one_sample import CALLED

TOLERANCE = 1e-4  # of outputs against those of other batches, relative to the largest
IMAGE, IMAGE_AXES = 224, 4  # pixels of an axis of free length, of what has so many axes
# Of any other axis, as short as the graph takes it: of sound it has hundreds of values, and windows, padding or kernels
# refuse less, or any number but one, which is a power of two.
LENGTHS = tuple(8 << i for i in range(13))
LARGEST = 1 << 22  # numbers in an input that is tried
COMBINATIONS = 16  # of axes without names that are tried
# Samples of the two parts: of one or two alone the largest of all is often the own. The second is no multiple of the
# first, which of a fixed batch is what the file has: of three rows that are one sample, no other number is a batch.
FIRST, SECOND, OTHER = 4, 3, 2
# Even, as the two parts of a batch have a number each. Several inputs are tried twice: what holds may be by chance.
SEEDS = (2, 12)
RANGES = ((1, 8), (0, 2), (0, 1))  # of whole numbers that are tried: ids must be in a table that nobody told us of


@dataclass(frozen=True, slots=True)
class Filling:
    """What stands for what no file says: the range of whole numbers, and the length of axes that may have any."""

    whole: tuple[int, int] = RANGES[0]
    length: int = LENGTHS[0]
    image: int = IMAGE  # of axes of free length, of what has as many axes as an image
    told: Mapping[str, int] = field(default_factory=dict)  # axis by its name -> its length, as a user says


class MixedSamplesError(UnsupportedModelError):
    """Outputs are not of one sample each, along the axis that a guess takes for that of samples."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A way in which a graph may be batched: the axis of each input, None for one that all samples share."""

    axes: Mapping[str, int | None]
    fixed: int = 0  # the length that these axes have in the file; 0: they are free


def guesses(inputs: Sequence[TensorSpec]) -> Iterator[Guess]:
    """The ways worth trying, the likeliest first: axes of one name together, then the first axes, then any other."""
    named: dict[str, dict[str, int]] = {}
    for tensor in inputs:
        for axis, name in tensor.free.items():
            named.setdefault(name, {}).setdefault(tensor.name, axis)
    twice = {name for name in named if any(list(t.free.values()).count(name) > 1 for t in inputs)}
    by_name = {name: axes for name, axes in named.items() if name not in twice}
    firsts = {tensor.name: 0 for tensor in inputs if 0 in tensor.free}
    likely = [axes for name, axes in by_name.items() if name.lower() in CALLED]
    leading = [axes for axes in by_name.values() if not any(axes.values())]
    others = [axes for axes in by_name.values() if any(axes.values())]
    tried: list[Guess] = []
    for guess in (
        *(_guess(inputs, axes) for axes in (*likely, firsts, *leading)),
        *_of_fixed(inputs),
        *(_guess(inputs, axes) for axes in others),
        *_of_unnamed(inputs),
    ):
        if guess not in tried and any(axis is not None for axis in guess.axes.values()):
            tried.append(guess)
            yield guess


def _guess(inputs: Sequence[TensorSpec], axes: Mapping[str, int], fixed: int = 0) -> Guess:
    return Guess({tensor.name: axes.get(tensor.name) for tensor in inputs}, fixed)


def _of_unnamed(inputs: Sequence[TensorSpec]) -> Iterator[Guess]:
    """One axis each, the first that is free before others, for files whose axes of one kind have no name in common."""
    free = [[*tensor.free, None] for tensor in inputs]
    for axes in islice(product(*free), COMBINATIONS):
        yield Guess({tensor.name: axis for tensor, axis in zip(inputs, axes, strict=True)})


def _of_fixed(inputs: Sequence[TensorSpec]) -> Iterator[Guess]:
    """First axes of one fixed length, all of them and then without one: it may be shared by all samples."""
    lengths = {tensor.name: tensor.shape[0] for tensor in inputs if tensor.shape and isinstance(tensor.shape[0], int)}
    for length in dict.fromkeys(lengths.values()):
        same = [name for name, each in lengths.items() if each == length]
        yield _guess(inputs, dict.fromkeys(same, 0), int(length))
        for left_out in same if len(same) > 1 else ():
            yield _guess(inputs, {name: 0 for name in same if name != left_out}, int(length))


def fillings(
    inputs: Sequence[TensorSpec],
    guess: Guess,
    count: int,
    told: Mapping[str, int] | None = None,
    known: Sequence[int] = (),
) -> Iterator[Filling]:
    """What is worth trying, the smallest first; axes whose length was ``told`` have that one.

    ``known``: lengths that are tried in place of these.
    """
    told = told or {}
    ranges = RANGES if any(np.dtype(tensor.dtype).kind != "f" for tensor in inputs) else RANGES[:1]
    seen: set[tuple[tuple[int, ...], ...]] = set()
    usual = (*((length, IMAGE) for length in LENGTHS), (LENGTHS[0], LENGTHS[0]))
    for length, image in [(length, length) for length in known] or usual:
        tried = Filling(length=length, image=image, told=told)
        shapes = tuple(_shape(tensor, guess, count, tried) for tensor in inputs)
        small = all(math.prod(shape) <= LARGEST for shape in shapes)
        last = not seen and image != IMAGE  # what is fixed to be large is tried as it is
        if shapes not in seen and (small or last):
            seen.add(shapes)
            yield from (replace(tried, whole=whole) for whole in ranges)


def _shape(tensor: TensorSpec, guess: Guess, count: int, filling: Filling) -> tuple[int, ...]:
    usual = filling.image if len(tensor.shape) == IMAGE_AXES else filling.length
    return tuple(
        count if axis == guess.axes[tensor.name] else dim if isinstance(dim, int) else filling.told.get(dim, usual)
        for axis, dim in enumerate(tensor.shape)
    )


def example(
    inputs: Sequence[TensorSpec], guess: Guess, count: int, filling: Filling, seed: int = 0
) -> dict[str, npt.NDArray[Any]]:
    """Numbers for each input, ``count`` samples along its axis."""
    arrays = dict[str, npt.NDArray[Any]]()
    for tensor in inputs:
        shared = guess.axes[tensor.name] is None
        generator = np.random.default_rng([seed // 2 if shared else seed, shared, len(arrays)])
        shape = _shape(tensor, guess, count, filling)
        kind = np.dtype(tensor.dtype).kind
        values: npt.NDArray[Any]
        if kind == "f" and math.prod(shape) > LARGEST:
            values = generator.standard_normal(shape, np.float32)  # of twice the size it would take seconds, and memory
        elif kind == "f":
            values = generator.normal(size=shape)
        else:
            values = generator.integers(*filling.whole, shape)
        arrays[tensor.name] = values.astype(tensor.dtype, copy=False)
    return arrays


def joined(one: Arrays, other: Arrays, axes: Mapping[str, int | None]) -> dict[str, npt.NDArray[Any]]:
    """Two batches as one."""
    return {
        name: x if (axis := axes[name]) is None else np.concatenate([x, other[name]], axis) for name, x in one.items()
    }


def output_axes(
    session: BoundedSession, inputs: Sequence[TensorSpec], guess: Guess, filling: Filling
) -> dict[str, int | None]:
    """The axis of samples of each output, if a guess about the inputs is right; None for one that all samples share.

    A batch is run in two parts and as a whole: what comes out of the whole has to be what comes out of the parts, one
    after the other along one axis that is as long as there are samples, or the same of all three.

    Raises:
        UnsupportedModelError: it is not so, by the name of the output; or no output depends on the samples.
        Exception: of onnxruntime, which does not run the graph so.
    """
    tries = [_axes_of(session, inputs, guess, filling, seed) for seed in (SEEDS if len(inputs) > 1 else SEEDS[:1])]
    if any(axes != tries[0] for axes in tries[1:]):
        raise MixedSamplesError("its outputs follow the samples now and then", "export it with a dynamic batch axis")
    if all(axis is None for axis in tries[0].values()):
        raise MixedSamplesError("no output depends on the samples", "export it with a dynamic batch axis")
    return tries[0]


def _axes_of(
    session: BoundedSession, inputs: Sequence[TensorSpec], guess: Guess, filling: Filling, seed: int
) -> dict[str, int | None]:
    count = guess.fixed or FIRST
    first = example(inputs, guess, count, filling, seed)
    second = example(inputs, guess, OTHER if guess.fixed == SECOND else SECOND, filling, seed + 1)
    names = [output.name for output in session.get_outputs()]
    feeds = [first, second, joined(first, second, guess.axes)]
    runs = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    axes: dict[str, int | None] = {}
    for name in names:
        one, other, both = (run[name] for run in runs)
        if not isinstance(both, np.ndarray):
            raise UnsupportedModelError(f"the output {name!r} is not a tensor", "export it with tensors only")
        places = [axis for axis in range(both.ndim) if _follows(both, one, other, axis)]
        if counting := [axis for axis in places if one.shape[axis] == count]:
            axes[name] = counting[0]
        elif close(one, both) and close(other, both):
            axes[name] = None
        elif places:  # such as those of a sample's tokens, one after the other: who has which, no axis says
            raise MixedSamplesError(
                f"the output {name!r} has {one.shape[places[0]]} rows of {count} samples, along one axis",
                "export it with an axis for samples",
            )
        else:
            raise MixedSamplesError(
                f"the output {name!r} is not of one sample each: it depends on the others of a batch",
                "export the model without this output",
            )
    return axes


def _follows(both: npt.NDArray[Any], one: npt.NDArray[Any], other: npt.NDArray[Any], axis: int) -> bool:
    alike = [a == b for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=False)) if i != axis]
    if one.ndim != both.ndim or other.ndim != both.ndim or not all(alike):
        return False
    return close(both, np.concatenate([one, other], axis))


def close(actual: npt.NDArray[Any], expected: npt.NDArray[Any], floats: str = "float32") -> bool:
    """Whether two outputs are the same but for rounding, of what is computed in ``floats``.

    What is infinite or no number has to be so in both.
    """
    if np.asarray(expected).dtype.kind not in "fiub":  # texts
        return bool(np.array_equal(actual, expected))
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    odd = ~np.isfinite(b)
    if a.shape == b.shape and odd.any():
        if not np.array_equal(a[odd], b[odd], equal_nan=True):
            return False
        a, b = a[~odd], b[~odd]
    kind = np.asarray(expected).dtype
    tolerance = (
        max(TOLERANCE, *(16 * float(np.finfo(each).eps) for each in (kind, floats))) if kind.kind == "f" else TOLERANCE
    )
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1e-6))
