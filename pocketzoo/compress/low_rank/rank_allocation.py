"""Allocate a parameter budget over layers: one rank option for each, so that the total error is least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pocketzoo.compress.low_rank.factorizations import Option

Choice = Mapping[str, Option | None]  # None: the layer stays as it is


def allocate(options: Mapping[str, Sequence[Option]], sizes: Mapping[str, int], budget: float) -> Choice:
    """For each layer the option, or None, that together cost at most ``budget`` parameters at the least error.

    A layer that stays costs its ``sizes`` and has no error. The best of a price for parameters (Lagrangian relaxation,
    Shoham & Gersho 1988), with what it leaves spent on the best buys, and of the same fraction for every layer: so it
    is never worse than uniform ranks. Where nothing fits the budget, the smallest options are taken.
    """
    low, high = 0.0, 1.0
    while _cost(_at_price(options, sizes, high), sizes) > budget and high < 1e30:
        high *= 4.0
    best = _at_price(options, sizes, high)
    for _ in range(100):
        price = (low + high) / 2
        choice = _at_price(options, sizes, price)
        if _cost(choice, sizes) > budget:
            low = price
        else:
            best, high = choice, price
    best = _spend(best, options, sizes, budget)
    same = _uniform(options, sizes, budget / max(sum(sizes.values()), 1))
    fits = _cost(same, sizes) <= budget
    return same if fits and error(same) < error(best) else best


def error(choice: Choice) -> float:
    """Of all layers together."""
    return sum(option.error for option in choice.values() if option is not None)


def _cost(choice: Choice, sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] if option is None else option.parameters for name, option in choice.items())


def _at_price(
    options: Mapping[str, Sequence[Option]], sizes: Mapping[str, int], price: float
) -> dict[str, Option | None]:
    choice: dict[str, Option | None] = {}
    for name, candidates in options.items():
        best = min(candidates, key=lambda o: (o.error + price * o.parameters, o.parameters), default=None)
        dense = best is None or price * sizes[name] <= best.error + price * best.parameters
        choice[name] = None if dense else best
    return choice


def _spend(
    choice: dict[str, Option | None], options: Mapping[str, Sequence[Option]], sizes: Mapping[str, int], budget: float
) -> dict[str, Option | None]:
    """Take the step with the most error saved a parameter, as long as one fits."""
    left = budget - _cost(choice, sizes)
    while True:
        steps: list[tuple[float, str, Option | None, int]] = []
        for name, now in choice.items():
            if now is None:
                continue
            for option in (*options[name], None):
                cost = (sizes[name] if option is None else option.parameters) - now.parameters
                saved = now.error - (0.0 if option is None else option.error)
                if saved > 0.0 and cost <= left:
                    steps.append((saved / max(cost, 1e-9), name, option, cost))
        if not steps:
            return choice
        _, name, option, cost = max(steps, key=lambda step: (step[0], step[1]))
        choice[name] = option
        left -= cost


def _uniform(options: Mapping[str, Sequence[Option]], sizes: Mapping[str, int], share: float) -> Choice:
    def pick(name: str) -> Option | None:
        if share >= 1.0 or not options[name]:
            return None
        fit = [o for o in options[name] if o.parameters <= share * sizes[name]]
        return min(fit, key=lambda o: o.error) if fit else min(options[name], key=lambda o: o.parameters)

    return {name: pick(name) for name in options}
