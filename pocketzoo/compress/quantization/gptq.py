"""Round weights to integers one column at a time, and compensate each error in the columns that follow (GPTQ).

A layer outputs y = W x. Rounding W to Q costs tr((W - Q) H (W - Q)T) with H = E[x xT]. Columns are rounded one after
the other, and what one loses the rest make up for in closed form (GPTQ, Frantar et al. 2022, arXiv:2210.17323, after
OBQ, arXiv:2208.11580). All arrays have a leading axis of groups: W (G, O, I), H (G, I, I), scales (G, O).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError

Floats = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Numbers = npt.NDArray[Any]  # of a type of 8 bits

DAMPING = 1e-1  # of the mean diagonal that H gets added: it is of few samples, and inputs have errors of their own
BLOCK = 64  # columns whose errors are handed on together
WHOLE = 2304  # rows of a Hessian up to which LAPACK, which copies what it is given, gets it at once;
PART = 512  # of a larger one that many


class Blocks(Protocol):
    """The blocks (G P, I / P, I / P) of a Hessian, as an array gives them, or made when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Grid:
    """A type of 8 bits: the scales (G, O) that bring weights (G, O, I) into it, and weights over scales to the nearest
    of its numbers."""

    scales: Callable[[Floats], Floats]
    nearest: Callable[[Floats, Floats], Numbers]


def round_weight(
    weight: Floats, hessian: Blocks, least: Floats | None = None, grid: Grid | None = None
) -> tuple[Numbers, Floats]:
    """Numbers and scales with weight ~ numbers * scale, none worse on ``hessian`` than rounding to nearest is.

    Deterministic. Numbers are integers, unless ``grid`` says otherwise; a channel of zeros then gets scale 1. ``least``
    (G, O): scales are not smaller. Of a Hessian with P blocks of the diagonal, (G P, I / P, I / P), errors are handed
    on within each of the P parts of the inputs.
    """
    grid = grid or INT8
    scale = grid.scales(weight)
    if least is not None:
        scale = np.maximum(scale, least.astype(np.float32))
    parts = len(hessian) // len(weight)
    if parts == 1:
        return _round(weight, hessian[:], scale, grid), scale
    groups, outputs, size = weight.shape
    split = weight.reshape(groups, outputs, parts, -1).transpose(0, 2, 1, 3).reshape(groups * parts, outputs, -1)
    each = np.repeat(scale, parts, axis=0)
    one = [slice(i, i + 1) for i in range(len(split))]  # one by one: an inverse is large
    quantized = np.concatenate([_round(split[i], hessian[i], each[i], grid) for i in one])
    joined = quantized.reshape(groups, parts, outputs, -1).transpose(0, 2, 1, 3).reshape(groups, outputs, size)
    return np.ascontiguousarray(joined), scale


def _round(weight: Floats, hessian: Floats, scale: Floats, grid: Grid) -> Numbers:
    plain = grid.nearest(weight, scale)
    better = feedback(weight, hessian, scale, grid)
    lost: list[Any] = [weight - quantized * scale[..., None] for quantized in (better, plain)]
    wins = cost(lost[0], hessian) < cost(lost[1], hessian)
    return np.where(wins[..., None], better, plain)


def largest_weights(weight: Floats) -> Floats:
    """The largest absolute weight of each channel, (G, O).

    Raises:
        DataError: a weight is not finite.
    """
    largest: Floats = np.abs(weight).max(2, initial=0)
    if not np.isfinite(largest).all():
        raise DataError("weights of the model are not finite", "replace what is NaN or infinite in them")
    return largest


def widest_scale(weight: Floats) -> Floats:
    """Scales (G, O) that make the largest weight of a channel 127; a channel of zeros gets 1.

    Raises:
        DataError: a weight is not finite.
    """
    largest = largest_weights(weight)
    return np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)


def nearest(weight: Floats, scale: Floats) -> Int8Array:
    """Each weight to the nearest of its channel's steps, -127 to 127."""
    quantized: Int8Array = np.clip(np.rint(weight / scale[..., None]), -127, 127).astype(np.int8)
    return quantized


