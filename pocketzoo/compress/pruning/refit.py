"""Compensate for pruning: refit the remaining weights by least squares on calibration data.

Layer after layer, V = argmin |W x - V x'|^2, with x what the layer reads in the original and x' what the already pruned
model outputs it (ThiNet, Luo et al. 2017, arXiv:1707.06342, refits one layer so); where a shortcut joins the output,
its error is part of what is fitted. Where single weights are zero the fit is over the others alone, each row for
itself: the exact solution of what SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774) approaches column by column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning.least_squares import Sums, regress
from pocketzoo.compress.statistics.calibration_batches import Inputs, held_out_of, parts, size_of, take
from pocketzoo.compress.statistics.eligible_layers import weighted_layers
from pocketzoo.compress.statistics.layerwise import walk
from pocketzoo.compress.statistics.second_moments import sample_positions
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.models.layer_hooks import before

CHUNK = 16  # samples in one forward pass: each is a thread, with memory of its own
RUNS = 8  # forward passes at the least, as far as there are samples
ROWS, FEWEST = 48, 64  # rows taken, as far as bytes allow: in all for each input of a layer; of each forward pass
ROW_BYTES = 150_000_000  # of the rows of one layer
BYTES = 250_000_000  # of activations held at a time, in round numbers: it bounds the samples
LEAST, MOST = 16, 512  # samples


@keywords_renamed(kept="channels_left")
def refit(
    model: nn.Module,
    pruned: nn.Module,
    names: Iterable[str],
    samples: Iterable[Arrays],
    *,
    channels_left: Mapping[str, tuple[int, ...]],
    shifts: Mapping[str, str],
    shortcuts: Mapping[str, Shortcut],
    masked: bool = False,
) -> None:
    """Refit the named layers of ``pruned`` (Conv2d with groups = 1, Linear), which has the layers of ``model``.

    ``channels_left``: weight -> which of its output channels stay. ``shifts``: weight -> the bias that is corrected.
    ``masked``: weights that are zero stay so. What is not finite is left as it was.
    """
    layers = weighted_layers(pruned)
    shortcuts = {n: s for n in layers if (s := shortcuts.get(f"{n}.weight")) is not None}
    for count, phase in _phases(model, [n for n in layers if n in set(names)], samples, shortcuts):
        runs, sides = _runs(samples, count)
        held: list[dict[str, Tensor]] = [{} for _ in range(2 * len(runs))]
        phase_shortcuts = {n: s for n in phase if (s := shortcuts.get(n)) is not None}
        sizes = {n: model.get_parameter(f"{n}.weight")[0].numel() for n in phase}
        limits = {n: max(min(ROWS * i, ROW_BYTES // (2 * 4 * i)) // len(runs), FEWEST) for n, i in sizes.items()}

        def visit(
            name: str,
            inputs: list[Tensor],
            held: list[dict[str, Tensor]] = held,
            by_layer: dict[str, Shortcut] = phase_shortcuts,
            limits: dict[str, int] = limits,
            sides: list[int] = sides,
        ) -> None:
            _refit_layer(
                name, inputs, sides, held, model, pruned, channels_left, shifts, by_layer.get(name), masked,
                limits[name],
            )  # fmt: skip
            if name in by_layer:
                for run in held:  # activations of all samples: let them go
                    run.pop(by_layer[name].reader, None)

        walk(
            [(model, x) for x in runs] + [(pruned, x) for x in runs],
            phase,
            visit,
            hold={s.reader for s in phase_shortcuts.values()},
            held=held,
            until=phase[-1],
            limits=limits,
        )


def _runs(samples: Iterable[Arrays], count: int) -> tuple[list[Inputs], list[int]]:
    """``count`` samples in batches, of few samples in smaller ones, and which half each batch is of.

    One half judges what the other fits. Samples of one source are in one half; where each is its own, every other batch
    is.
    """
    whole = list(parts(samples, CHUNK, count))
    total = sum(map(size_of, whole))
    size = min(max(total // RUNS, 1), CHUNK)
    if (second := held_out_of(samples, 2, total)) is None:
        runs = [piece for x in whole for piece in _pieces(x, size)]
        return runs, [i % 2 for i in range(len(runs))]
    runs, sides, start = list[Inputs](), list[int](), 0
    for x in whole:
        in_second = second[start : start + size_of(x)]
        start += size_of(x)
        for side, which in enumerate((~in_second, in_second)):
            pieces = _pieces(take(x, which), size) if which.any() else []
            runs += pieces
            sides += [side] * len(pieces)
    return runs, sides


def _pieces(x: Inputs, size: int) -> list[Inputs]:
    return [tuple(piece) for piece in zip(*(torch.split(t, size) for t in x), strict=True)]


def _phases(
    model: nn.Module, names: list[str], samples: Iterable[Arrays], shortcuts: Mapping[str, Shortcut]
) -> list[tuple[int, list[str]]]:
    """Layers in the order they run, cut into phases by how many samples there is memory for.

    Activations of early layers are large, and each sample has many positions of them; those of late ones are small, and
    few. So a phase of few samples refits the early layers, and one of many samples the late ones.
    """
    held: dict[str, int] = {}  # numbers of one sample that wait at a layer
    readers = {s.reader for s in shortcuts.values()}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        held[name] = inputs[0].numel()

    with before(model, dict.fromkeys((*names, *readers)), note), torch.no_grad():
        model(*next(iter(parts(samples, 1, 1))))
    room = {
        name: BYTES // (2 * 4 * (size + (held.get(shortcuts[name].reader, 0) if name in shortcuts else 0)))
        for name, size in held.items()
        if name in names
    }
    phases: list[tuple[int, list[str]]] = []
    least = MOST
    for name in reversed(room):  # a layer has no more samples than those after it: phases are few
        least = min(least, max(room[name], LEAST))
        count = 2 ** (least.bit_length() - 1)
        if phases and phases[0][0] == count:
            phases[0][1].insert(0, name)
        else:
            phases.insert(0, (count, [name]))
    return phases


def _refit_layer(
    name: str,
    inputs: list[Tensor],
    sides: list[int],
    held: list[dict[str, Tensor]],
    model: nn.Module,
    pruned: nn.Module,
    channels_left: Mapping[str, tuple[int, ...]],
    shifts: Mapping[str, str],
    shortcut: Shortcut | None,
    masked: bool,
    limit: int,
) -> None:
    half = len(inputs) // 2
    rows = channels_left.get(f"{name}.weight")
    before = model.get_parameter(f"{name}.weight").detach().flatten(1)
    before = before if rows is None else before[list(rows)]
    weight = pruned.get_parameter(f"{name}.weight")
    now = weight.detach().flatten(1).double()
    halves = [Sums.empty(*now.shape), Sums.empty(*now.shape)]
    for i in range(half):
        full, less = inputs[i], inputs[half + i]
        reference = full @ before.T  # (N, O)
        if shortcut is not None:
            error = shortcut_error(pruned, name, shortcut, held[i], held[half + i], rows, len(reference), limit)
            reference = reference if error is None else reference + error
        halves[sides[i]].add(less, reference)
    shift = shifts.get(f"{name}.weight")
    solution = regress(now, halves, shifts=shift is not None, mask=now != 0 if masked else None)
    if solution is None:
        return
    weight.data.copy_(solution[0].view_as(weight))
    if shift:
        shift_output(pruned, shift, solution[1])


def shortcut_error(
    pruned: nn.Module,
    name: str,
    shortcut: Shortcut,
    full: dict[str, Tensor],
    less: dict[str, Tensor],
    rows: tuple[int, ...] | None,
    count: int,
    limit: int,
) -> Tensor | None:
    """What the shortcut alongside a layer lacks (N, O), as its own output would have to give it."""
    if shortcut.reader not in full or shortcut.reader not in less:
        return None
    x, y = full[shortcut.reader], less[shortcut.reader]
    if isinstance(pruned.get_submodule(name), nn.Conv2d):
        x, y = x.movedim(1, -1), y.movedim(1, -1)
    x = x if rows is None else x[..., list(rows)]
    if x.shape != y.shape:
        return None
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    taken = sample_positions(len(x), limit)
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


def shift_output(model: nn.Module, name: str, by: Tensor) -> None:
    """Add ``by`` (O,) to a layer's output: on its bias, or against the mean that its batch norm subtracts."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    tensor.data.add_(by.to(tensor.dtype) * (-1 if attribute == "running_mean" else 1))
