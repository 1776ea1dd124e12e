"""Layers that an int8 plan leaves in float by itself, since little of an output would be left with all in 8 bits.

What a layer costs is seen where it alone is in int8 (Wu et al. 2020, arXiv:2004.09602, section 6.1). Errors of many
layers have little to do with one another, so their powers add up (Zhou et al. 2018, arXiv:1712.01048, section 3):
which layers must stay in float follows from one trial for each, and few more show that it is so.

Where they do not, choices are measured, the error before a softmax or a sigmoid that makes the output: it hides errors
of samples that it is sure of, and makes large ones of others'.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

Noise = Mapping[str, float]  # power of the error over that of the signal, by output

POOR = 20.0  # dB of an output below which layers are left in float,
GOALS = (26.0, 23.0, 20.0, 17.0, 14.0, 11.0)  # until it has the first of these dB that is not too dear:
MOST = 0.35  # the fraction of the time that layers in float may have had
HALF = 0.5  # of the error: what is not so much better is not worth it
CLOSE = 1.25  # times the least error: as good, where fewer layers are in float
TRIALS = 24  # groups of neighboring layers that are tried, each by itself
ROUNDS = 6  # choices that are measured
LEAST = 0.02  # fraction of the multiplications that a group counts at the least: nodes of their own cost time


def sensitive_layers(
    costs: Mapping[str, float],
    noise: Callable[[Collection[str]], Noise],
    hidden: Callable[[Collection[str]], Noise] | None = None,
) -> dict[str, str]:
    """Layer -> why it is to stay in float; none where every output is fair, or where no choice of few makes it better.

    ``costs``: the layers in graph order, and what share of the time each has. ``noise``: of each output where some
    layers are in float and the others in int8; ``hidden``: the same before a softmax or sigmoid that makes it.
    """
    whole = noise(())
    if not costs or worst(whole) <= power(POOR):
        return {}
    groups = neighbors(list(costs))
    total = sum(costs.values()) or 1.0
    prices = [max(sum(costs[layer] for layer in group) / total, LEAST) for group in groups]

    def each_alone(measure: Callable[[Collection[str]], Noise]) -> list[Noise]:
        return [measure([layer for layer in costs if layer not in group]) for group in groups]

    def told(chosen: Collection[int], alone: Sequence[Noise], all_int8: Noise) -> dict[str, str]:
        return {layer: _why(alone[i], all_int8, len(groups[i])) for i in sorted(chosen) for layer in groups[i]}

    alone = each_alone(noise)
    for goal in (each for each in GOALS if power(each) < HALF * worst(whole)):
        if chosen := _enough(groups, alone, prices, power(goal), noise, MOST * sum(prices), whole):
            return told(chosen, alone, whole)
    if hidden is not None:
        noise, alone, whole = hidden, each_alone(hidden), hidden(())
    return told(_best(groups, alone, prices, noise, worst(whole)), alone, whole)


def neighbors(layers: Sequence[str]) -> list[Sequence[str]]:
    """At most ``TRIALS`` groups of layers that follow one another."""
    size = -(-len(layers) // TRIALS)
    return [layers[at : at + size] for at in range(0, len(layers), size)]


def power(decibels: float) -> float:
    """The noise, as a fraction of the signal, that leaves so many dB."""
    return float(10.0 ** (-decibels / 10.0))


def worst(noise: Noise) -> float:
    """Of the worst output."""
    return max(noise.values(), default=0.0)


def _enough(
    groups: Sequence[Sequence[str]],
    alone: Sequence[Noise],
    prices: Sequence[float],
    allowed: float,
    noise: Callable[[Collection[str]], Noise],
    most: float,
    whole: Noise,
) -> list[int]:
    """The groups whose layers in float leave no more noise than is allowed; none where they would cost too much.

    ``whole`` is what all leave together, which may be less than the sum of what each does ``alone``.
    """
    summed = max(sum(each[name] for each in alone) for name in whole)
    goal = allowed * max(summed / worst(whole), 1.0)
    for _ in range(ROUNDS):
        chosen = _choice(alone, prices, goal)
        if len(chosen) == len(groups) or sum(prices[i] for i in chosen) > most:
            return []
        measured = worst(noise([layer for i in chosen for layer in groups[i]]))
        if measured <= allowed:
            return chosen
        goal *= max(min(allowed / measured, 0.8), 0.1)  # they add up to more than their sum
    return []


def _best(
    groups: Sequence[Sequence[str]],
    alone: Sequence[Noise],
    prices: Sequence[float],
    noise: Callable[[Collection[str]], Noise],
    whole: float,
) -> list[int]:
    """The groups whose layers in float leave the least noise of what ``MOST`` of the time pays for, as measured.

    Where errors do not add up, no sum of them says which to choose. None where that is no better than half of it.
    """
    order = sorted(range(len(groups)), key=lambda i: -worst(alone[i]) / prices[i])
    taken, tried = list[int](), list[tuple[float, list[int]]]()
    for i in order:
        if sum(prices[each] for each in (*taken, i)) > MOST * sum(prices):
            break
        taken.append(i)
        tried.append((worst(noise([layer for each in taken for layer in groups[each]])), list(taken)))
    least = min((measured for measured, _ in tried), default=whole)
    if least >= HALF * whole:  # an infinite one too: noise where there is no signal
        return []
    return next(chosen for measured, chosen in tried if measured <= CLOSE * least)


def _choice(alone: Sequence[Noise], prices: Sequence[float], goal: float) -> list[int]:
    """The groups to leave in float, those first that take away most of what is too much for their price."""
    left = {name: sum(each[name] for each in alone) for name in alone[0]}
    chosen: list[int] = []
    while over := {name: value - goal for name, value in left.items() if value > goal}:
        open_ = [i for i in range(len(alone)) if i not in chosen]
        if not open_:
            break

        def worth(i: int, over: Noise = over) -> float:
            return sum(min(alone[i][name], much) / much for name, much in over.items()) / prices[i]

        best = max(open_, key=worth)
        chosen.append(best)
        left = {name: max(value - alone[best][name], 0.0) for name, value in left.items()}
    # What was taken first for being cheap may not be needed beside what came later.
    for i in sorted(chosen, key=lambda each: -prices[each]):
        more = {name: value + alone[i][name] for name, value in left.items()}
        if all(value <= goal for value in more.values()):
            chosen.remove(i)
            left = more
    return chosen


def _why(alone: Noise, whole: Noise, together: int) -> str:
    """How much of the error is a layer's, of the output that suffers most from it."""
    name = max(alone, key=lambda each: alone[each] / max(whole[each], 1e-30))
    part = min(alone[name] / max(whole[name], 1e-30), 1.0)
    which = "it makes" if together == 1 else f"it and its neighbors, {together} layers, make"
    return f"in int8 {which} {part:.1%} of the error of output {name!r}"
