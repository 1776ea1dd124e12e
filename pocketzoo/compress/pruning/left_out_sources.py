"""Rank channels by samples of few sources (photos, documents): what looks dead on some may not be on the next.

With the channels B of a layer's inputs gone, and its bias taking their mean, its output is off by W_B (x_B - E[x_B]):
what that does to the model's output is a quadratic form in the set B (see ``_form``), which needs no inverse of second
moments that few sources say little about. Channels go by the form of all samples. What their number costs is judged in
folds: chosen on some sources, and counted on those that are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pocketzoo.compress.pruning.channels import Group
from pocketzoo.compress.pruning.gauss_newton import Sensitivity
from pocketzoo.compress.pruning.saliency import Elimination
from pocketzoo.compress.samples.choice import Some
from pocketzoo.compress.samples.further import Joined, further
from pocketzoo.compress.statistics.sample_moments import SampleMoments
from pocketzoo.core.arrays import Arrays, named
from pocketzoo.zoo.data.read_once import ReadOnce

FEW = 64  # sources: with more of them second moments, and weights that are refitted by them, hold
FOLDS = 4
SENT_BACK = 64  # samples, for the sensitivity to an error that a sample has everywhere


@dataclass(frozen=True)
class ReadingLayer:
    """A layer that reads channels."""

    name: str
    weight: Tensor  # (O, n * b)
    channels: Sequence[int]  # (n,), each as b inputs in a row
    shifts: bool  # whether its output can be shifted by what is lost on average


def folds_of(samples: Iterable[Arrays]) -> Tensor | None:
    """Which fold each sample is in (N,), whole sources in each; None where sources are many, not known, or too few."""
    groups = getattr(samples, "groups", None)
    if groups is None:
        return None
    ids = np.asarray(groups)
    sources, number = np.unique(ids, return_inverse=True)
    if not 2 <= len(sources) < min(FEW, len(ids)):
        return None
    return torch.from_numpy(number % min(FOLDS, len(sources)))


@dataclass(frozen=True)
class Made:
    """Samples that were made of others, kept, and the source of each."""

    samples: ReadOnce
    groups: npt.NDArray[np.int64]

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self.samples)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.groups)


def made_of(samples: Iterable[Arrays], which: Tensor) -> Made | None:
    """As many more samples as there are, made of those that ``which`` (N,) says; None where none can be made."""
    made = further(Some(samples, which.numpy()), len(which))
    return None if made is None else Made(ReadOnce(map(named, made)), made.groups)


def with_further(samples: Iterable[Arrays]) -> Iterable[Arrays]:
    """The samples, and as many made of them, where their sources are few and such samples can be made."""
    if (folds := folds_of(samples)) is None or (made := made_of(samples, folds >= 0)) is None:
        return samples
    return Joined((samples, made))


def orders_by_sources(
    groups: Sequence[Group],
    readers: Sequence[ReadingLayer],
    matter: Mapping[str, Sensitivity],
    folds: Sequence[Mapping[str, SampleMoments]],
    made: Mapping[str, SampleMoments] | None = None,
) -> list[Elimination]:
    """For each group its channels in the order they should go, with costs as left-out sources find them.

    ``folds``: what each reader reads of the samples of each fold. ``made``: of samples that were made of those of all
    folds but the first: they are used where that says that they help.
    """
    known = [reader for reader in readers if reader.name in matter and all(reader.name in fold for fold in folds)]
    if made is not None and not _helps(groups, known, matter, folds, made):
        made = None
    orders = []
    for group in groups:
        mine = [reader for reader in known if not set(reader.channels).isdisjoint(group.channels.tolist())]
        total = np.zeros(max(len(group.channels) - 1, 0))
        for i in range(len(folds)):
            order = _order(_chosen_on(group, mine, matter, folds, i, None))
            total += _costs(_judged_on(group, mine, matter, folds, i), order)
        order = _order(_chosen_on(group, mine, matter, folds, None, made))
        members = group.channels.tolist()
        costs = np.maximum.accumulate(np.maximum(total / len(folds), 0.0))
        orders.append(Elimination(tuple(members[i] for i in order), tuple(costs.tolist())))
    return orders


def _helps(
    groups: Sequence[Group],
    readers: Sequence[ReadingLayer],
    matter: Mapping[str, Sensitivity],
    folds: Sequence[Mapping[str, SampleMoments]],
    made: Mapping[str, SampleMoments],
) -> bool:
    """Whether channels that are chosen with ``made`` cost the first fold, of which nothing was made, less."""
    without = joined = 0.0
    for group in groups:
        mine = [reader for reader in readers if not set(reader.channels).isdisjoint(group.channels.tolist())]
        judge = _judged_on(group, mine, matter, folds, 0)
        few = slice(len(group.channels) // 2)  # that may go: of more, no choice is a good one
        without += float(_costs(judge, _order(_chosen_on(group, mine, matter, folds, 0, None)))[few].mean())
        joined += float(_costs(judge, _order(_chosen_on(group, mine, matter, folds, 0, made)))[few].mean())
    return joined < without


def _moments(
    name: str,
    folds: Sequence[Mapping[str, SampleMoments]],
    without: int | None,
    made: Mapping[str, SampleMoments] | None,
) -> tuple[SampleMoments, Tensor]:
    """What a reader reads of the samples that choose, and their mean; that of real ones alone."""
    real = [fold[name] for i, fold in enumerate(folds) if i != without or len(folds) == 1]
    total = real[0]
    for other in real[1:]:
        total = total + other
    return (total if made is None or name not in made else total + made[name]), total.mean


def _chosen_on(
    group: Group,
    readers: Sequence[ReadingLayer],
    matter: Mapping[str, Sensitivity],
    folds: Sequence[Mapping[str, SampleMoments]],
    without: int | None,
    made: Mapping[str, SampleMoments] | None,
) -> Tensor:
    form = torch.zeros(len(group.channels), len(group.channels), dtype=torch.float64)
    for reader in readers:
        moments, mean = _moments(reader.name, folds, without, made)
        form += _form(group, reader, matter[reader.name], moments, mean)
    return form


def _judged_on(
    group: Group,
    readers: Sequence[ReadingLayer],
    matter: Mapping[str, Sensitivity],
    folds: Sequence[Mapping[str, SampleMoments]],
    fold: int,
) -> Tensor:
    form = torch.zeros(len(group.channels), len(group.channels), dtype=torch.float64)
    for reader in readers:
        _, mean = _moments(reader.name, folds, fold, None)
        form += _form(group, reader, matter[reader.name], folds[fold][reader.name], mean)
    return form


def _form(group: Group, reader: ReadingLayer, matter: Sensitivity, moments: SampleMoments, mean: Tensor) -> Tensor:
    """The quadratic form A (n, n): 1_B A 1_B is the relative squared error of the output where the channels B go.

    Errors that differ from position to position add up in square; that of a sample's mean does as it is.
    """
    within = (moments.within / len(moments.means)).double()
    between = moments.between(mean if reader.shifts else torch.zeros_like(mean)).double()
    inputs = _weighed(reader.weight, matter.each) * within + _weighed(reader.weight, matter.together) * between
    members = group.channels.tolist()
    place = {channel: i for i, channel in enumerate(members)}
    width = len(inputs) // len(reader.channels)
    of_input = torch.zeros(len(inputs), len(members), dtype=inputs.dtype)
    for i, channel in enumerate(reader.channels):
        if channel in place:
            of_input[i * width : (i + 1) * width, place[channel]] = 1
    return of_input.T @ inputs @ of_input


def _weighed(weight: Tensor, matter: Tensor) -> Tensor:
    """W^T G W (I, I), with G (O, O) or its diagonal (O,)."""
    weight = weight.double()
    return weight.T @ (matter[:, None] * weight if matter.ndim == 1 else matter @ weight)


def _order(form: Tensor) -> list[int]:
    """The places of all channels but the last, each time the one that adds the least to what is gone already."""
    own, with_gone = form.diagonal(), form.new_zeros(len(form))
    left = torch.ones(len(form), dtype=torch.bool)
    order: list[int] = []
    for _ in range(len(form) - 1):
        place = int(torch.where(left, own + 2 * with_gone, torch.inf).argmin())
        with_gone = with_gone + form[place]
        left[place] = False
        order.append(place)
    return order


def _costs(form: Tensor, order: Sequence[int]) -> npt.NDArray[np.float64]:
    """What the first 1, 2, ... of an order cost."""
    places = torch.tensor(order, dtype=torch.int64)
    sorted_ = form[places][:, places]
    added = 2 * sorted_.tril().sum(1) - sorted_.diagonal()
    total: npt.NDArray[np.float64] = added.cumsum(0).numpy()
    return total
