from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.layerwise import walk
from pocketzoo.compress.statistics.second_moments import rows


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 6), nn.Linear(6, 2)
    ).eval()


@pytest.fixture
def inputs() -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 8, 8, generator=g) for n in (2, 3, 1)]


def read(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """What a layer reads, by a plain hook of our own."""
    caught = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda m, args: caught.append(rows(m, args[0])))
    with torch.no_grad():
        model(x)
    handle.remove()
    return caught[0]


def test_every_layer_is_visited_once_in_the_order_it_runs(model, inputs):
    seen = []
    walk([(model, (x,)) for x in inputs], ["6", "2", "5", "0"], lambda name, caught: seen.append((name, len(caught))))
    assert seen == [("0", 3), ("2", 3), ("5", 3), ("6", 3)]


def test_what_is_handed_over_is_what_the_layers_read(model, inputs):
    found: dict[str, list[Tensor]] = {}
    walk([(model, (x,)) for x in inputs], ["2", "6"], lambda name, caught: found.update({name: caught}))
    for name, caught in found.items():
        for x, given in zip(inputs, caught, strict=True):
            assert torch.equal(given, read(model, name, x))


def test_two_models_side_by_side_keep_their_places(model, inputs):
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.data *= 0.5
    found: dict[str, list[Tensor]] = {}
    walk([(model, (inputs[0],)), (other, (inputs[0],))], ["5"], lambda name, caught: found.update({name: caught}))
    assert torch.equal(found["5"][0], read(model, "5", inputs[0]))
    assert torch.equal(found["5"][1], read(other, "5", inputs[0]))
    assert not torch.equal(found["5"][0], found["5"][1])


def test_a_change_made_at_a_layer_is_seen_by_the_layers_behind(model, inputs):
    """The very point: refit a layer, and the next one reads what the refitted one gives."""
    changed = copy.deepcopy(model)
    found: dict[str, list[Tensor]] = {}

    def visit(name: str, caught: list[Tensor]) -> None:
        found[name] = caught
        if name == "2":
            changed.get_submodule("2").weight.data *= 3.0

    walk([(model, (inputs[0],)), (changed, (inputs[0],))], ["2", "5"], visit)
    assert torch.equal(found["2"][0], found["2"][1])
    assert torch.equal(found["5"][0], read(model, "5", inputs[0]))
    assert torch.equal(found["5"][1], read(changed, "5", inputs[0]))
    assert not torch.equal(found["5"][0], found["5"][1])


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_any_number_of_runs(count, model):
    seen = []
    x = torch.randn(1, 3, 8, 8)
    walk([(model, (x + i,)) for i in range(count)], ["0", "2"], lambda name, caught: seen.append((name, len(caught))))
    assert seen == [("0", count), ("2", count)]


def test_a_layer_that_never_runs_is_not_waited_for(inputs):
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    seen = []
    walk([(Idle(), (x,)) for x in inputs[:1]], ["used", "idle"], lambda name, caught: seen.append(name))
    assert seen == ["used"]


def test_no_gradients_are_kept(model, inputs):
    found: list[Tensor] = []
    walk([(model, (inputs[0],))], ["2"], lambda name, caught: found.extend(caught))
    assert [t.requires_grad for t in found] == [False]


@pytest.mark.parametrize("where", ["visit", "model"])
def test_an_error_ends_all_runs_and_is_the_one_raised(where, model, inputs):
    threads = set(threading.enumerate())  # another test's may end meanwhile
    if where == "visit":

        def visit(name: str, caught: list[Tensor]) -> None:
            raise ZeroDivisionError("here")

        with pytest.raises(ZeroDivisionError, match="here"):
            walk([(model, (x,)) for x in inputs], ["2"], visit)
    else:
        bad = [*inputs[:2], torch.randn(2, 9, 8, 8)]  # nine channels where three are read
        with pytest.raises(RuntimeError, match="channels"):
            walk([(model, (x,)) for x in bad], ["2"], lambda name, caught: None)
    assert set(threading.enumerate()) <= threads
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_hooks_are_gone_afterwards(model, inputs):
    walk([(model, (x,)) for x in inputs], ["0", "5"], lambda name, caught: None)
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_it_ends_behind_the_last_layer_that_is_wanted(model, inputs):
    """Nothing behind it runs any more."""
    seen, behind = [], []
    model[6].register_forward_pre_hook(lambda layer, given: behind.append(1))
    walk([(model, (x,)) for x in inputs], ["0", "2", "5"], lambda name, caught: seen.append(name), until="2")
    assert (seen, behind) == (["0", "2"], [])


def test_no_more_rows_are_taken_than_a_layer_is_limited_to(model, inputs):
    found: dict[str, list[Tensor]] = {}
    runs = [(model, (x,)) for x in inputs]
    walk(runs, ["0", "2", "5"], lambda name, caught: found.update({name: caught}), limits={"0": 7, "5": 1})
    for run, x in enumerate(inputs):
        assert torch.equal(found["0"][run], rows(model[0], x, 7))
        assert torch.equal(found["2"][run], read(model, "2", x))
        assert len(found["5"][run]) == 1


def test_what_other_modules_read_is_held_whole_run_by_run(model, inputs):
    held: list[dict[str, Tensor]] = [{} for _ in inputs]
    at_five = []
    walk(
        [(model, (x,)) for x in inputs],
        ["5"],
        lambda name, caught: at_five.append([set(run) for run in held]),
        hold=["2", "6"],
        held=held,
    )
    assert at_five == [[{"2"}] * len(inputs)]
    for run, x in zip(held, inputs, strict=True):
        assert set(run) == {"2", "6"}
        assert torch.equal(run["2"], model[1](model[0](x)).detach())


def test_where_another_module_stands_the_layer_that_was_there_is_read_for(model, inputs):
    """Its kernel decides what a row is."""
    window = nn.Conv2d(3, 4, 1)
    found = []
    walk([(model, (inputs[0],))], ["0"], lambda name, caught: found.extend(caught), windows={"0": window})
    assert torch.equal(found[0], rows(window, inputs[0]))


def test_a_layer_without_a_limit_of_its_own_gives_the_usual_number_of_rows():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    x = torch.arange(5000.0)[:, None]
    found: dict[str, list[Tensor]] = {}
    walk([(model, (x,))], ["0", "1"], lambda name, caught: found.update({name: caught}), limits={"1": 10})
    assert torch.equal(found["0"][0], x[::3])
    assert len(found["1"][0]) == 10


def test_the_error_that_is_raised_is_the_first_and_no_echo_of_it(model):
    """One run of four fails; the others merely wait in vain."""
    good = torch.randn(1, 3, 8, 8)
    for bad in (0, 1, 3):
        runs = [good] * 4
        runs[bad] = torch.randn(1, 9, 8, 8)
        with pytest.raises(RuntimeError, match="channels") as caught:
            walk([(model, (x,)) for x in runs], ["2"], lambda name, caught: None)
        assert not isinstance(caught.value, threading.BrokenBarrierError)


def test_only_one_run_computes_at_a_time(model, inputs):
    running, most = [], []

    def enter(layer, given):
        running.append(1)
        most.append(len(running))

    for layer in model[:6]:  # before the last all wait for each other
        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(lambda layer, given, out: running.pop() and None)
    walk([(model, (x,)) for x in inputs * 3], ["6"], lambda name, caught: None)
    assert max(most) == 1
    assert not running
