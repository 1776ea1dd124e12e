from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketzoo.compress.pipeline.forecast import module_cost
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.models.build import load_module


def test_the_cost_of_layers_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    cost = module_cost(module, InputSpec(shape=("batch", 3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resize=8))
    assert cost.macs == 16 * 8 * 27 + 16 * 8 * 9 + 40
    assert cost.parameters == (8 * 27 + 8) + 16 + 72 + 45
    assert cost.bytes == 4 * (cost.parameters - 8)


@pytest.mark.parametrize("name", ["fitted", "compressed"])
def test_it_is_what_the_graph_has(name, registry, request):
    bundle = request.getfixturevalue(name)
    module = load_module(bundle, registry)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    cost = module_cost(module, bundle.manifest.input)
    assert (cost.macs, cost.parameters) == (bundle.manifest.macs, bundle.manifest.parameters)
    assert cost.bytes == pytest.approx(bundle.graph("").stat().st_size, rel=0.15)  # and operators
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
