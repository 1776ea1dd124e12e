"""The input of a graph's layer as the matrix its weight multiplies (im2col), and the weight as a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from pocketzoo.core.arrays import Array
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.operators import OPERATORS, out_axis

T = TypeVar("T", bound=np.generic)

WIDEST = 4608  # values of a column up to which all second moments are kept: those of a 3 x 3 of 512 channels
LEAST, MOST = 64, 384  # positions of one sample that are taken at most; neighboring ones differ little
WAITING = 256  # columns that are gathered before they are multiplied: one large product is quicker than many small ones
BLOCK = 256  # rows of second moments that are added to at a time


@dataclass(frozen=True, slots=True)
class Im2col:
    """How the input of a layer is cut into columns. Layers that read one tensor alike share their statistics."""

    tensor: str
    kernel: tuple[int, ...] = ()  # empty for Gemm and MatMul
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()  # all begins, then all ends
    auto_pad: str = "NOTSET"
    groups: int = 1
    transposed: bool = False  # Gemm with transA

    def columns(self, x: Array, turn: int = 0) -> Array:
        """Columns (G, I, N) of one sample ``x`` (1, C, ...): G is ``groups``, I the inputs of one output.

        Each column gives one position of the output. Some positions are taken, evenly spread, more where I is large;
        ``turn`` moves them on, so that samples take turns.
        """
        if not self.kernel:
            flat = (x if self.transposed else x.reshape(-1, x.shape[-1]).T)[None]
            return np.ascontiguousarray(flat[:, :, _spread(flat.shape[2], 1, flat.shape[1], turn)])
        x = self._padded(x[0])
        inside = x.shape[1:]
        extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        places = tuple((n - e) // s + 1 for n, s, e in zip(inside, self.strides, extent, strict=True))
        step = _step(math.prod(places), places[-1], len(x) // self.groups * math.prod(self.kernel))
        positions = _positions(self.kernel, self.strides, self.dilations, inside, places, turn % step, step)
        columns: Array = x.reshape(len(x), -1).take(positions.ravel(), axis=1)  # (C, K * N)
        return columns.reshape(self.groups, -1, positions.shape[1])

    def _padded(self, x: Array) -> Array:
        rank, pads = len(self.kernel), self.pads
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            need = [
                max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
                for n, s, k, d in zip(x.shape[1:], self.strides, self.kernel, self.dilations, strict=True)
            ]
            less, more = [n // 2 for n in need], [n - n // 2 for n in need]
            pads = (*less, *more) if self.auto_pad == "SAME_UPPER" else (*more, *less)
        if not any(pads):
            return x
        around = [(pads[i], pads[rank + i]) for i in range(rank)]
        padded = np.zeros(
            (len(x), *(less + n + more for n, (less, more) in zip(x.shape[1:], around, strict=True))), x.dtype
        )
        padded[(slice(None), *(slice(less, less + n) for n, (less, _) in zip(x.shape[1:], around, strict=True)))] = x
        return padded  # numpy.pad takes ten times as long for small arrays


def _spread(count: int, width: int, size: int, turn: int) -> npt.NDArray[np.int64]:
    """Some of ``count`` positions, ``_step`` apart."""
    step = _step(count, width, size)
    return np.arange(turn % step, count, step)


def _step(count: int, width: int, size: int) -> int:
    """From one position to the next: it shares no factor with ``width``, so that all columns of an image are seen."""
    step = -(-count // min(max(size, LEAST), MOST))
    while step > 1 and math.gcd(step, width) > 1:
        step += 1
    return step


@lru_cache(maxsize=64)  # layers that are alike read alike, sample after sample
def _positions(
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    inside: tuple[int, ...],
    places: tuple[int, ...],
    start: int,
    step: int,
) -> npt.NDArray[np.int64]:
    """Where in a padded image of the lengths ``inside`` columns are (K, N): every ``step`` of the ``places``."""
    taken = np.unravel_index(np.arange(start, math.prod(places), step), places)
    offsets = np.indices(kernel).reshape(len(kernel), -1)
    corner = [t * s for t, s in zip(taken, strides, strict=True)]
    at = [o[:, None] * d + c for o, d, c in zip(offsets, dilations, corner, strict=True)]  # (K, N) an axis
    return np.asarray(np.ravel_multi_index(at, inside))


def im2col_of(node: NodeProto, weight: Array) -> Im2col:
    """How the input of a Conv, Gemm or MatMul with a constant weight becomes columns."""
    if OPERATORS[node.op_type].kind != "convolution":
        return Im2col(node.input[0], transposed=bool(attribute(node, "transA", 0)))
    rank, auto_pad = weight.ndim - 2, attribute(node, "auto_pad", b"NOTSET").decode()
    no_pads = (0,) * 2 * rank
    return Im2col(
        node.input[0],
        kernel=tuple(weight.shape[2:]),
        strides=tuple(attribute(node, "strides", (1,) * rank)),
        dilations=tuple(attribute(node, "dilations", (1,) * rank)),
        pads=tuple(attribute(node, "pads", no_pads)) if auto_pad == "NOTSET" else no_pads,
        auto_pad=auto_pad,
        groups=int(attribute(node, "group", 1)),
    )


def as_matrix(weight: Array, node: NodeProto, groups: int) -> Array:
    """A layer's weight as (G, O / G, I): what multiplies the columns that its ``Im2col`` gives."""
    wide = weight if out_axis(node, weight.ndim) == 0 else weight.T
    return wide.reshape(groups, wide.shape[0] // groups, -1)


def from_matrix(matrix: npt.NDArray[T], like: Array, node: NodeProto) -> npt.NDArray[T]:
    """The inverse of ``as_matrix``: back to the shape of ``like``."""
    return np.ascontiguousarray(
        matrix.reshape(like.shape) if out_axis(node, like.ndim) == 0 else matrix.reshape(like.shape[::-1]).T
    )


@dataclass
class ColumnMoments:
    """Means over columns x, streamed: E[x] and E[x xT], in single precision as running means.

    Of columns longer than ``WIDEST`` the second moments are kept within P equal parts of them, as blocks on the
    diagonal: all of those of a flattened map of 37,632 values would be 5.7 GB, and take an hour to invert.
    """

    second: npt.NDArray[np.float32]  # (G P, I / P, I / P)
    first: npt.NDArray[np.float64]  # (G, I)
    count: int = 0
    waiting: Array | None = None  # (G, I, WAITING), allocated once: churn would fragment memory
    held: int = 0

    @classmethod
    def empty(cls, groups: int, size: int) -> ColumnMoments:
        """No columns yet."""
        parts = next(n for n in range(-(-size // WIDEST), size + 1) if size % n == 0)
        part = size // parts
        return cls(np.zeros((groups * parts, part, part), np.float32), np.zeros((groups, size)))

    def add(self, columns: Array) -> None:
        """Take columns (G, I, N) in. Call ``flush`` after the last."""
        count = columns.shape[2]
        if len(columns) > 1 or count >= WAITING:
            self._take(columns)
            return
        if self.waiting is None:
            self.waiting = np.empty((*columns.shape[:2], WAITING), np.float32)
        if self.held + count > WAITING:
            self.flush()
        self.waiting[:, :, self.held : self.held + count] = columns
        self.held += count

    def flush(self) -> None:
        """Count what is still waiting."""
        if self.waiting is not None and self.held:
            self._take(self.waiting[:, :, : self.held])
            self.held = 0

    def _take(self, columns: Array) -> None:
        count, size = columns.shape[2], self.second.shape[1]
        self.count += count
        self.first += (columns.mean(2, dtype=np.float64) - self.first) * (count / self.count)
        columns = columns.reshape(-1, size, count)
        turned = columns.transpose(0, 2, 1)
        for start in range(0, size, BLOCK):
            part = slice(start, start + BLOCK)
            product = columns[:, part] @ turned
            product *= np.float32(1 / self.count)
            self.second[:, part] *= np.float32(1 - count / self.count)
            self.second[:, part] += product

    def covariance(self, which: slice = slice(None)) -> npt.NDArray[np.float32]:
        """E[x xT] - E[x] E[x]T: what is left where a bias takes the mean. ``which``: of these blocks alone."""
        mean = self.first.astype(np.float32).reshape(len(self.second), -1)[which]
        product: npt.NDArray[np.float32] = mean[:, :, None] * mean[:, None, :]
        np.subtract(self.second[which], product, out=product)
        return product


@dataclass(frozen=True, slots=True)
class SummedMoments:
    """Second moments of all that multiplies by one weight, blocks of them at a time: all take gigabytes at once.

    ``terms``: the moments, and whether a bias takes the mean of what is read.
    """

    terms: tuple[tuple[ColumnMoments, bool], ...]

    def __len__(self) -> int:
        return len(self.terms[0][0].second)

    def __getitem__(self, which: slice, /) -> npt.NDArray[np.float32]:
        total, *others = (
            moment.covariance(which) if centered else moment.second[which] for moment, centered in self.terms
        )
        for other in others:
            total = total + other
        return total
