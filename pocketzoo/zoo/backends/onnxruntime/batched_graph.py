"""An imported ONNX graph with its batch axis free: which axis that is, is found by running it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, PocketzooError, TooLargeError, UnsupportedModelError
from pocketzoo.core.untrusted.limits import INPUT_VALUES
from pocketzoo.zoo.backends.onnxruntime.batch_axes import (
    FIRST,
    Filling,
    Guess,
    MixedSamplesError,
    close,
    example,
    fillings,
    guesses,
    output_axes,
)
from pocketzoo.zoo.backends.onnxruntime.bounded_session import ArenaFullError, BoundedSession, TimeLeft
from pocketzoo.zoo.backends.onnxruntime.lengths_tried import NoLengthError, does_not_run
from pocketzoo.zoo.backends.onnxruntime.session import Optimization, open_session
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec, without_samples
from pocketzoo.zoo.graphs.batch_axis import fix_inner_axes, free_batch, lengths_of_weights, mark_one_sample, name_batch
from pocketzoo.zoo.graphs.foreign.one_sample import sample_axis, with_run_axes
from pocketzoo.zoo.graphs.foreign.selections import selections
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.signature import signature_of

TYPES = (
    "bool",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)),
)
DYNAMIC = "export it with a dynamic batch axis"


@dataclass(frozen=True, slots=True)
class BatchedGraph:
    """An imported graph, and which of its axes counts samples."""

    graph: ModelProto
    signature: ModelSignature
    length: int  # of other free axes: the shortest that it takes, of those that are tried
    alone: str = ""  # why a run takes one sample; "": it takes any number of them


def batched_graph(
    own: BoundedSession,
    tidy: ModelProto,
    path: Path,
    time_left: TimeLeft,
    told: Mapping[str, int] | None = None,
    floats: str = "float32",
    *,
    whole: bool = False,
) -> BatchedGraph:
    """The tidied graph with its batch axis free, held against the file; which axis that is, is found by running it.

    Where there is none, or the samples of a batch are mixed, a run takes one sample. ``own`` runs the file as it was
    written. ``told``: lengths of free axes by their names. ``floats``: what it computes in. ``whole``: a sample is said
    to be all that a run reads.

    Raises:
        BundleError: onnxruntime does not run it.
        TooLargeError: its runs take longer than the limit.
        UnsupportedModelError: inputs or outputs that are no arrays, or inputs of a type that nothing here makes.
    """
    inputs = signature_of(tidy).inputs
    for tensor in inputs:
        if tensor.dtype not in TYPES:
            raise UnsupportedModelError(
                f"{path} reads {tensor.dtype} as its input {tensor.name!r}", f"export it with one of {', '.join(TYPES)}"
            )
        values = math.prod(dim for dim in tensor.sample_shape if isinstance(dim, int))
        INPUT_VALUES.check(abs(values), str(path), f"values in its input {tensor.name!r}")
    try:
        return _with_lengths(own, tidy, path, time_left, told, floats, (), whole=whole)
    except BundleError as error:
        known = lengths_of_weights(tidy) if _untold(inputs, told) else ()
        if not known:
            raise
        try:
            return _with_lengths(own, tidy, path, time_left, told, floats, known, whole=whole)
        except BundleError:
            raise error from None  # which says more of what was tried


def _with_lengths(
    own: BoundedSession,
    tidy: ModelProto,
    path: Path,
    time_left: TimeLeft,
    told: Mapping[str, int] | None,
    floats: str,
    known: Sequence[int],
    *,
    whole: bool,
) -> BatchedGraph:
    """``batched_graph``, with free axes of the usual lengths, or of one of those that are ``known``."""
    inputs = signature_of(tidy).inputs
    outputs = [output.name for output in own.get_outputs()]
    fails: Exception | None = None
    reason: UnsupportedModelError | None = _alone(tidy, whole=whole)
    for guess in () if reason is not None else guesses(inputs):
        try:
            filling, feed, reference_outputs = _first_run(own, outputs, inputs, guess, told, known)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if isinstance(error, TooLargeError) and not isinstance(error, ArenaFullError):
                raise  # the time is over; less memory may do for other axes
            fails = fails or error
            continue
        candidate = _copied(tidy)
        if guess.fixed:
            free_batch(candidate, guess.axes, guess.fixed)
        frozen = MixedSamplesError(f"a batch of {guess.fixed or FIRST} is fixed inside the graph", DYNAMIC)
        try:
            # The graph was rewritten already: once more would take longer than all runs, for the same numbers.
            new = load_foreign(candidate, path, time_left, optimization="none")
            axes = output_axes(new, inputs, guess, filling)
            actual = dict(zip(outputs, new.run(outputs, feed), strict=True))
        except MixedSamplesError as error:
            reason = reason or (frozen if guess.fixed else error)
            continue
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{path}: {error.message}", error.hint) from error
        except (ArenaFullError, BundleError):  # the latter of a graph whose shapes say what a batch is
            reason = reason or frozen
            continue
        except TooLargeError:
            raise
        except Exception:  # onnxruntime's own, which share no base
            reason = reason or frozen
            continue
        _check_same(actual, reference_outputs, path, floats)
        name_batch(candidate, guess.axes, axes, {name: out.ndim for name, out in actual.items()})
        return BatchedGraph(candidate, signature_of(candidate), filling.length)
    why = reason.message if reason is not None else "no axis of its inputs counts them"
    try:
        return _one_sample(own, tidy, path, time_left, told, why, floats, known)
    except (PocketzooError, MemoryError):
        raise
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise does_not_run(path, fails or error) from error


def _untold(inputs: Sequence[TensorSpec], told: Mapping[str, int] | None) -> list[str]:
    """The free axes of inputs that nobody said the length of."""
    return [name for tensor in inputs for name in tensor.free.values() if name not in (told or {})]


def _alone(tidy: ModelProto, *, whole: bool) -> MixedSamplesError | None:
    """Why no axis is to be tried for samples; None where some are."""
    if whole:
        return MixedSamplesError("a row of the data is all that a run reads", DYNAMIC)
    # One after the other they may look like samples along an axis: boxes of all images are those of each.
    found = selections(GraphIndex(tidy))
    selected = next((name for name, each in found.items() if not each.fixed), "")
    why = f"the length of its output {selected!r} depends on the data"
    return MixedSamplesError(why, DYNAMIC) if selected else None


def _one_sample(
    own: BoundedSession,
    tidy: ModelProto,
    path: Path,
    time_left: TimeLeft,
    told: Mapping[str, int] | None,
    why: str,
    floats: str,
    known: Sequence[int],
) -> BatchedGraph:
    """The tidied graph as one whose runs take one sample, held against the file.

    Raises:
        UnsupportedModelError: an output is not a tensor, or another than in the file.
        Exception: of onnxruntime, which does not run it.
    """
    outputs = [output.name for output in own.get_outputs()]
    signature = without_samples(signature_of(tidy))
    guess = Guess({tensor.name: sample_axis(tensor) for tensor in signature.inputs}, 1)
    of_samples = {t.shape[axis] for t in signature.inputs if (axis := guess.axes[t.name]) is not None}
    tidy = _copied(tidy)
    fix_inner_axes(tidy, {name for name in of_samples if isinstance(name, str)})
    signature = without_samples(signature_of(tidy))
    filling, feed, expected = _first_run(own, outputs, signature.inputs, guess, told, known)
    for name, value in expected.items():
        if not isinstance(value, np.ndarray):
            raise UnsupportedModelError(f"{path}: the output {name!r} is not a tensor", "export it with tensors only")
    new = load_foreign(tidy, path, time_left, optimization="none")
    _check_same(dict(zip(outputs, new.run(outputs, feed), strict=True)), expected, path, floats)
    marked = tidy
    names = {tensor.shape[axis] for tensor in signature.inputs if (axis := guess.axes[tensor.name]) is not None}
    axes: dict[str, int | None] = dict(guess.axes)
    for tensor in signature.outputs:
        out = expected[tensor.name]
        first = tensor.shape[0] if tensor.shape else None
        counts = bool(names) and (first in {*names, 1} or first == f"{tensor.name}_0")
        axes[tensor.name] = 0 if out.ndim and out.shape[0] == 1 and counts else None
    mark_one_sample(marked, {name: out.ndim for name, out in expected.items()})
    return BatchedGraph(marked, with_run_axes(signature_of(marked), axes), filling.length, why)


def _check_same(actual: Arrays, expected: Arrays, path: Path, floats: str) -> None:
    for name, out in expected.items():
        if not close(actual[name], out, floats):
            raise UnsupportedModelError(
                f"{path} changes its output {name!r} when constants are folded", "report this graph"
            )


def _first_run(
    session: BoundedSession,
    outputs: Sequence[str],
    inputs: Sequence[TensorSpec],
    guess: Guess,
    told: Mapping[str, int] | None,
    known: Sequence[int],
) -> tuple[Filling, Arrays, dict[str, npt.NDArray[np.generic]]]:
    """The first numbers that a graph takes, and its outputs for them."""
    fails: Exception | None = None
    full: set[int] = set()  # lengths that take too much memory: so do longer ones
    said, only = dict[int, str](), None  # length -> why it fails; the one range of whole numbers that is tried yet
    tried: list[Filling] = []
    for filling in fillings(inputs, guess, guess.fixed or FIRST, told, known):
        if (full and filling.length >= min(full)) or only not in (None, filling.whole):
            continue
        tried.append(filling)
        feed = example(inputs, guess, guess.fixed or FIRST, filling)
        try:
            return filling, feed, dict(zip(outputs, session.run(outputs, feed), strict=True))
        except ArenaFullError as error:
            full.add(filling.length)
            fails = error
        except TooLargeError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            fails = fails or error
            if said.get(filling.length) == str(error) and "bounds" not in str(error):
                only = filling.whole  # what the numbers are is not what is wrong
            said[filling.length] = str(error)
    assert fails is not None  # there is one filling or more
    if isinstance(fails, PocketzooError):
        raise fails
    raise NoLengthError(inputs, guess, tried) from fails


def load_foreign(
    model: ModelProto,
    path: Path,
    time_left: TimeLeft,
    optimization: Optimization = "basic",
    optimized: Path | None = None,
    without: Sequence[str] = (),
) -> BoundedSession:
    """A session on a graph of the file ``path``: with the basic rewrites, as all would take longer than all runs.

    Raises:
        BundleError: onnxruntime does not load it.
    """
    try:
        return open_session(
            model,
            optimization=optimization,
            optimized=optimized,
            without=without,
            whose=str(path),
            time_left=time_left,
        )
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(f"onnxruntime does not load {path}: {error}", "check it with onnx.checker") from error


def _copied(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied
