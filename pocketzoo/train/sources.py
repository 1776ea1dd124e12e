"""Sources of samples to learn from: the samples themselves, or the features that a frozen backbone makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.specs import FEATURES, FeatureSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.modules.features import FeatureChoice
from pocketzoo.zoo.modules.inputs import Axes, TensorInputs

ONE = FeatureChoice({FEATURES: FeatureSpec("map", ())})  # one tensor, whatever it is


class SourceBatch(NamedTuple):
    """Some samples of a source."""

    x: TensorInputs  # what the module that learns of it reads, in its order
    y: Tensor  # targets
    inputs: Arrays  # what the whole model reads for them, which decoders look at


class Source(Protocol):
    """Samples to learn from."""

    def __len__(self) -> int: ...

    @property
    def targets(self) -> Targets:
        """Classes (N,), or numbers (N, outputs)."""
        ...

    @property
    def axes(self) -> Axes:
        """Which axis of each tensor counts samples, where it is not the first; None: it is for all of them."""
        ...

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[SourceBatch]:
        """These rows, batch by batch, in this order."""
        ...


@dataclass(frozen=True)
class Samples:
    """The samples themselves, or what a frozen backbone makes of them each time."""

    batches: Batches
    backbone: nn.Module | None = None
    choice: FeatureChoice = ONE  # what is read of the backbone's features

    def __len__(self) -> int:
        return self.batches.samples

    @property
    def targets(self) -> Targets:
        assert self.batches.split.targets is not None
        return self.batches.split.targets[: len(self)]

    @property
    def axes(self) -> Axes:
        return self.batches.axes if self.backbone is None else {}

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[SourceBatch]:
        for inputs, y in self.batches.of(parts):
            if self.backbone is None:
                x = {name: torch.from_numpy(array) for name, array in inputs.items()}
            else:
                with torch.no_grad():
                    x = {name: each.cpu() for name, each in features_of(self.backbone, inputs, self.choice).items()}
            yield SourceBatch(x, torch.from_numpy(y), inputs)


@dataclass(frozen=True)
class Kept:
    """One of the features on disk. Sequences lie one after the other, as long as each is."""

    values: npt.NDArray[Any]  # (N, *features), or of sequences (all tokens, ...)
    ends: npt.NDArray[np.int64] | None = None  # (N + 1,), where sequences begin and end
    axis: str = ""  # what the axis is called along which they do

    def rows(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Those of some samples; sequences are filled up with zeros."""
        if self.ends is None:
            return torch.from_numpy(self.values[rows])
        texts = [torch.from_numpy(self.values[self.ends[i] : self.ends[i + 1]].copy()) for i in rows.tolist()]
        longest = max(len(text) for text in texts)
        return torch.stack([F.pad(text, (*(0, 0) * (text.ndim - 1), 0, longest - len(text))) for text in texts])


@dataclass(frozen=True)
class Features:
    """Features on disk, by name."""

    parts: Mapping[str, Kept]
    targets: Targets
    batches: Batches | None = None  # the samples that they are of, and
    samples: Sequence[int] = ()  # the row of each, where some could not be read

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def axes(self) -> Axes:
        return {}

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[SourceBatch]:
        for part in parts:
            rows = np.asarray(part)
            x = {name: kept.rows(rows) for name, kept in self.parts.items()}
            yield SourceBatch(x, torch.from_numpy(self.targets[rows]), self._inputs(rows, x))

    def _inputs(self, rows: npt.NDArray[np.int64], x: TensorInputs) -> Arrays:
        if self.batches is None:
            return {}
        own = [self.samples[i] for i in rows.tolist()] if len(self.samples) else rows.tolist()
        lengths = {kept.axis: x[name].shape[1] for name, kept in self.parts.items() if kept.axis}
        return LazyInputs(self.batches, own, lengths)


class LazyInputs(Mapping[str, npt.NDArray[Any]]):
    """The inputs of some samples, read when they are first looked at: most decoders never do.

    An axis that is called as one of the features is cut to the ``lengths`` that those have.
    """

    def __init__(self, batches: Batches, rows: Sequence[int], lengths: Mapping[str, int]) -> None:
        self.batches, self.rows, self.lengths = batches, rows, lengths

    @cached_property
    def _arrays(self) -> Arrays:
        batch = next(self.batches.of([self.rows]), None)
        if batch is None:
            raise DataError("samples that were read before cannot be read any more", "see whether the files are there")
        axes = {tensor.name: tensor.free for tensor in self.batches.processor.inputs}
        return {name: self._cut(array, axes.get(name, {})) for name, array in batch[0].items()}

    def _cut(self, array: npt.NDArray[Any], axes: Mapping[int, str]) -> npt.NDArray[Any]:
        for axis, name in axes.items():
            if name in self.lengths:
                array = array.take(range(min(self.lengths[name], array.shape[axis])), axis)
        return array

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return (tensor.name for tensor in self.batches.processor.inputs)

    def __contains__(self, name: object) -> bool:
        return any(tensor.name == name for tensor in self.batches.processor.inputs)

    def __len__(self) -> int:
        return len(self.batches.processor.inputs)


def features_of(backbone: nn.Module, x: Arrays, choice: FeatureChoice) -> dict[str, Tensor]:
    """What a backbone makes of a batch, each input in its order: the features that are read of it."""
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    return choice.by_name(backbone(*(torch.from_numpy(array).to(device) for array in x.values())))
