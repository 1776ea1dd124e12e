"""The Gauss-Newton matrix of each layer: the effect of an error in its output on the model's output.

An error d (O,) at a position of a layer's output changes the model's outputs by J d, so by dT (JT J) d in square. JT J
is found by sending random directions back from the outputs: with E[u uT] = 1 the gradients g = JT u have
E[g gT] = JT J (Hutchinson's estimator; the output side of K-FAC, Martens & Grosse 2015, arXiv:1503.05671).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.calibration_batches import Inputs, parts, size_of
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.models.layer_hooks import after
from pocketzoo.zoo.modules.outputs import float_outputs

SAMPLES = 32  # that are sent back: each gives a layer as many gradients as it has positions
DIRECTIONS = 2  # for each
CHUNK = 2  # samples whose activations are held at a time
LARGEST = 2048  # outputs of a layer whose matrix is kept whole; of larger ones the diagonal


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How an error in a layer's output changes the model's output: (O, O), or the diagonals (O,) of large layers."""

    each: Tensor  # of an error at one position, summed over positions: errors there that do not go together
    together: Tensor  # of the same error at all positions of a sample (K-FAC's "reduce", Eschenhagen et al. 2023)


def output_sensitivity(model: nn.Module, names: Iterable[str], samples: Iterable[Arrays]) -> dict[str, Tensor]:
    """For each named layer JT J summed over its positions and averaged over samples, (O, O) or its diagonal (O,).

    It is in units of the outputs' mean square, so that dT (JT J) d is a relative squared error: of several outputs the
    mean of theirs. A layer that the outputs do not depend on is left out.
    """
    return {name: found.each for name, found in sensitivities(model, names, samples, SAMPLES).items()}


def sensitivities(
    model: nn.Module, names: Iterable[str], samples: Iterable[Arrays], count: int
) -> dict[str, Sensitivity]:
    """As ``output_sensitivity`` of the first ``count`` samples, and the same of errors that a sample has everywhere."""
    matrices: dict[str, Sensitivity] = {}
    frozen = [p for p in model.parameters() if p.requires_grad]
    energy = 0.0
    try:
        for p in frozen:
            p.requires_grad_(False)
        weights = output_weights(model, parts(samples, CHUNK, count))
        for batch, out, calls in send_back(model, names, parts(samples, CHUNK, count), DIRECTIONS, _normal, weights):
            energy += sum(weights.get(name, 1.0) ** 2 * _energy(value) for name, value in out.items())
            for call in calls:
                for rows in call.gradients:
                    each, together = _squared(rows), _squared(_of_samples(rows, size_of(batch)))
                    if (known := matrices.get(call.name)) is not None:
                        each, together = known.each + each, known.together + together
                    matrices[call.name] = Sensitivity(each, together)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    scale = 1 / max(DIRECTIONS * energy, 1e-30)
    return {name: Sensitivity(found.each * scale, found.together * scale) for name, found in matrices.items()}


def _squared(rows: Tensor) -> Tensor:
    return rows.double().square().sum(0) if rows.shape[1] > LARGEST else outer(rows)


def _of_samples(rows: Tensor, count: int) -> Tensor:
    """Gradients (N, O) of all positions added up for each of ``count`` samples, where positions can be told apart."""
    return rows.view(count, -1, rows.shape[1]).sum(1) if len(rows) % count == 0 else rows


def output_weights(model: nn.Module, batches: Iterable[Inputs]) -> dict[str, float]:
    """What each of several outputs is to be multiplied by, for all to have a mean square of 1 over the batches.

    Empty where there is one output, which needs no weight. An output that is zero everywhere has none.
    """
    energy: dict[str, float] = {}
    with torch.no_grad():
        for batch in batches:
            outputs = float_outputs(model(*batch))
            if len(outputs) == 1:
                return {}
            for name, value in outputs.items():
                energy[name] = energy.get(name, 0.0) + _energy(value)
    return {name: total**-0.5 if 0 < total < float("inf") else 0.0 for name, total in energy.items()}


def _energy(value: Tensor) -> float:
    return float(value.detach().double().square().sum())


def square_root(matrix: Tensor) -> Tensor:
    """R with RT R = ``matrix`` (O, O), or from a diagonal (O,)."""
    if matrix.ndim == 1:
        return matrix.clamp_min(0).sqrt().diag()
    values, vectors = torch.linalg.eigh(matrix)
    scaled: Tensor = values.clamp_min(0).sqrt()[:, None] * vectors.T
    return scaled


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a layer on one batch."""

    name: str
    input: Tensor
    gradients: list[Tensor]  # (N, O) for each direction: of each position of its output; none where nothing came back


def send_back(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable[Inputs],
    directions: int,
    draw: Callable[[torch.Size, torch.Generator], Tensor],
    weights: Mapping[str, float] | None = None,
) -> Iterator[tuple[Inputs, dict[str, Tensor], list[Call]]]:
    """For each batch, that, the model's outputs, and every call of a named layer with the gradients of its output.

    ``draw`` makes a random direction of an output's shape, whose mean outer product is the identity. Which ones are
    drawn does not depend on chance. ``weights`` multiply the outputs; those that are not floating point have no
    gradient. The model's parameters must not require gradients.
    """
    runs: list[tuple[str, nn.Module, Tensor, Tensor]] = []  # name, layer, its input, a handle on its output

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        handle = out if out.requires_grad else out.clone().requires_grad_()
        runs.append((name, layer, inputs[0].detach(), handle))
        return handle.view_as(handle).clone()  # what comes next may write in place

    generator = torch.Generator().manual_seed(0)
    with after(model, names, note), torch.enable_grad():
        for batch in batches:
            runs.clear()
            outputs = float_outputs(model(*batch))
            if not runs:
                return
            attached = {name: out for name, out in outputs.items() if out.requires_grad}  # some models detach
            gradients = [
                torch.autograd.grad(
                    [
                        (out * draw(out.shape, generator).to(out.dtype)).sum() * (weights or {}).get(name, 1.0)
                        for name, out in attached.items()
                    ],
                    [handle for *_, handle in runs],
                    retain_graph=i < directions - 1,
                    allow_unused=True,
                )
                for i in range(directions if attached else 0)
            ]
            yield (
                batch,
                {name: out.detach() for name, out in outputs.items()},
                [
                    Call(name, x, [_rows(layer, g[i]) for g in gradients if g[i] is not None])
                    for i, (name, layer, x, _) in enumerate(runs)
                ],
            )


def outer(rows: Tensor) -> Tensor:
    """The sum of g gT, (O, O), over gradients (N, O)."""
    return (rows.T @ rows).double()


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _rows(layer: nn.Module, gradient: Tensor) -> Tensor:
    """A gradient of a layer's output as rows (N, O), one for each position."""
    channels = 1 if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else -1
    return gradient.movedim(channels, -1).flatten(0, -2)
