"""Rates: of each block, of each step, against the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pocketzoo.train.optimizers import build_optimizer, set_rate
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.models.backbone_blocks import blocks


def made(**settings) -> tuple[nn.Module, torch.optim.Optimizer]:
    body = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    return body, build_optimizer(nn.Linear(5, 2), blocks(body, torch.zeros(1, 3)), TrainConfig(**settings))


def test_deeper_blocks_learn_slower_and_norms_do_not_decay():
    body, optimizer = made(learning_rate=1.0, backbone_rate=0.1, layer_decay=0.5, weight_decay=0.2)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    wanted = {
        id(body[0].weight): (0.05, 0.2),
        id(body[0].bias): (0.05, 0.0),
        id(body[1].weight): (0.05, 0.0),
        id(body[1].bias): (0.05, 0.0),
        id(body[2].weight): (0.1, 0.2),
        id(body[2].bias): (0.1, 0.0),
    }
    assert {k: pytest.approx(found[k]) for k in wanted} == {k: found[k] for k in wanted} == wanted
    assert sorted(g["lr"] for g in optimizer.param_groups)[-2:] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimizers_by_name(name, kind):
    _, optimizer = made(optimizer=name, momentum=0.7)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0].get("momentum", 0.7) == 0.7


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [1.0] * 12),
        ("linear", [1 - i / 12 for i in range(12)]),
        ("cosine", [(1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)]),
        ("step", [1.0] * 4 + [0.1] * 4 + [0.01] * 4),
    ],
)
def test_the_rate_follows_the_schedule(schedule, wanted):
    config = TrainConfig(learning_rate=1.0, backbone_rate=1.0, schedule=schedule)
    assert rates(config, 12) == pytest.approx(wanted)


def test_it_warms_up_first():
    config = TrainConfig(learning_rate=1.0, backbone_rate=1.0, schedule="linear", warm_up=0.25)
    assert rates(config, 12) == pytest.approx([0.25, 0.5, 0.75, *(1 - i / 9 for i in range(9))])


def rates(config: TrainConfig, steps: int) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), [], config)
    found = []
    for step in range(steps):
        set_rate(optimizer, config, step, steps)
        found.append(optimizer.param_groups[0]["lr"])
    return found
