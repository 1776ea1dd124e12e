from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.low_rank import unseen_error
from pocketzoo.compress.low_rank.unseen_error import further_that_help


class Encoder(nn.Module):
    """The mean over words of two layers on their embeddings."""

    def __init__(self, size: int = 24) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(300, size), nn.Linear(size, 48), nn.Linear(48, size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(self.words(ids)))).mean(1)


@dataclass
class Sourced:
    x: np.ndarray
    groups: np.ndarray | None

    def __iter__(self):
        return iter(np.split(self.x, range(8, len(self.x), 8)))


def texts(count: int, sources: int, seed: int = 0) -> Sourced:
    """Each source has a few words of its own, in the order that they come in."""
    generator = np.random.default_rng(seed)
    own = generator.integers(2, 300, (sources, 6))
    groups = np.arange(count) % sources
    rows = np.stack([np.r_[0, generator.choice(own[source], 14), 1] for source in groups])
    return Sourced(rows.astype(np.int64), groups)


@pytest.fixture(scope="module")
def model(randomised):
    torch.manual_seed(0)
    return randomised(Encoder())


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize(("errors", "wanted"), [((1.0, 0.5), 24), ((1.0, 0.999), 0), ((1.0, 2.0), 0)])
def test_as_many_are_made_as_there_are_where_left_out_sources_gain_by_it(errors, wanted, model, monkeypatch):
    said = iter(errors * 2)
    monkeypatch.setattr(unseen_error, "LAYERS", 1)
    monkeypatch.setattr(unseen_error, "_lost", lambda *_: next(said))
    assert further_that_help(model, layers(model), texts(24, 6), 256) == wanted
    assert further_that_help(model, layers(model), texts(24, 6), 10) == min(wanted, 10)


def test_nothing_is_made_of_samples_whose_sources_are_not_known_or_that_are_no_texts(model):
    known = texts(24, 6)
    assert further_that_help(model, layers(model), Sourced(known.x, None), 256) == 0
    images = Sourced(np.zeros((24, 3, 8, 8), np.float32), known.groups)
    assert further_that_help(model, layers(model), images, 256) == 0
    assert further_that_help(model, {}, known, 256) == 0


def test_a_layer_whose_inputs_were_all_seen_loses_what_its_rank_cuts_off(model):
    layer = nn.Linear(16, 16).double()
    x = torch.randn(4096, 16, dtype=torch.float64)
    moments = unseen_error.Moments.empty(16)
    moments.add(x)
    values = torch.linalg.svdvals(layer.weight.detach() @ torch.linalg.cholesky(moments.covariance))
    wanted = float(values[4:].square().sum() / values.square().sum())  # half of the parameters: rank 4
    assert unseen_error._lost(layer, moments, moments) == pytest.approx(wanted, rel=0.01)


def test_what_a_plan_made_is_made_again_when_it_is_applied(model, free, monkeypatch):
    samples = texts(48, 8)
    monkeypatch.setattr(lowrank, "further_that_help", lambda *_: 48)
    plan = lowrank.plan(model, LowRankConfig(parameters=0.6, only_faster=False, multiple=1), samples, free)
    assert plan.further == 48
    first, again = (lowrank.apply(model, plan, samples) for _ in range(2))
    x = torch.from_numpy(samples.x)
    with torch.no_grad():
        assert torch.equal(first(x), again(x))
        assert not torch.equal(first(x), lowrank.apply(model, lowrank.LowRankPlan(factors=plan.factors), samples)(x))
