"""Damped least squares from sums over rows, with the damping chosen on held-out data.

The candidates begin with "change nothing", since a fit from few samples may be worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isinf

import torch
from torch import Tensor

RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, inf)  # fraction of the diagonal added to it; inf: no fit
STEPS = 40  # of conjugate gradients, where weights are masked
BLOCK = 2**18  # weights that are solved for at once there, for all ridges


@dataclass
class Sums:
    """Sums over rows of what a layer reads, x', and of what it should give, y."""

    gram: Tensor  # (I, I), of x' x'T
    cross: Tensor  # (O, I), of y x'T
    inputs: Tensor  # (I,), of x'
    outputs: Tensor  # (O,), of y
    count: int = 0

    @classmethod
    def empty(cls, outputs: int, inputs: int) -> Sums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(zeros(inputs, inputs), zeros(outputs, inputs), zeros(inputs), zeros(outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.gram += (x.T @ x).double()
        self.cross += (y.T @ x).double()
        self.inputs += x.double().sum(0)
        self.outputs += y.double().sum(0)
        self.count += len(x)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.inputs + other.inputs,
            self.outputs + other.outputs,
            self.count + other.count,
        )

    def of(self, rows: slice) -> Sums:
        """The same of some outputs."""
        return Sums(self.gram, self.cross[rows], self.inputs, self.outputs[rows], self.count)

    def centered(self) -> Sums:
        """The same around the means, for a layer whose bias takes them."""
        n = max(self.count, 1)
        gram = self.gram - torch.outer(self.inputs, self.inputs) / n
        return Sums(
            gram, self.cross - torch.outer(self.outputs, self.inputs) / n, self.inputs, self.outputs, self.count
        )

    def error(self, weight: Tensor, shift: Tensor) -> float:
        """The squared error of ``weight`` (O, I) and ``shift`` (O,) over these rows, less the energy of y."""
        about = ((weight @ self.gram) * weight).sum() - 2 * (weight * self.cross).sum()
        about += 2 * shift @ (weight @ self.inputs - self.outputs) + self.count * shift @ shift
        return float(about)


def regress(
    now: Tensor, parts: Sequence[Sums], *, shifts: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """The weight (O, I) and the shift (O,) that give y from x'; None if ``now`` without a shift does it best, or the
    sums are not finite.

    ``parts`` are sums over two halves of the samples, fitted on one and judged on the other. Neighboring positions of
    a sample say much the same, so the number of rows alone promises too much. ``shifts``: whether there may be a shift;
    ``mask``: where a weight may change.
    """
    whole = parts[0] + parts[1]
    if not all(part.count for part in parts):  # a single sample: there is nothing to judge on
        return None
    if not (torch.isfinite(whole.gram).all() and torch.isfinite(whole.cross).all()):
        return None
    errors = dict.fromkeys(RIDGES, 0.0)
    nothing = sum(test.error(now, torch.zeros_like(test.outputs)) for test in parts)
    for train, test in (parts, parts[::-1]):
        for rows in _blocks(now, mask):
            fits = _fitted(now, train, RIDGES, shifts, mask, rows)
            for ridge, (weight, shift) in zip(RIDGES, fits, strict=True):
                errors[ridge] += test.of(rows).error(weight, shift)
    best = min((error if isfinite(error) else inf, ridge) for ridge, error in errors.items())
    if not best[0] < nothing:
        return None
    fitted = [next(_fitted(now, whole, best[1:], shifts, mask, rows)) for rows in _blocks(now, mask)]
    weight, shift = (torch.cat(pieces) for pieces in zip(*fitted, strict=True))
    return (weight, shift) if bool(torch.isfinite(weight).all()) else None


def _blocks(now: Tensor, mask: Tensor | None) -> list[slice]:
    """Rows that are fitted at once: all, or of masked ones as many as memory is to hold the solutions of all ridges."""
    size = len(now) if mask is None else max(BLOCK // max(now.shape[1], 1), 16)
    return [slice(start, start + size) for start in range(0, len(now), size)]


def _fitted(
    now: Tensor, sums: Sums, ridges: Sequence[float], shifts: bool, mask: Tensor | None, rows: slice
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and shift of some rows, for each ridge."""
    now, sums, mask = now[rows], sums.of(rows), None if mask is None else mask[rows]
    about = sums.centered() if shifts else sums
    for weight in _solved(now, about, ridges) if mask is None else masked_weights(now, about, ridges, mask):
        if shifts:
            yield weight, (sums.outputs - weight @ sums.inputs) / sums.count
        else:
            yield weight, torch.zeros_like(sums.outputs)


def _missed(now: Tensor, sums: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """What ``now`` misses (O, I), the moments (I, I) and their diagonal.

    What is missed is regressed, not y itself, so that damping pulls towards ``now``.
    """
    diagonal = sums.gram.diagonal()
    # An input that is always zero has nothing to say, and must not make the others' solution uncertain.
    least = 1e-12 * diagonal.max().clamp_min(1e-12)
    return sums.cross - now @ sums.gram, sums.gram + torch.eye(len(diagonal), dtype=diagonal.dtype) * least, diagonal


def _solved(now: Tensor, sums: Sums, ridges: Sequence[float]) -> Iterator[Tensor]:
    """The weights (O, I) of least squares, for each ridge."""
    missed, gram, diagonal = _missed(now, sums)
    for ridge in ridges:
        if isinf(ridge):
            yield now
            continue
        damped = gram + (ridge * diagonal).diag()
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            yield now + torch.cholesky_solve(missed.T, factor).T
        else:
            yield now + missed @ torch.linalg.pinv(damped, hermitian=True)


def masked_weights(now: Tensor, sums: Sums, ridges: Sequence[float], mask: Tensor) -> Iterator[Tensor]:
    """The weights ``now + D`` (O, I) for each ridge: D zero outside ``mask``, (missed - D damped) * mask = 0.

    By conjugate gradients with the diagonal as preconditioner: each step only lowers the squared error. In its scale
    ridges are shifts of one matrix, which have the directions in common (Jegerlehner 1996, hep-lat/9612014): all are
    solved at the cost of the one that takes the most steps, the smallest.
    """
    finite = [ridge for ridge in ridges if not isinf(ridge)]
    missed, gram, _ = _missed(now, sums)
    scale = gram.diagonal().clamp_min(1e-300).rsqrt()
    scaled = gram * scale * scale[:, None]
    scaled.diagonal().add_(min(finite, default=0.0))
    more = torch.tensor(finite, dtype=now.dtype).sub(min(finite, default=0.0)).view(-1, 1, 1)

    residual = missed * scale * mask
    direction, power = residual, residual.square().sum(1, keepdim=True)
    first = power.clone()
    changes = residual.new_zeros(len(finite), *residual.shape)
    theirs = residual.expand_as(changes).clone()  # directions, as they are for each ridge
    shrink = share = torch.ones_like(more * power)  # their residuals, as a fraction of the last ones, and of ours
    step_before, turn = torch.ones_like(power), torch.zeros_like(power)
    for _ in range(STEPS):
        if bool((power <= 1e-10 * first).all()):
            break
        curved = (direction @ scaled) * mask
        step = power / (direction * curved).sum(1, keepdim=True).clamp_min(1e-300)
        shrink = 1 / (1 + step * more + step * turn / step_before.clamp_min(1e-300) * (1 - shrink))
        share = share * shrink
        changes.addcmul_(step * shrink, theirs)
        residual = residual - step * curved
        fresh = residual.square().sum(1, keepdim=True)
        turn = fresh / power.clamp_min(1e-300)
        direction = residual + turn * direction
        theirs.mul_(turn * shrink.square()).addcmul_(share, residual)
        power, step_before = fresh, step
    changes *= scale
    solved = dict(zip(finite, changes, strict=True))
    for ridge in ridges:
        yield now if isinf(ridge) else now + solved[ridge]
