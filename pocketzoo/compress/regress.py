"""Least squares between what layers read and what they should give, from sums over rows: damped as far as they overfit.

How far is decided on rows that were not fitted, among solutions that begin with "change nothing": from few samples a
fit may be worse than none, and then there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isinf

import torch
from torch import Tensor

RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, inf)  # added to the diagonal, as a share of it; inf: no fit
STEPS = 40  # of conjugate gradients, where weights are masked


@dataclass
class Sums:
    """Sums over rows of what a layer reads, x', and of what it should give, y."""

    gram: Tensor  # (I, I), of x' x'T
    cross: Tensor  # (O, I), of y x'T
    given: Tensor  # (I,), of x'
    wanted: Tensor  # (O,), of y
    count: int = 0

    @classmethod
    def empty(cls, outputs: int, inputs: int) -> Sums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(zeros(inputs, inputs), zeros(outputs, inputs), zeros(inputs), zeros(outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.gram += (x.T @ x).double()
        self.cross += (y.T @ x).double()
        self.given += x.double().sum(0)
        self.wanted += y.double().sum(0)
        self.count += len(x)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.given + other.given,
            self.wanted + other.wanted,
            self.count + other.count,
        )

    def centred(self) -> Sums:
        """The same around the means, for a layer whose bias takes them."""
        n = max(self.count, 1)
        gram = self.gram - torch.outer(self.given, self.given) / n
        return Sums(gram, self.cross - torch.outer(self.wanted, self.given) / n, self.given, self.wanted, self.count)

    def error(self, weight: Tensor, shift: Tensor) -> float:
        """The squared error of ``weight`` (O, I) and ``shift`` (O,) over these rows, less the energy of y."""
        about = ((weight @ self.gram) * weight).sum() - 2 * (weight * self.cross).sum()
        about += 2 * shift @ (weight @ self.given - self.wanted) + self.count * shift @ shift
        return float(about)


def regress(
    now: Tensor, parts: Sequence[Sums], *, shifts: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """The weight (O, I) and the shift (O,) that give y from x'; None if ``now`` without a shift does it best.

    ``parts`` are sums over two halves of the samples, fitted on one and judged on the other. Neighbouring positions of
    a sample say much the same, so the number of rows alone promises too much. ``shifts``: whether there may be a shift;
    ``mask``: where a weight may change.
    """
    whole = parts[0] + parts[1]
    if not all(part.count for part in parts):  # a single sample: there is nothing to judge on
        return None
    errors = dict.fromkeys(RIDGES, 0.0)
    nothing = sum(test.error(now, torch.zeros_like(test.wanted)) for test in parts)
    for train, test in (parts, parts[::-1]):
        for ridge in RIDGES:
            weight, shift = _fitted(now, train, ridge, shifts, mask)
            errors[ridge] += test.error(weight, shift)
    best = min((error if isfinite(error) else inf, ridge) for ridge, error in errors.items())
    if not best[0] < nothing:
        return None
    weight, shift = _fitted(now, whole, best[1], shifts, mask)
    return (weight, shift) if bool(torch.isfinite(weight).all()) else None


def _fitted(now: Tensor, sums: Sums, ridge: float, shifts: bool, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    weight = _solved(now, sums.centred() if shifts else sums, ridge, mask)
    if not shifts:
        return weight, torch.zeros_like(sums.wanted)
    return weight, (sums.wanted - weight @ sums.given) / sums.count


def _solved(now: Tensor, sums: Sums, ridge: float, mask: Tensor | None) -> Tensor:
    """The weights (O, I) of least squares; what ``now`` misses is regressed, so that damping pulls towards ``now``."""
    if isinf(ridge):
        return now
    missed = sums.cross - now @ sums.gram
    diagonal = sums.gram.diagonal()
    # An input that is always zero has nothing to say, and must not make the others' solution uncertain.
    damped = sums.gram + (ridge * diagonal + 1e-12 * diagonal.max().clamp_min(1e-12)).diag()
    if mask is not None:
        return now + _masked(missed, damped, mask)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) == 0:
        solved: Tensor = torch.cholesky_solve(missed.T, factor).T
        return now + solved
    inverse: Tensor = torch.linalg.pinv(damped, hermitian=True)
    return now + missed @ inverse


def _masked(missed: Tensor, damped: Tensor, mask: Tensor) -> Tensor:
    """The change D (O, I), zero outside ``mask``, that solves (missed - D damped) * mask = 0.

    By conjugate gradients with the diagonal as preconditioner: each step only lowers the squared error.
    """
    diagonal = damped.diagonal().clamp_min(1e-300)
    change = torch.zeros_like(missed)
    residual = missed * mask
    scaled = residual / diagonal
    direction, power = scaled, (residual * scaled).sum(1, keepdim=True)
    first = power.clone()
    for _ in range(STEPS):
        if bool((power <= 1e-10 * first).all()):
            break
        curved = (direction @ damped) * mask
        step = power / (direction * curved).sum(1, keepdim=True).clamp_min(1e-300)
        change += step * direction
        residual = residual - step * curved
        scaled = residual / diagonal
        fresh = (residual * scaled).sum(1, keepdim=True)
        direction, power = scaled + fresh / power.clamp_min(1e-300) * direction, fresh
    return change
