"""Work in progress: what comes back is what was kept, or nothing."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pocketzoo.zoo.bundles.snapshot import load_optimizer, optimizer_tensors, read_snapshot, write_snapshot


@pytest.fixture
def place(tmp_path):
    return tmp_path / "deep" / "work.safetensors"


def test_what_is_kept_comes_back(place):
    weights, more = {"a.b": torch.arange(6.0).view(2, 3).T, "n": torch.tensor(3)}, {}
    write_snapshot(place, "key", {"epoch": 3, "history": [0.5, None]}, model=weights, none=more)
    found = read_snapshot(place, "key")
    assert found.facts == {"epoch": 3, "history": [0.5, None]}
    assert set(found.parts) == {"model", "none"}
    assert found.parts["none"] == {}
    assert {k: v.tolist() for k, v in found.parts["model"].items()} == {k: v.tolist() for k, v in weights.items()}


def test_nothing_comes_of_nothing_of_damage_and_of_others(place):
    assert read_snapshot(place, "key") is None
    write_snapshot(place, "key", {}, model={"w": torch.ones(100)})
    assert read_snapshot(place, "another") is None
    whole = place.read_bytes()
    for damaged in (b"", whole[:40], whole[:-4], b"\xff" * len(whole)):
        place.write_bytes(damaged)
        assert read_snapshot(place, "key") is None
    header = json.dumps({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    place.write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_snapshot(place, "key") is None, "safetensors of somebody else"


def test_tied_weights_are_kept(place):
    one = nn.Linear(3, 3, bias=False)
    two = nn.ModuleList([one, nn.Linear(3, 3, bias=False)])
    two[1].weight = one.weight
    write_snapshot(place, "", {}, model=two.state_dict())
    assert torch.equal(read_snapshot(place, "").parts["model"]["1.weight"], one.weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
    ],
    ids=["adamw", "momentum", "sgd", "rmsprop"],
)
def test_an_optimiser_goes_on_as_if_never_stopped(place, make):
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(4, 5)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole, cut = nn.Linear(5, 2), nn.Linear(5, 2)
    cut.load_state_dict(whole.state_dict())
    steps(whole, make(whole.parameters()), 5)
    first = make(cut.parameters())
    steps(cut, first, 2)
    write_snapshot(place, "", {}, model=cut.state_dict(), optimizer=optimizer_tensors(first))
    found, again = read_snapshot(place, ""), nn.Linear(5, 2)
    again.load_state_dict(found.parts["model"])
    second = make(again.parameters())
    load_optimizer(second, found.parts["optimizer"])
    steps(again, second, 3)
    assert torch.equal(again.weight, whole.weight)
