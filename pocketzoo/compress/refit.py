"""Make up for what pruning removed: refit the weights that stay, by least squares on calibration data.

Layer after layer, V = argmin |W x - V x'|^2, with x what the layer reads in the original and x' what the already pruned
model gives it (ThiNet, Luo et al. 2017, arXiv:1707.06342, refits one layer so); where a shortcut joins the output, its
error is part of what is fitted. Where single weights are zero the fit is over the others alone, each row for itself:
the exact solution of what SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774) approaches column by column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from pocketzoo.compress.layers import parts, weighted_layers
from pocketzoo.compress.lockstep import walk
from pocketzoo.compress.moments import doubt, sample_positions
from pocketzoo.compress.plans import Shortcut
from pocketzoo.zoo.preprocess import Array

CHUNK = 8  # samples in one forward pass
ROWS = 32  # for each input of a layer, as far as the samples have them
LEAST, MOST = 32, 512  # samples whose activations are held at a time
RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)  # added to the diagonal, as a share of it
STEPS = 40  # of conjugate gradients, where weights are masked


def refit(
    model: nn.Module,
    pruned: nn.Module,
    names: Iterable[str],
    samples: Iterable[Array],
    *,
    kept: Mapping[str, tuple[int, ...]],
    shifts: Mapping[str, str],
    shortcuts: Mapping[str, Shortcut],
    masked: bool = False,
) -> None:
    """Refit the named layers of ``pruned`` (Conv2d with groups = 1, Linear), which has the layers of ``model``.

    ``kept``: weight -> which of its output channels stay. ``shifts``: weight -> what takes the mean that was lost.
    ``masked``: weights that are zero stay so. What is not finite is left as it was.
    """
    layers = weighted_layers(pruned)
    phases = _phases(model, [n for n in layers if n in set(names)], samples)
    for count, phase in phases:
        runs = list(parts(samples, CHUNK, count))
        held: list[dict[str, Tensor]] = [{} for _ in range(2 * len(runs))]
        wanted = {n: s for n in phase if (s := shortcuts.get(f"{n}.weight")) is not None}

        def visit(name: str, inputs: list[Tensor], held: list[dict[str, Tensor]] = held) -> None:
            _refit_layer(name, inputs, held, model, pruned, kept, shifts, wanted.get(name), masked)  # noqa: B023
            if name in wanted:  # noqa: B023
                for run in held:  # activations of all samples: let them go
                    run.pop(wanted[name].reader, None)  # noqa: B023

        walk(
            [(model, x) for x in runs] + [(pruned, x) for x in runs],
            phase,
            visit,
            hold={s.reader for s in wanted.values()},
            held=held,
            until=phase[-1],
        )


def _phases(model: nn.Module, names: list[str], samples: Iterable[Array]) -> list[tuple[int, list[str]]]:
    """Layers in the order they run, cut into phases by how many samples they need.

    Early layers see many positions of each sample, and their activations are large; late ones see few and are small. So
    a phase of few samples refits the early layers, and one of many samples the late ones.
    """
    need: dict[str, int] = {}
    handles = []
    for name in names:

        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor, name: str = name) -> None:
            weight = module.get_parameter("weight")
            rows = out.numel() // len(out) // weight.shape[0]
            need[name] = -(-ROWS * weight[0].numel() // max(rows, 1))

        handles.append(model.get_submodule(name).register_forward_hook(hook))
    try:
        with torch.no_grad():
            model(next(iter(parts(samples, 1, 1))))
    finally:
        for handle in handles:
            handle.remove()
    phases: list[tuple[int, list[str]]] = []
    count = LEAST
    for name, samples_needed in need.items():
        while count < min(samples_needed, MOST):
            count *= 2
        if phases and phases[-1][0] == count:
            phases[-1][1].append(name)
        else:
            phases.append((count, [name]))
    return phases


@dataclass
class _Sums:
    """Sums over rows of what a layer reads, x', and of what it should give, y."""

    gram: Tensor  # (I, I), of x' x'T
    cross: Tensor  # (O, I), of y x'T
    given: Tensor  # (I,), of x'
    wanted: Tensor  # (O,), of y
    count: int = 0

    @classmethod
    def empty(cls, outputs: int, inputs: int) -> _Sums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(zeros(inputs, inputs), zeros(outputs, inputs), zeros(inputs), zeros(outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.gram += (x.T @ x).double()
        self.cross += (y.T @ x).double()
        self.given += x.double().sum(0)
        self.wanted += y.double().sum(0)
        self.count += len(x)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.given + other.given,
            self.wanted + other.wanted,
            self.count + other.count,
        )

    def centred(self) -> _Sums:
        """The same around the means, for a layer whose bias takes them."""
        n = max(self.count, 1)
        gram = self.gram - torch.outer(self.given, self.given) / n
        return _Sums(gram, self.cross - torch.outer(self.wanted, self.given) / n, self.given, self.wanted, self.count)


def _refit_layer(
    name: str,
    inputs: list[Tensor],
    held: list[dict[str, Tensor]],
    model: nn.Module,
    pruned: nn.Module,
    kept: Mapping[str, tuple[int, ...]],
    shifts: Mapping[str, str],
    shortcut: Shortcut | None,
    masked: bool,
) -> None:
    half = len(inputs) // 2
    rows = kept.get(f"{name}.weight")
    before = model.get_parameter(f"{name}.weight").detach().flatten(1)
    before = before if rows is None else before[list(rows)]
    weight = pruned.get_parameter(f"{name}.weight")
    now = weight.detach().flatten(1).double()
    halves = [_Sums.empty(*now.shape), _Sums.empty(*now.shape)]
    for i in range(half):
        full, less = inputs[i], inputs[half + i]
        wanted = full @ before.T  # (N, O)
        if shortcut is not None:
            error = _shortcut_error(pruned, name, shortcut, held[i], held[half + i], rows, len(wanted))
            wanted = wanted if error is None else wanted + error
        halves[i % 2].add(less, wanted)
    whole = halves[0] + halves[1]
    shift = shifts.get(f"{name}.weight")
    sums = whole.centred() if shift else whole
    mask = now != 0 if masked else None
    ridge = _ridge(now, [h.centred() if shift else h for h in halves], mask)
    fitted = _fit(now, sums, ridge, mask)
    if not torch.isfinite(fitted).all():
        return
    weight.data.copy_(fitted.view_as(weight))
    if shift:
        shift_output(pruned, shift, (whole.wanted - fitted @ whole.given) / whole.count)


def _ridge(now: Tensor, halves: list[_Sums], mask: Tensor | None) -> float:
    """How far to damp: what is fitted on one half of the samples and has the least error on the other.

    Neighbouring positions of a sample say much the same, so the number of rows alone promises too much.
    """
    size, count = len(now[0]), min(h.count for h in halves)
    if count == 0:
        return doubt(size, 2 * sum(h.count for h in halves))
    errors = []
    for ridge in RIDGES:
        error = 0.0
        for train, test in (halves, halves[::-1]):
            V = _fit(now, train, ridge, mask)
            error += float(((V @ test.gram) * V).sum() - 2 * (V * test.cross).sum())
        errors.append(error if isfinite(error) else float("inf"))
    return RIDGES[errors.index(min(errors))]


def _fit(now: Tensor, sums: _Sums, ridge: float, mask: Tensor | None) -> Tensor:
    """The weights (O, I) of least squares; what ``now`` misses is regressed, so that damping pulls towards ``now``."""
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


def _shortcut_error(
    pruned: nn.Module,
    name: str,
    shortcut: Shortcut,
    full: dict[str, Tensor],
    less: dict[str, Tensor],
    rows: tuple[int, ...] | None,
    count: int,
) -> Tensor | None:
    """What the shortcut beside a layer lacks (N, O), as its own output would have to give it."""
    if shortcut.reader not in full or shortcut.reader not in less:
        return None
    x, y = full[shortcut.reader], less[shortcut.reader]
    if isinstance(pruned.get_submodule(name), nn.Conv2d):
        x, y = x.movedim(1, -1), y.movedim(1, -1)
    x = x if rows is None else x[..., list(rows)]
    if x.shape != y.shape:
        return None
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    taken = sample_positions(len(x))
    if len(taken) != count:
        return None
    error = x[taken] - y[taken]
    if shortcut.norm:
        norm = pruned.get_submodule(shortcut.norm)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        scale = torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        error = torch.where(scale.abs() > 1e-3, error / scale, 0.0)
    return error.detach()


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


def shift_output(model: nn.Module, name: str, by: Tensor) -> None:
    """Add ``by`` (O,) to a layer's output: on its bias, or against the mean that its batch norm subtracts."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    tensor.data.add_(by.to(tensor.dtype) * (-1 if attribute == "running_mean" else 1))
