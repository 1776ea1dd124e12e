"""What is unfrozen: blocks in the order they run, all parameters in exactly one of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from pocketzoo.core.errors import RecipeError, UnknownNameError
from pocketzoo.zoo.models.backbone_blocks import blocks, unfrozen

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


class Unordered(nn.Module):
    """Registered in another order than they run; with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.last = nn.Linear(4, 4)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)
        self.first = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x + self.token)
        for layer in self.layers:
            x = layer(x)
        return self.last(self.norm(x))


CASES = {
    "unordered": (Unordered, torch.zeros(2, 4), ["first", "layers.0.0", "layers.1", "last"]),
    "bert": (
        lambda: BertModel(BertConfig(**SMALL), add_pooling_layer=False),
        torch.ones(1, 4).long(),
        ["embeddings", "encoder.layer.0", "encoder.layer.1"],
    ),
    "gpt2": (
        lambda: GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2)),
        torch.ones(1, 4).long(),
        ["wte", "wpe", "h.0", "h.1"],
    ),
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1])),
        torch.zeros(1, 3, 32, 32),
        ["embedder", "encoder.stages.0.layers.0", "encoder.stages.0.layers.1", "encoder.stages.1.layers.0"],
    ),
    "vit": (
        lambda: ViTModel(ViTConfig(**SMALL, image_size=32), add_pooling_layer=False),
        torch.zeros(1, 3, 32, 32),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_blocks_hold_every_parameter_once_in_the_order_they_run(name):
    make, x, wanted = CASES[name]
    model = make().eval()
    found = blocks(model, x)
    if wanted is not None:
        assert [b.name for b in found] == wanted
    held = [id(p) for b in found for p in b.parameters]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet"])
def test_what_only_wraps_a_backbone_is_opened(name):
    class Wrapped(nn.Module):
        """As the plugins wrap models of other libraries."""

        def __init__(self) -> None:
            super().__init__()
            self.model = make().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).last_hidden_state

    make, x, wanted = CASES[name]
    assert [block.name for block in blocks(Wrapped(), x)] == [f"model.{each}" for each in wanted]


def test_a_norm_goes_with_the_layer_before_it():
    found = blocks(Unordered(), torch.zeros(2, 4))
    assert [len(b.modules) for b in found] == [1, 1, 2, 1]
    assert found[0].parameters[-1].shape == (4,), "the token is learned with the first block"


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("none", []),
        ("all", ["first", "layers.0.0", "layers.1", "last"]),
        ("last:1", ["last"]),
        ("last:3", ["layers.0.0", "layers.1", "last"]),
        ("layers", ["layers.0.0", "layers.1", "last"]),
        ("layers.0", ["layers.0.0", "layers.1", "last"]),
        ("layers.1", ["layers.1", "last"]),
        ("last", ["last"]),
    ],
)
def test_what_is_asked_for_is_unfrozen(asked, wanted):
    assert [b.name for b in unfrozen(Unordered(), torch.zeros(2, 4), asked)] == wanted


def test_what_is_not_there_is_refused(refused):
    with refused(RecipeError, "has 4 blocks, but the last 5", hint="all"):
        unfrozen(Unordered(), torch.zeros(2, 4), "last:5")
    with refused(UnknownNameError, "no block 'layers.9'", hint="layers.1"):
        unfrozen(Unordered(), torch.zeros(2, 4), "layers.9")
