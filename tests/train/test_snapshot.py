"""Work in progress: what comes back is what was kept, or nothing."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.epoch_scores import EpochScores
from pocketzoo.train.snapshot import (
    SnapshotFile,
    load_optimizer,
    optimizer_tensors,
    read_snapshot,
    state_of,
    write_snapshot,
)
from pocketzoo.train.trainable_parameters import Learning


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


# -- a run and its parts


def run() -> tuple[nn.Module, torch.optim.Optimizer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return net, torch.optim.Adam(net.parameters(), lr=0.1), state_of(net)


def test_a_run_resumes_with_its_record_and_all_its_parts(place):
    net, optimizer, best = run()
    net(torch.eye(3))[0].sum().backward()
    optimizer.step()
    kept = SnapshotFile(place, "key")
    assert kept.record(EpochScores) is None
    assert not kept.load(net=net, learning=Learning(net, net[0], ()), optimizer=optimizer, best=best)
    scores = EpochScores(epoch=2, scores=[0.5, 0.75], best=0.75, best_epoch=1)
    kept.keep(scores, net=net, learning=Learning(net, net[0], ()), optimizer=optimizer, best=best)
    again, other, filled = run()
    nn.init.zeros_(again[0].weight)
    filled.clear()
    resumed = SnapshotFile(place, "key")
    assert resumed.record(EpochScores) == scores
    assert resumed.load(net=again, learning=Learning(again, again[0], ()), optimizer=other, best=filled)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    assert filled.keys() == best.keys()
    assert all(torch.equal(value, best[name]) for name, value in filled.items())
    assert not torch.equal(filled["0.weight"], net[0].weight)
    old, new = (optimizer_tensors(each) for each in (optimizer, other))
    assert old
    assert all(torch.equal(value, new[name]) for name, value in old.items())


def test_a_snapshot_is_resumed_from_once(place):
    """What was read is let go of: a later phase of the run begins with what it has."""
    net, optimizer, best = run()
    SnapshotFile(place).keep(EpochScores(epoch=1), net=net, optimizer=optimizer, best=best)
    resumed = SnapshotFile(place)
    assert [resumed.load(net=net, optimizer=optimizer, best=best) for _ in range(2)] == [True, False]
    assert resumed.record(EpochScores) is None


def test_without_a_place_nothing_is_kept(tmp_path):
    net, optimizer, best = run()
    nowhere = SnapshotFile(None)
    nowhere.keep(EpochScores(), net=net, optimizer=optimizer, best=best)
    assert nowhere.record(EpochScores) is None
    assert not nowhere.load(net=net)
    assert list(tmp_path.iterdir()) == []


def test_of_several_processes_the_first_keeps(place):
    net, optimizer, best = run()
    for rank in (1, 0):
        SnapshotFile(place, world=World(rank=rank)).keep(EpochScores(), net=net, optimizer=optimizer, best=best)
        assert place.is_file() == (rank == 0)
    assert SnapshotFile(place, world=World(rank=1)).stored is None, "it asks the first, which is nobody here"


def test_a_distillation_of_the_previous_release_is_resumed(place):
    """It noted errors, of which less is better, and spelled the optimizer otherwise."""
    facts = {"epoch": 3, "stale": 1, "distance": 0.25, "history": [0.5, 0.25, 0.375]}
    net, optimizer, best = run()
    write_snapshot(place, "key", facts, model=net.state_dict(), best=best, optimiser=optimizer_tensors(optimizer))
    resumed = SnapshotFile(place, "key")
    assert resumed.record(EpochScores) == EpochScores(epoch=3, stale=1, best=-0.25, scores=[-0.5, -0.25, -0.375])
    assert resumed.load(model=net, best=best, optimizer=optimizer)


def test_the_folders_on_the_way_are_made(tmp_path):
    place = tmp_path / "a" / "b" / "x.safetensors"
    write_snapshot(place, "key", {"epoch": 3}, model={"w": torch.ones(2)})
    write_snapshot(place, "key", {"epoch": 4}, model={"w": torch.ones(2)})
    assert read_snapshot(place, "key").facts == {"epoch": 4}
