"""The signature of a torch module: what it reads by its processor, and what it outputs by running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.signature import Dim, ModelSignature, signature_of_axes
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.modules.inputs import call
from pocketzoo.zoo.modules.outputs import outputs_of

LARGEST = 24  # of the lengths that are tried
SAMPLES = (2, 3, 5)  # numbers of samples: with 1, an axis of one could be taken for theirs


def signature_of_module(module: nn.Module, reads: Any) -> ModelSignature:
    """What a module reads and outputs: names, types and axes, as ``graphs.signature_of`` has them of its graph.

    ``reads`` is its processor, or the config of one, whose random samples are the example. The module is run, in eval
    mode, on some that differ in one free axis at a time: an axis of an output is called as the free axis that it always
    is as long as, "2*length + 1" where it follows from one in that way, "batch*length" where it is two in one, and by
    the output's name and its place where it is free in another way.

    Raises:
        UnsupportedModelError: it returns neither a tensor nor a dict of tensors.
    """
    processor = as_processor(reads)
    training, sizes = module.training, _sizes(processor)
    try:
        runs = _SizedRuns(module.eval(), processor, sizes)
        outputs = [(name, _axes(name, runs), str(x.dtype).removeprefix("torch.")) for name, x in runs.base.items()]
    finally:
        module.train(training)
    return signature_of_axes([(t.name, list(t.shape), t.dtype) for t in processor.inputs], outputs)


class _SizedRuns:
    """What a module outputs for samples of chosen sizes; each is run once."""

    def __init__(self, module: nn.Module, processor: Processor, sizes: Mapping[str, Sequence[int]]) -> None:
        """``sizes`` has up to three of each free axis; that of ``base`` is the first."""
        self.module, self.processor, self.sizes = module, processor, sizes
        self._known: dict[tuple[int, ...], dict[str, Tensor]] = {}
        self.base = self.at({})

    def at(self, changed: Mapping[str, int]) -> dict[str, Tensor]:
        """The outputs where some axes have the size with that number, and the others their first."""
        key = tuple(changed.get(name, 0) for name in self.sizes)
        if key not in self._known:
            sizes = {name: each[changed.get(name, 0)] for name, each in self.sizes.items()}
            with torch.no_grad():
                self._known[key] = outputs_of(call(self.module, _inputs(self.module, self.processor, sizes)))
        return self._known[key]

    def along(self, output: str, axis: int, name: str) -> Iterator[tuple[int, int]]:
        """Sizes of a free axis, and how long the output's axis is with each."""
        for number, size in enumerate(self.sizes[name]):
            yield size, self.at({name: number})[output].shape[axis]


def _axes(output: str, runs: _SizedRuns) -> list[Dim | None]:
    return [_dim(output, axis, runs) for axis in range(runs.base[output].ndim)]


def _dim(output: str, axis: int, runs: _SizedRuns) -> Dim | None:
    length = runs.base[output].shape[axis]
    several = [name for name, sizes in runs.sizes.items() if len(sizes) > 1]
    varies = [name for name in several if runs.at({name: 1})[output].shape[axis] != length]
    if not varies:
        return length
    if len(varies) == 1:
        return _affine(varies[0], list(runs.along(output, axis, varies[0])))
    product = 1
    for name in varies:
        product *= runs.sizes[name][0]
    factor, rest = divmod(length, product)
    if rest or any(
        have * runs.sizes[name][0] != length * size for name in varies for size, have in runs.along(output, axis, name)
    ):
        return None
    return "*".join([*([str(factor)] if factor > 1 else []), *sorted(varies)])


def _affine(name: str, lengths: Sequence[tuple[int, int]]) -> Dim | None:
    """``factor * axis + rest`` in words, as torch writes it of the axes of its graphs; None where it is not that."""
    (size, length), (other, longer), *_ = lengths
    factor, odd = divmod(longer - length, other - size)
    rest = length - factor * size
    if odd or factor < 1 or any(factor * s + rest != n for s, n in lengths):
        return None
    times = f"{factor}*{name}" if factor > 1 else name
    return f"{times} {'+' if rest > 0 else '-'} {abs(rest)}" if rest else times


def _sizes(processor: Processor) -> dict[str, list[int]]:
    """Free axis -> the sizes that it is tried with: no two axes have one in common where there are enough."""
    batch = {t.free[t.batch] for t in processor.inputs if t.batch is not None and t.batch in t.free}
    sizes = {name: list(SAMPLES) for name in sorted(batch)}
    least, most = processor.lengths or (1, LARGEST)
    left = [n for n in range(max(least, 1), min(most, max(least, 1) + LARGEST) + 1) if n not in SAMPLES]
    for name in dict.fromkeys(name for t in processor.inputs for name in t.free.values() if name not in batch):
        own = (left or [max(least, 1)])[:3]
        left = left[3:] if len(left) > 5 else left  # few are shared
        sizes[name] = own
    return sizes


def _inputs(module: nn.Module, processor: Processor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Random samples whose free axes have these sizes."""
    batch = [t.free[t.batch] for t in processor.inputs if t.batch is not None and t.batch in t.free]
    count = max((sizes[name] for name in batch), default=1)
    length = max((size for name, size in sizes.items() if name not in batch), default=0)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    arrays, inputs = processor.random(count, length), {}
    for tensor in processor.inputs:
        cut = tuple(slice(sizes[tensor.free[i]]) if i in tensor.free else slice(None) for i in range(len(tensor.shape)))
        inputs[tensor.name] = torch.from_numpy(arrays[tensor.name][cut].copy()).to(device)
    return inputs
