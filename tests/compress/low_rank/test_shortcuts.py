from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.low_rank.shortcuts import shortcuts_of
from pocketzoo.compress.plans import Factor, LowRankPlan
from pocketzoo.core.typed import from_plain, to_plain


class Around(nn.Module):
    """A residual branch of two layers, with the norm before it or after the sum, and a head."""

    def __init__(self, *, norm_first: bool, added: bool = True, size: int = 16) -> None:
        super().__init__()
        self.norm_first, self.added = norm_first, added
        self.stem, self.norm = nn.Linear(8, size), nn.LayerNorm(size)
        self.up, self.drop, self.down = nn.Linear(size, 32), nn.Dropout(0.1), nn.Linear(32, size)
        self.head = nn.Linear(size, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        y = self.drop(self.down(F.gelu(self.up(self.norm(x) if self.norm_first else x))))
        x = x + y if self.added else y
        return self.head(x if self.norm_first else self.norm(x))


LINEAR = ["stem", "up", "down", "head"]


@pytest.mark.parametrize(
    ("options", "reader"),
    [
        ({"norm_first": False}, "up"),
        ({"norm_first": True}, "norm"),
        ({"norm_first": False, "added": False}, None),
    ],
)
def test_what_is_added_to_a_layer_is_found_by_what_is_read(options, reader, randomised):
    model = randomised(Around(**options))
    found = shortcuts_of(model, LINEAR, (torch.randn(2, 5, 8),))
    assert {name: shortcut.reader for name, shortcut in found.items()} == ({"down": reader} if reader else {})


class Twice(Around):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for _ in range(2):
            x = x + self.down(F.gelu(self.up(x)))
        return self.head(x)


def test_a_layer_in_two_places_has_none(randomised):
    assert shortcuts_of(randomised(Twice(norm_first=False)), LINEAR, (torch.randn(2, 5, 8),)) == {}


def test_a_layer_takes_back_what_its_shortcut_lacks(randomised):
    """What the stem lost is missing on the shortcut too, and partly follows from what the branch reads."""
    torch.manual_seed(0)
    x = torch.randn(64, 16, 8) @ torch.randn(8, 8)
    model = randomised(Around(norm_first=True))
    factors = {
        name: Factor(kind="svd", ranks=(rank,), error=0.0, parameters=1, after=1)
        for name, rank in (("stem", 4), ("up", 16), ("down", 15))
    }
    plan = LowRankPlan(factors=factors)
    samples = [x[i : i + 8].numpy() for i in range(0, 64, 8)]
    errors = []
    for found in (shortcuts_of, lambda *_: {}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lowrank, "shortcuts_of", found)
            made = lowrank.apply(model, plan, samples)
        with torch.no_grad():
            errors.append(float((made(x) - model(x)).square().mean()))
    assert errors[0] < 0.9 * errors[1]


def test_a_plan_of_before_has_no_further_samples():
    data = to_plain(LowRankPlan(further=3))
    del data["further"]
    assert from_plain(LowRankPlan, data) == LowRankPlan()
