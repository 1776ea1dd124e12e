"""Whether texts made of the samples help low rank, by what factors lose on sources that nothing was made of.

``samples/tokens.py`` makes them. The factors of some layers are made by the moments of some sources, with and without
more samples of these, and judged by the moments of the others: forward passes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from pocketzoo.compress.low_rank.factorizations import InputMetric, factorize, product
from pocketzoo.compress.samples.choice import Some, choose
from pocketzoo.compress.statistics.calibration_batches import as_tensors
from pocketzoo.compress.statistics.eligible_layers import Layer
from pocketzoo.compress.statistics.second_moments import Moments, input_moments, shrunk
from pocketzoo.core.arrays import Arrays, batch_size, named

SAMPLES = 128  # that the choice is made with
LAYERS = 12  # spread over all
SHARE = 0.5  # of the parameters of a layer that its factors have


def further_that_help(model: nn.Module, layers: Mapping[str, Layer], samples: Iterable[Arrays], most: int) -> int:
    """How many texts to make: as many as there are samples, at most ``most``, or none.

    None are made where the samples are no token ids, where sources are not known, and where those that are left out do
    not gain by it.
    """
    ids = getattr(samples, "groups", None)
    first = next((named(batch) for batch in samples if batch_size(named(batch))), None)
    names = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    names = names[:: -(-len(names) // LAYERS) or 1]
    if ids is None or first is None or not names or as_tensors(first)[0].is_floating_point():
        return 0

    def error(calibrating: Iterable[Arrays], judging: Iterable[Arrays]) -> float:
        own, unseen = (input_moments(model, names, each) for each in (calibrating, judging))
        return sum(_lost(layers[name], own[name], unseen[name]) for name in own if name in unseen)

    few = Some(samples, np.arange(len(ids)) < SAMPLES)
    choice = choose(few, min(len(ids), SAMPLES), error)
    return min(len(ids), most) if choice is not None and choice.used else 0


def _lost(layer: Layer, own: Moments, unseen: Moments) -> float:
    """Of a layer's output on what is unseen, the fraction that factors lose which were made by what was seen."""
    weight = layer.weight.detach().flatten(1).double()
    rank = max(round(SHARE * weight.numel() / sum(weight.shape)), 1)
    metric = InputMetric(shrunk(own.covariance, own.count))
    off = weight - product(factorize(layer, "svd", (rank,), metric), "svd").double()
    judged = unseen.covariance
    return float(((off @ judged) * off).sum() / ((weight @ judged) * weight).sum().clamp_min(1e-30))
