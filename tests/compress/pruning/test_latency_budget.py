"""The search for a fraction of multiply-accumulates that has a latency, on a machine whose clock is simulated."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import nn

from pocketzoo.compress.pruning import latency_budget
from pocketzoo.compress.pruning.latency_budget import SECONDS, TRIES, fitting
from pocketzoo.core.errors import UnsupportedLayerError

WIDTH = 1000  # a share of the multiply-accumulates is this many outputs of the one layer, rounded


def outputs(path: object) -> int:
    return int(onnx.load(path).graph.output[0].type.tensor_type.shape.dim[1].dim_value)


@pytest.fixture
def search(monkeypatch) -> Callable[..., tuple[list[int], list[float]]]:
    """``search(share, latency)``: the counts that are chosen, and the shares that were tried."""

    def run(share: float, latency: Callable[[float], float]) -> tuple[list[int], list[float]]:
        tried: list[float] = []

        def milliseconds(graphs, x, seconds):
            assert ([array.shape for array in x.values()], seconds) == ([(1, 2)], SECONDS)
            return [7.0 * latency(outputs(graph) / WIDTH) for graph in graphs]

        def at(macs: float) -> list[int]:
            tried.append(round(macs, 3))
            return [round(WIDTH * macs)]

        monkeypatch.setattr(latency_budget, "median_milliseconds", milliseconds)
        found = fitting(nn.Linear(2, WIDTH), share, (torch.zeros(3, 2),), at, lambda counts: nn.Linear(2, counts[0]))
        return found, tried

    return run


@pytest.mark.parametrize(
    ("share", "latency", "tried", "found"),
    [
        # Latency is multiply-accumulates: the first is right, and the others look for more close above it.
        (0.5, lambda m: m, [0.5, 0.6, 0.52, 0.504], 500),
        # A fixed part: the line through what was found hits it at once. Then between 0.5 and 0.7.
        (0.7, lambda m: 0.4 + 0.6 * m, [0.7, 0.5, 0.54, 0.508], 500),
        # It does not fall at all: less and less, and the first of those that are as fast as any.
        (0.5, lambda m: 1.0, [0.5, 0.1, 0.02, 0.004], 500),
        # It falls faster: the largest that is fast enough is taken, and once it is close enough no more are tried.
        (0.9, lambda m: m**4, [0.9, 0.971, 0.977], 971),
        # Nothing is fast enough: the fastest.
        (0.3, lambda m: 0.5 + 0.5 * m, [0.3, 0.06, 0.012], 12),
        # It rises as there is less to do: less and less, and the fastest is the first.
        (0.5, lambda m: 2.0 - m, [0.5, 0.1, 0.02, 0.004], 500),
        # All may stay.
        (1.0, lambda m: m, [1.0], 1000),
    ],
    ids=["proportional", "fixed part", "flat", "steep", "never", "rising", "all"],
)
def test_shares_are_tried_along_the_line_through_what_was_found(share, latency, tried, found, search):
    counts, shares = search(share, latency)
    assert shares == pytest.approx(tried, abs=1.5e-3)
    assert counts == [found]
    assert len(shares) <= TRIES == 4


def test_what_does_not_export_is_refused(refused):
    class Odd(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with refused(UnsupportedLayerError, "a latency budget needs", hint="macs"):
        fitting(Odd(), 0.5, torch.zeros(1, 2), lambda macs: [1], lambda counts: nn.Linear(2, 1))


def test_a_model_that_does_not_export_is_told_what_to_set_instead():
    class Odd(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UnsupportedLayerError) as caught:
        fitting(Odd(), 0.5, torch.zeros(1, 2), lambda macs: [1], lambda counts: nn.Linear(2, 1))
    assert str(caught.value) == "a latency budget needs a model that exports to ONNX\nset macs instead of latency"


def test_graphs_are_timed_for_a_tenth_of_a_second_each():
    assert (TRIES, SECONDS) == (4, 0.1)
