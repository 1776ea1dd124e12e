"""What is added to the outputs of linear layers, found by what the modules read while the model runs.

The error of the layers before is on the shortcut too. A layer that is refitted takes what it can of it back, as pruning
does for what it traces (``pruning/refit.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.statistics.calibration_batches import Inputs, take
from pocketzoo.zoo.models.layer_hooks import after, before

EXACT = 1e-5  # of the largest value: what a sum in single precision may be off
NEXT = 4  # tensors that are read after a layer, of its output's shape, among which the sum is looked for


def shortcuts_of(model: nn.Module, names: Iterable[str], x: Inputs) -> dict[str, Shortcut]:
    """Layer -> a module that read s before, where another reads y + s afterwards, with y the layer's output.

    Layers that run more than once have none. The model is run on one sample of ``x``.
    """
    names = list(names)
    widths = {model.get_submodule(name).out_features for name in names}
    read: list[tuple[str, Tensor]] = []  # in the order they run: module, what it reads
    given: dict[str, list[tuple[int, Tensor]]] = {}  # layer -> how many had read before its output, and that

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tensor = inputs[0] if inputs else None
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[-1] in widths:
            read.append((name, tensor.detach().clone()))

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        given.setdefault(name, []).append((len(read), out.detach().clone()))

    if not names:
        return {}
    everything = [name for name, _ in model.named_modules() if name]
    with before(model, everything, note), after(model, names, keep), torch.no_grad():
        model(*take(x, slice(1)))
    calls = [name for name, _ in read]
    found = {}
    for name, outputs in given.items():
        if len(outputs) > 1:
            continue
        place, y = outputs[0]
        earlier = [(reader, s) for reader, s in read[:place] if s.shape == y.shape and calls.count(reader) == 1]
        later = [h for _, h in read[place:] if h.shape == y.shape and not torch.equal(h, y)][:NEXT]
        reader = next((who for h in later for who, s in reversed(earlier) if _is_sum(h, y, s)), None)
        if reader is not None:
            found[name] = Shortcut(reader=reader)
    return found


def _is_sum(total: Tensor, one: Tensor, other: Tensor) -> bool:
    most = float(total.abs().max())
    return bool(other.any()) and float((total - one - other).abs().max()) <= EXACT * most
