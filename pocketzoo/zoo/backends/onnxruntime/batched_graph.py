"""An imported ONNX graph with its batch axis free: which axis that is, is found by running it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, TooLargeError, UnsupportedModelError
from pocketzoo.core.untrusted.limits import INPUT_VALUES
from pocketzoo.zoo.backends.onnxruntime.batch_axes import (
    FIRST,
    Filling,
    Guess,
    close,
    example,
    fillings,
    guesses,
    output_axes,
)
from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession, TimeLeft
from pocketzoo.zoo.backends.onnxruntime.session import Optimization, open_session
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.graphs.batch_axis import free_batch, name_batch
from pocketzoo.zoo.graphs.signature import signature_of

TYPES = (
    "bool",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)),
)


def batched_graph(own: BoundedSession, tidy: ModelProto, path: Path, time_left: TimeLeft) -> tuple[ModelProto, int]:
    """The tidied graph with its batch axis free, held against the file; which axis that is, is found by running it.

    ``own`` runs the file as it was written.

    And the length that its other free axes were given: the shortest that it takes of those that are tried.

    Raises:
        BundleError: onnxruntime does not run it.
        TooLargeError: its runs take longer than the limit.
        UnsupportedModelError: inputs of a type that nothing here makes, a batch that is fixed inside, or an output that
            mixes the samples of a batch.
    """
    inputs = signature_of(tidy).inputs
    for tensor in inputs:
        if tensor.dtype not in TYPES:
            raise UnsupportedModelError(
                f"{path} reads {tensor.dtype} as its input {tensor.name!r}", f"export it with one of {', '.join(TYPES)}"
            )
        values = math.prod(dim for dim in tensor.sample_shape if isinstance(dim, int))
        INPUT_VALUES.check(abs(values), str(path), f"values in its input {tensor.name!r}")
    outputs = [output.name for output in own.get_outputs()]
    fails: Exception | None = None
    reason: UnsupportedModelError | None = None
    for guess in guesses(inputs):
        try:
            filling, feed, reference_outputs = _first_run(own, outputs, inputs, guess)
        except TooLargeError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            fails = fails or error
            continue
        candidate = _copied(tidy)
        if guess.fixed:
            free_batch(candidate, guess.axes, guess.fixed)
        # The graph was rewritten already: once more would take longer than all runs, for the same numbers.
        new = load_foreign(candidate, path, time_left, optimization="none")
        frozen = _frozen(path, guess.fixed or FIRST)
        try:
            axes = output_axes(new, inputs, guess, filling)
            actual = dict(zip(outputs, new.run(outputs, feed), strict=True))
        except UnsupportedModelError as error:
            reason = reason or (
                frozen if guess.fixed else UnsupportedModelError(f"{path}: {error.message}", error.hint)
            )
            continue
        except TooLargeError:
            raise
        except Exception:  # onnxruntime's own, which share no base
            reason = reason or frozen
            continue
        for name, out in reference_outputs.items():
            if not close(actual[name], out):
                raise UnsupportedModelError(
                    f"{path} changes its output {name!r} when constants are folded", "report this graph"
                )
        name_batch(candidate, guess.axes, axes, {name: out.ndim for name, out in actual.items()})
        return candidate, filling.length
    if reason is not None:
        raise reason
    if fails is None:
        raise UnsupportedModelError(f"{path} has no input with axes", "export it with a dynamic batch axis")
    raise BundleError(f"onnxruntime does not run {path}: {fails}", "check it with onnx.checker") from fails


def _first_run(
    session: BoundedSession, outputs: Sequence[str], inputs: Sequence[TensorSpec], guess: Guess
) -> tuple[Filling, Arrays, dict[str, npt.NDArray[np.generic]]]:
    """The first numbers that a graph takes, and its outputs for them."""
    fails: Exception | None = None
    for filling in fillings(inputs, guess, guess.fixed or FIRST):
        feed = example(inputs, guess, guess.fixed or FIRST, filling)
        try:
            return filling, feed, dict(zip(outputs, session.run(outputs, feed), strict=True))
        except TooLargeError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            fails = fails or error
    assert fails is not None  # there is one filling or more
    raise fails


def _frozen(path: Path, batch: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path} has a fixed batch size of {batch} inside the graph", "export it with a dynamic batch axis"
    )


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