INT8 = Grid(widest_scale, nearest)


def cost(error: Floats, hessian: Floats) -> Floats:
    """e H eT of each channel, (G, O): the mean squared error of what the channel gives."""
    total: Floats = np.einsum("goi,goi->go", error @ hessian, error)
    return np.maximum(total, 0.0)


def damped(hessian: Floats, damping: float) -> npt.NDArray[np.float64]:
    """A Hessian that can be inverted: inputs that are always zero, or follow from others, get a little of their own."""
    size = hessian.shape[1]
    mean = np.einsum("gii->g", hessian).astype(np.float64) / size
    out = np.array(hessian, np.float64, order="C")
    np.einsum("gii->gi", out)[...] += np.where(mean > 0, mean * damping, 1.0)[:, None]
    return out


def root(ordered: Floats) -> Floats:
    """The upper U with Ut U = H^-1 of a Hessian damped until it has one: rounding can leave few samples' indefinite."""
    damping = DAMPING
    while True:
        try:
            if ordered.shape[1] > WHOLE:
                return np.stack([_large_root(ordered[i : i + 1], damping) for i in range(len(ordered))])
            inverse = np.linalg.inv(damped(ordered, damping))
            return np.linalg.cholesky((inverse + inverse.mT) / 2).mT.astype(np.float32)
        except np.linalg.LinAlgError:
            damping *= 10


def _large_root(hessian: Floats, damping: float) -> Floats:
    """``root`` (I, I) of one large Hessian (1, I, I) within one copy of it: an inverse takes four at once.

    With the order of rows and columns reversed, H = L Lt, and U is L^-1 in the order that was.
    """
    lower = damped(hessian[:, ::-1, ::-1], damping)[0]
    size = len(lower)
    blocks = [slice(start, min(start + PART, size)) for start in range(0, size, PART)]
    inverses = []
    for i, block in enumerate(blocks):  # the Cholesky factor, of which the blocks on the diagonal are inverted
        before, after = slice(0, block.start), slice(block.stop, size)
        for rows in blocks[i:]:
            lower[rows, block] -= lower[rows, before] @ lower[block, before].T
        inverses.append(np.tril(np.linalg.inv(np.linalg.cholesky(lower[block, block]))))
        for rows in blocks[i + 1 :]:
            lower[rows, block] = lower[rows, block] @ inverses[-1].T
        lower[block, after] = 0.0
    for block, inverse in zip(blocks, inverses, strict=True):
        before = slice(0, block.start)
        lower[block, before] = -inverse @ (lower[block, before] @ lower[before, before])
        lower[block, block] = inverse
    upper: Floats = lower[::-1, ::-1].astype(np.float32, order="C")
    return upper


def feedback(weight: Floats, hessian: Floats, scale: Floats, grid: Grid = INT8) -> Numbers:
    """Round column after column, the inputs that matter most first; the rest make up for each one's error."""
    groups, _, size = weight.shape
    order = np.argsort(-np.einsum("gii->gi", hessian), axis=1, kind="stable")  # (G, I)
    each = np.arange(groups)[:, None]
    upper = root(hessian[each[:, :, None], order[:, :, None], order[:, None, :]])
    left = np.take_along_axis(weight, order[:, None, :], 2).copy()
    quantized = np.empty_like(grid.nearest(weight[..., :1], scale), shape=weight.shape)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = np.empty((*weight.shape[:2], end - start), np.float32)
        for i in range(start, end):
            column = grid.nearest(left[:, :, i : i + 1], scale)[:, :, 0]
            quantized[:, :, i] = column
            error = (left[:, :, i] - column * scale) / upper[:, None, i, i]
            errors[:, :, i - start] = error
            left[:, :, i + 1 : end] -= error[:, :, None] * upper[:, None, i, i + 1 : end]
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    out = np.empty_like(quantized)
    np.put_along_axis(out, np.broadcast_to(order[:, None, :], quantized.shape), quantized, 2)
    return out
