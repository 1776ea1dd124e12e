"""The low-rank step: plan the rank of each layer and replace it by two or three smaller layers.

Ranks of all layers come from one budget, spent by what each layer's error does to the model's outputs
(kronecker_factors.py, rank_allocation.py). Then layer after layer is written anew by least squares on the inputs that
the model, its earlier layers already factorized, gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.low_rank.factorizations import (
    InputMetric,
    Option,
    energies,
    factorize,
    kinds,
    options,
    parameters,
    plain_metric,
    product,
)
from pocketzoo.compress.low_rank.kronecker_factors import AT_ONCE, PROBES, KroneckerFactors, kronecker_factors, passes
from pocketzoo.compress.low_rank.layer_timing import fits, race
from pocketzoo.compress.low_rank.rank_allocation import Choice, allocate
from pocketzoo.compress.low_rank.shortcuts import shortcuts_of
from pocketzoo.compress.low_rank.unseen_error import further_that_help
from pocketzoo.compress.plans import Factor, LowRankPlan, Shortcut
from pocketzoo.compress.pruning.refit import shortcut_error
from pocketzoo.compress.samples.further import Joined, further
from pocketzoo.compress.statistics.calibration_batches import Inputs, as_tensors, first_batch, size_of, take
from pocketzoo.compress.statistics.eligible_layers import Layer, copied, left_alone, weighted_layers
from pocketzoo.compress.statistics.layerwise import walk
from pocketzoo.compress.statistics.second_moments import POSITIONS, shrunk, solve
from pocketzoo.core.arrays import Arrays, batch_size, named
from pocketzoo.core.name_patterns import check_skip, matches
from pocketzoo.zoo.catalog.specs import TargetSpec

IMAGES, TEXTS = (
    64,
    256,
)  # samples that layers are refitted on: an image gives hundreds of positions, a text some tens
ALIKE = 2  # rows of a linear layer that say as much as one: the words of a text go together
ROUNDS = 12  # of allocating anew without what was found to be slow


def plan(model: nn.Module, config: LowRankConfig, samples: Iterable[Arrays], target: TargetSpec) -> LowRankPlan:
    """Choose how each layer is written, or that it stays dense.

    ``config.parameters`` is a budget for all layers that may be factorized, spent by what each error does to the
    outputs. ``config.energy`` is what each layer keeps of tr(G W C WT), by the way that takes fewest parameters; 1.0
    means full rank by rule.
    ``config.rank_fraction`` keeps that fraction of the singular values. Ranks are multiples of what the target prefers.
    A layer stays dense unless its factors have fewer parameters and, with ``config.only_faster`` and a target that runs
    here, take less time for one sample.

    Raises:
        UnknownNameError: ``config.skip`` names no layer.
    """
    model = copied(model)  # the caller's may be in training
    left = left_alone(
        model, next((first_batch([batch]) for batch in samples if batch_size(named(batch))), None), replaced=True
    )
    layers = {name: layer for name, layer in weighted_layers(model).items() if name not in left}
    check_skip(config.skip, [*layers, *left])
    dense = {name: "skipped by the recipe" for name in layers if matches(name, config.skip)}
    dense |= {
        name: "grouped convolution"
        for name, m in layers.items()
        if isinstance(m, nn.Conv2d) and m.groups > 1 and name not in dense
    }
    open_ = {name: layer for name, layer in layers.items() if name not in dense}
    multiple = config.multiple or target.channel_multiple
    candidates: dict[str, list[Option]] = {}
    totals: dict[str, float] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    count = further_that_help(model, open_, samples, TEXTS)
    made = further(samples, count)
    both = samples if made is None else Joined((samples, made))
    for part in passes(open_):
        known = kronecker_factors(model, part, both, probes=_probes(made))
        for name in part:
            layer = open_[name]
            metric = known[name].metric(layer) if name in known else None
            metric = metric or plain_metric(layer)
            shapes[name] = known[name].shape if name in known else ()
            own = energies(layer, metric)
            totals[name] = float(own.sum())
            ways = ("svd",) if config.rank_fraction is not None else kinds(layer)
            every = list(options(layer, metric, multiple, ways))
            candidates[name] = _wanted(every, config, totals[name], layer, multiple, dense, name)
    choose = _chooser(config, {name: layer.weight.numel() for name, layer in open_.items()})
    clock = _Clock(open_, shapes) if config.only_faster and target.timed_here else None
    choice = _without_slow(choose, candidates, clock, dense)
    factors = {
        name: Factor(
            kind=option.kind,
            ranks=option.ranks,
            error=option.error / max(totals[name], 1e-30),
            parameters=open_[name].weight.numel(),
            after=option.parameters,
        )
        for name, option in choice.items()
        if option is not None
    }
    for name in open_:
        if name not in factors:
            dense.setdefault(name, "the parameter budget is better spent on this layer than on others")
    return LowRankPlan(
        factors=factors,
        dense={name: dense[name] for name in layers if name in dense},
        left={name: why for name, why in left.items() if not matches(name, config.skip)},
        further=count,
    )


def apply(model: nn.Module, plan: LowRankPlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    """A new model in which each planned layer is a sequence, named ``layer.0``, ``layer.1``, ...

    With ``samples`` the factors are the best for the outputs, given what the layers before them now give, and bias
    correction takes out the mean of what is lost; without, they are the best for the weights.
    """
    model = copied(model)
    factored = copied(model)
    layers = {name: m for name, m in weighted_layers(factored).items() if name in plan.factors}
    for name, layer in layers.items():
        replacement = factorize(layer, plan.factors[name].kind, plan.factors[name].ranks, plain_metric(layer))
        parent, _, child = name.rpartition(".")
        setattr(factored.get_submodule(parent), child, replacement)
    if samples is not None and layers:
        _refit(model, factored, layers, plan, samples)
    return factored


# -- planning


def _probes(made: object | None) -> int:
    """Projections of each sample: of more samples fewer say as much."""
    return PROBES if made is None else max(PROBES // 2, 1)


class _Clock:
    """Times options, each kind of layer once."""

    def __init__(self, layers: Mapping[str, Layer], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.layers, self.shapes = layers, shapes
        self.known: dict[tuple[object, ...], tuple[float, float] | None] = {}

    def time(self, name: str, option: Option) -> tuple[float, float] | None:
        """Milliseconds before and after; None where nobody knows what the layer reads."""
        layer, shape = self.layers[name], self.shapes[name]
        key = (repr(layer), shape, option.kind, option.ranks)
        if key not in self.known:
            replacement = factorize(layer, option.kind, option.ranks, plain_metric(layer))
            self.known[key] = race(layer, replacement, shape) if shape and fits(layer, shape) else None
        return self.known[key]


def _wanted(
    every: list[Option],
    config: LowRankConfig,
    total: float,
    layer: Layer,
    multiple: int,
    dense: dict[str, str],
    name: str,
) -> list[Option]:
    """The options that a config leaves of a layer; why there are none goes into ``dense``."""
    size = layer.weight.numel()
    full = min(layer.weight.flatten(1).shape)
    if config.parameters is not None:
        if not every:
            dense[name] = f"rank {min(multiple, full)} already needs as many parameters as the {size:,} it has"
        return every
    if config.rank_fraction is not None:
        rank = max(round(config.rank_fraction * full / multiple), 1) * multiple
        rank = min(rank, full)
        candidates = [o for o in every if o.ranks == (rank,)]
        cost = parameters(layer, "svd", (rank,))
        reason = f"rank {rank} needs {cost:,} parameters instead of {size:,}"
    else:
        assert config.energy is not None
        allowed = (1.0 - config.energy) * total if config.energy < 1.0 else -1.0
        candidates = [o for o in every if o.error <= allowed]
        candidates = [min(candidates, key=lambda o: (o.parameters, o.error))] if candidates else []
        reason = f"no rank that keeps {config.energy:.4g} of its energy needs fewer parameters than the {size:,} it has"
    if not candidates:
        dense[name] = reason
    return candidates


def _chooser(config: LowRankConfig, sizes: Mapping[str, int]) -> Callable[[Mapping[str, list[Option]]], Choice]:
    if config.parameters is not None:
        budget = config.parameters * sum(sizes.values())
        return lambda found: allocate(found, sizes, budget)
    return lambda found: {name: each[0] if each else None for name, each in found.items()}


def _without_slow(
    choose: Callable[[Mapping[str, list[Option]]], Choice],
    candidates: dict[str, list[Option]],
    clock: _Clock | None,
    dense: dict[str, str],
) -> Choice:
    """Choose, time what was chosen, and choose anew without what is slow, until nothing is."""
    for _ in range(ROUNDS):
        choice = choose(candidates)
        slow = False
        for name, option in choice.items():
            timed = clock.time(name, option) if clock and option else None
            if option and timed and timed[1] >= timed[0]:
                slow = True
                shown = " x ".join(map(str, option.ranks))
                dense[name] = f"{option.kind} of rank {shown} takes {timed[1]:.4f} ms instead of {timed[0]:.4f} ms"
                # What is larger in every rank is slower still.
                candidates[name] = [
                    o for o in candidates[name]
                    if o.kind != option.kind or any(a < b for a, b in zip(o.ranks, option.ranks, strict=True))
                ]  # fmt: skip
        if not slow:
            break
    else:
        choice = {
            name: None if clock and option and (t := clock.time(name, option)) and t[1] >= t[0] else option
            for name, option in choose(candidates).items()
        }
    for name, option in choice.items():
        if option is not None:
            dense.pop(name, None)
    return choice


# -- applying


def _refit(
    model: nn.Module, factored: nn.Module, layers: Mapping[str, Layer], plan: LowRankPlan, samples: Iterable[Arrays]
) -> None:
    """Refit each layer as W' = argmin |G^1/2 (W x + e - W' x')|^2: x of the original model, x' of the factorized one.

    e is what a shortcut alongside the layer lacks of the original's, where there is one.
    """
    batches = _first(samples)
    made = further(samples, plan.further)
    batches += _first(made) if made is not None else []
    arrays = [{str(i): t.numpy() for i, t in enumerate(x)} for x in batches]
    known = kronecker_factors(model, list(layers), arrays, inputs=False, probes=_probes(made))
    parts = [-(-size_of(x) // AT_ONCE) for x in batches]
    once = [name for name, own in known.items() if own.calls == sum(parts)]
    live = {name: _live(known[name], parts) for name in once}
    beside = shortcuts_of(model, [name for name in once if isinstance(layers[name], nn.Linear)], batches[0])
    held: list[dict[str, Tensor]] = [{} for _ in range(2 * len(batches))]

    def refit(name: str, inputs: list[Tensor]) -> None:
        layer, own = layers[name], known[name]
        missing = _missing(factored, name, beside.get(name), inputs, held)
        taken = [x if mask is None else x[mask] for x, mask in zip(inputs, live[name] * 2, strict=True)]
        reference, actual = torch.cat(taken[: len(batches)]), torch.cat(taken[len(batches) :])  # (N, I)
        if not len(actual):
            return
        weight = layer.weight.detach().flatten(1).double()
        means = [x.mean(0) if layer.bias is not None else torch.zeros_like(x[0]) for x in (reference, actual)]
        wanted = weight @ means[0].double()
        reference, actual = reference - means[0], actual - means[1]
        gram, crossed = (actual.T @ actual).double(), (reference.T @ actual).double()
        if not (torch.isfinite(gram).all() and torch.isfinite(crossed).all()):
            return
        # What the weight misses is regressed, so that damping pulls towards it and not towards zero.
        missed = weight @ (crossed - gram)
        if missing is not None:
            lacks = torch.cat([e if mask is None else e[mask] for e, mask in zip(missing, live[name], strict=True)])
            mean = lacks.mean(0) if layer.bias is not None else torch.zeros_like(lacks[0])
            more = ((lacks - mean).T @ actual).double()
            if torch.isfinite(more).all():
                missed, wanted = missed + more, wanted + mean.double()
        count = len(actual) if isinstance(layer, nn.Conv2d) else -(-len(actual) // ALIKE)
        fitted = weight + solve(missed, gram, count)
        metric = InputMetric(shrunk(gram / len(actual), count), own.known_outputs)
        _put(factored, name, layer, plan.factors[name], metric, fitted, wanted, means[1].double())

    walk(
        [(model, x) for x in batches] + [(factored, x) for x in batches],
        once,
        refit,
        windows=layers,
        hold={shortcut.reader for shortcut in beside.values()},
        held=held,
    )
    # No one refit suits all the places where a layer runs more than once.
    for name, own in kronecker_factors(model, [n for n in known if n not in once], arrays).items():
        layer = layers[name]
        if (metric := own.metric(layer)) and own.inputs:
            mean = own.inputs.first / own.inputs.count
            weight = layer.weight.detach().flatten(1).double()
            _put(factored, name, layer, plan.factors[name], metric, weight, weight @ mean, mean)


def _missing(
    factored: nn.Module,
    name: str,
    shortcut: Shortcut | None,
    inputs: list[Tensor],
    held: list[dict[str, Tensor]],
) -> list[Tensor] | None:
    """Batch by batch what the shortcut alongside a layer lacks, at the rows (N, O) that the layer reads."""
    if shortcut is None:
        return None
    half = len(held) // 2
    found = [
        shortcut_error(factored, name, shortcut, held[i], held[half + i], None, len(inputs[i]), POSITIONS)
        for i in range(half)
    ]
    for run in held:
        run.pop(shortcut.reader, None)  # activations of all samples: let them go
    return None if any(e is None for e in found) else [e for e in found if e is not None]


def _put(
    model: nn.Module,
    name: str,
    layer: Layer,
    factor: Factor,
    metric: InputMetric,
    weight: Tensor,
    wanted: Tensor,
    mean: Tensor,
) -> None:
    """Write a layer's factors, for ``weight`` (O, I) in its place.

    Its bias is corrected, so that the output is ``wanted`` (O,), less the bias, where the input is ``mean`` (I,).
    """
    parts = factorize(layer, factor.kind, factor.ranks, metric, weight)
    bias = cast("Tensor | None", parts[-1].bias)
    if bias is not None:
        bias.data += (wanted - product(parts, factor.kind).double() @ mean).to(bias.dtype)
    if all(torch.isfinite(p).all() for p in parts.parameters()):
        model.get_submodule(name).load_state_dict(parts.state_dict())


def _live(factors: KroneckerFactors, parts: list[int]) -> list[Tensor | None]:
    """Batch by batch, which of the rows that a layer reads have an effect; None: all."""
    if not factors.live:
        return [None] * len(parts)
    masks: list[Tensor | None] = []
    taken = iter(factors.live)
    for count in parts:
        mask = torch.cat([next(taken) for _ in range(count)])
        masks.append(mask[:: -(-len(mask) // POSITIONS)])
    return masks


def _first(samples: Iterable[Arrays]) -> list[Inputs]:
    batches: list[Inputs] = []
    for batch in samples:
        x = as_tensors(batch)
        count = IMAGES if x[0].is_floating_point() else TEXTS
        batches.append(take(x, slice(count - sum(map(size_of, batches)))))
        if sum(map(size_of, batches)) >= count:
            break
    return batches
