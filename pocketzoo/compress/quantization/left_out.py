"""Whether plans hold on samples that they know nothing of: ranges that cut rare values off, and ranges at all.

What is run after calibration is drawn from the world, where some samples reach further than any that calibrated. A
range with the least error over all values may give away what just those samples are told by, and the samples that
calibrated show no sign of it. So ranges of most of them are tried on those that reach furthest, which they do not know:
a choice by the worst group of samples that there is (Sagawa et al. 2020, arXiv:1911.08731).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import FurtherChoice, Int8Plan, Range
from pocketzoo.compress.quantization.calibration import Observed, activations_in_parts, one_by_one
from pocketzoo.compress.quantization.plan_trial import Trial
from pocketzoo.compress.quantization.sensitive_layers import HALF, POOR, power, worst
from pocketzoo.compress.samples.choice import Some, choose
from pocketzoo.compress.samples.further import Joined, turns
from pocketzoo.compress.samples.shapes import shapes
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.core.arrays import Arrays, own_memory
from pocketzoo.zoo.artifacts.driver import Repeated
from pocketzoo.zoo.data.grouping.sentences import FEWEST

PART = 5  # one sample in so many is left out,
LEAST, MOST = 3, 64  # where that makes so many at the least, and no more than the most;
FAINT = np.float32(2.0**-20)  # of smaller magnitudes none is told from another
SKETCHED = 48  # samples that are enough to see whether others help
TRIED = 8  # of these, and of the others, that plans are compared on
WHOLE: Final = "minmax"  # the rule that cuts nothing off

Ranges = Callable[[Mapping[str, Histogram], Int8Config], dict[str, Range]]
Encode = Callable[[ModelProto, Int8Plan], ModelProto]


@dataclass(frozen=True)
class LeftOut:
    """Samples that reach furthest, some of the others, and the ranges that only the others have, cut off and whole."""

    furthest: Sequence[Arrays]
    others: Sequence[Arrays]
    cut: Mapping[str, Range]
    whole: Mapping[str, Range]

    def error(self, model: ModelProto, plan: Int8Plan, encode: Encode, *, whole: bool) -> float:
        """Of all outputs together, of a plan with ranges that know none of the samples that reach furthest.

        Static ranges look better than dynamic ones on what they were made of, where those know nothing.
        """
        unknown = replace(plan, ranges=self.whole if whole else self.cut)
        return sum(Trial(model, self.furthest, encode).noise(unknown).values())

    def prefers_whole(self, model: ModelProto, plan: Int8Plan, encode: Encode) -> bool:
        """Whether ranges had better hold all that was seen.

        Where those that cut off leave too little of an output for samples that reach further, and whole ones leave no
        more than half of that error, for these samples and for the others.
        """
        cut, whole = (replace(plan, ranges=ranges) for ranges in (self.cut, self.whole))
        furthest = Trial(model, self.furthest, encode)
        error = worst(furthest.noise(cut))
        if error <= power(POOR) or worst(furthest.noise(whole)) > HALF * error:
            return False
        return worst(Trial(model, self.others, encode).noise(whole)) <= HALF * error


def left_out(
    model: ModelProto, samples: Iterable[Arrays], seen: Observed, config: Int8Config, ranges: Ranges
) -> LeftOut | None:
    """What a fifth of the samples is left out of, those that reach furthest; None where samples are few.

    Whole sources are left out, where the samples say what they are of. ``ranges`` makes those of a graph by a rule.
    """
    count = min(seen.samples // PART, MOST)
    if config.ranges != "auto" or count < LEAST or not seen.ends:
        return None
    reaches = [np.maximum(np.maximum(-low, high), FAINT) for low, high in seen.ends.values()]
    far = np.log2(reaches).sum(0)
    gone = furthest_of(far, getattr(samples, "groups", None), count)
    rest = [place for place in np.argsort(-far, kind="stable").tolist() if place not in set(gone)]

    def chosen(places: Iterable[int]) -> Iterator[Arrays]:
        wanted = set(places)
        return (sample for i, sample in enumerate(one_by_one(model, samples)) if i in wanted)

    furthest, others = (
        [own_memory(sample) for sample in chosen(places[:: -(-len(places) // TRIED)])] for places in (gone, rest)
    )
    histograms = _without(model, seen.histograms, Repeated(lambda: chosen(gone)))
    for name, histogram in histograms.items():
        low, high = (np.delete(ends, gone) for ends in seen.ends[name])
        histogram.low, histogram.high = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    cut, whole = (ranges(histograms, each) for each in (config, replace(config, ranges=WHOLE)))
    return LeftOut(furthest, others, cut, whole)


def beside_few(
    model: ModelProto, samples: Iterable[Arrays], plan: Callable[[Iterable[Arrays]], Int8Plan], encode: Encode
) -> tuple[Iterable[Arrays], FurtherChoice | None]:
    """The samples and, where they are images of few sources and it helps on one left out, as many of shapes and noise.

    ``plan`` plans on samples, of which ``SKETCHED`` at most are given.
    """
    ids = getattr(samples, "groups", None)
    sources = FEWEST if ids is None else len(np.unique(ids))
    if ids is None or not 0 < sources < FEWEST:
        return samples, None
    few = Some(samples, turns(np.asarray(ids)) < SKETCHED // sources)

    def error(calibrating: Iterable[Arrays], judging: Iterable[Arrays]) -> float:
        return sum(Trial(model, judging, encode).noise(plan(calibrating)).values())

    tried = choose(few, len(np.asarray(few.groups)), error, make=shapes, one_in=sources)
    if tried is None:
        return samples, None
    choice = replace(tried, made=len(ids))
    made = shapes(samples, choice.made) if choice.used else None
    return samples if made is None else Joined((samples, made)), choice


def furthest_of(far: npt.NDArray[np.floating[Any]], ids: npt.NDArray[np.int64] | None, count: int) -> list[int]:
    """Which samples to leave out of N that reach so ``far`` (N,), the furthest first: ``count`` or, of sources, more.

    ``ids`` (N,) are the sources. Those whose samples reach furthest in the mean go as a whole, as long as most samples
    stay; where they are too large for that, or not known, each sample counts by itself.
    """
    order: list[int] = np.argsort(-far, kind="stable").tolist()
    if ids is None or len(ids) != len(far):
        return order[:count]
    sources, number = np.unique(ids, return_inverse=True)
    means = np.bincount(number, far) / np.bincount(number)
    gone: list[int] = []
    for source in np.argsort(-means, kind="stable").tolist():
        own = [place for place in order if number[place] == source]
        if len(gone) < count and len(gone) + len(own) <= max(2 * count, 1) and len(gone) + len(own) < len(far):
            gone += own
    return gone if len(gone) >= count and len(sources) > 1 else order[:count]


def _without(model: ModelProto, histograms: Mapping[str, Histogram], samples: Iterable[Arrays]) -> dict[str, Histogram]:
    """The histograms as they would be had these samples not been counted."""
    fewer = {name: histogram.copy() for name, histogram in histograms.items()}
    for values in activations_in_parts(model, list(fewer), samples):
        for name, value in values.items():
            fewer[name].discount(value)
    return fewer
