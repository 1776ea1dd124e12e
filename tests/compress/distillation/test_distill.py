"""Healing: never further from the original than before, the same each time, and it goes on after a kill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.configs import DistillConfig, PruneConfig
from pocketzoo.compress.distillation import distill
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pruning import prune
from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.compressor import Distillation
from pocketzoo.zoo.models.build import load_module

CONFIG = DistillConfig(epochs=6, batch_size=8, learning_rate=3e-3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.more(self.stem(x)).mean((2, 3)))
        return y


class Killed(Exception):  # noqa: N818 - no error of ours
    pass


class KillAfter:
    """Progress that notes the epochs it sees, and of which the process dies after so many; after None it lives."""

    def __init__(self, epochs: int | None) -> None:
        self.epochs, self.seen = epochs, []

    def track(self, items, label, total=None):
        for i, item in enumerate(items):
            if i == self.epochs:
                raise Killed
            self.seen.append(item)
            yield item

    def say(self, text):
        pass


@pytest.fixture(scope="module")
def teacher(randomised):
    return randomised(Net())


@pytest.fixture(scope="module")
def samples():
    generator = np.random.default_rng(0)
    return [generator.normal(size=(16, 3, 8, 8)).astype(np.float32) for _ in range(3)]


@pytest.fixture(scope="module")
def pruned(teacher, samples, free):
    plan = prune.plan(teacher, PruneConfig(ratio=0.5), samples, free)
    return prune.apply(teacher, plan, None)  # nothing made up for yet


def taught(model, teacher, samples, folder, config=CONFIG, progress=SILENT):
    plan = distill.plan(model, config, samples, None)
    return distill.distill(model, plan, samples, Distillation(teacher, folder, progress))


def distance(a, b, samples) -> float:
    x = torch.from_numpy(np.concatenate(samples))
    with torch.no_grad():
        return float((a(x) - b(x)).square().mean())


def snapshot(model) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}


def test_a_pruned_model_comes_nearer_to_the_original(pruned, teacher, samples, tmp_path):
    before = snapshot(pruned), snapshot(teacher)
    healed = taught(pruned, teacher, samples, tmp_path)
    assert (snapshot(pruned), snapshot(teacher)) == before
    assert distance(healed, teacher, samples) < 0.7 * distance(pruned, teacher, samples)
    assert {k: v.shape for k, v in healed.state_dict().items()} == {k: v.shape for k, v in pruned.state_dict().items()}
    assert not healed.training


def test_the_original_itself_stays_as_it_is(teacher, samples, tmp_path):
    """Nothing is nearer to it than itself: what training changes is thrown away."""
    assert snapshot(taught(teacher, teacher, samples, tmp_path)) == snapshot(teacher)


def test_a_killed_run_goes_on_to_the_same_model(pruned, teacher, samples, tmp_path):
    whole = taught(pruned, teacher, samples, tmp_path / "whole")
    for epochs in (1, 3):  # twice killed, the second time behind the features
        with pytest.raises(Killed):
            taught(pruned, teacher, samples, tmp_path / "cut", progress=KillAfter(epochs))
    count = KillAfter(None)
    assert snapshot(taught(pruned, teacher, samples, tmp_path / "cut", progress=count)) == snapshot(whole)
    assert count.seen == [4, 5]


def test_what_another_run_left_is_not_taken_up(pruned, teacher, samples, tmp_path):
    other = DistillConfig(epochs=6, batch_size=8, learning_rate=1e-3, seed=1)
    taught(pruned, teacher, samples, tmp_path / "a", other)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "distillation.safetensors").write_bytes(b"cut off")
    fresh = snapshot(taught(pruned, teacher, samples, tmp_path / "c"))
    for place in "ab":
        assert snapshot(taught(pruned, teacher, samples, tmp_path / place)) == fresh


def test_zeros_stay_zeros(teacher, samples, free, tmp_path):
    config = PruneConfig(ratio=0.5, granularity="weight", refit=False)
    sparse = prune.apply(teacher, prune.plan(teacher, config, samples, free), samples)
    healed = taught(sparse, teacher, samples, tmp_path)
    assert distance(healed, teacher, samples) < distance(sparse, teacher, samples)
    for name, p in sparse.named_parameters():
        if p.ndim > 1:
            assert not healed.get_parameter(name)[p == 0].any()


def test_it_stops_where_nothing_gets_better(teacher, samples, tmp_path):
    count = KillAfter(None)
    config = DistillConfig(epochs=50, features=0.0, patience=2, batch_size=8)
    taught(teacher, teacher, samples, tmp_path, config, count)
    assert count.seen == [0, 1, 2]


def test_texts_of_different_lengths_are_learned_from(tmp_path):
    class Bag(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.words, self.inner, self.out = nn.Embedding(50, 8), nn.Linear(8, width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.inner(self.words(x)))).mean(1)

    torch.manual_seed(0)
    teacher, student = Bag(16).eval(), Bag(8).eval()
    generator = np.random.default_rng(0)
    texts = [generator.integers(1, 50, size=(16, n)) for n in (5, 9, 7)]
    healed = taught(student, teacher, texts, tmp_path, DistillConfig(epochs=8, learning_rate=1e-2))
    with torch.no_grad():
        gone = [sum(float((m(torch.from_numpy(x)) - teacher(torch.from_numpy(x))).square().sum()) for x in texts)
                for m in (healed, student)]  # fmt: skip
    assert gone[0] < gone[1]


@pytest.mark.parametrize("bad", ["one sample", "nan"])
def test_samples_that_teach_nothing_are_refused(bad, pruned, teacher, samples, tmp_path, refused):
    given = [samples[0][:1]] if bad == "one sample" else [np.full_like(samples[0], np.nan)]
    with refused(DataError, "samples to" if bad == "one sample" else "not finite"):
        taught(pruned, teacher, given, tmp_path)


def test_a_recipe_heals_towards_the_model_it_began_with(small, small_registry, tmp_path):
    """As a step of a run: the structure is the pruned one, the weights are not, and the bundle opens again."""
    steps = [PruneConfig(ratio=0.5), DistillConfig(epochs=2)]
    given = {"data": "digits", "samples": 64, "registry": small_registry}
    made = compress(small.path, tmp_path / "x", steps=steps, keep_slower=True, accept=True, **given)
    assert [s.compressor for s in made.manifest.steps] == ["prune", "distill"]
    plan = small_registry.get("compressor", "prune").read_plan(made.manifest.steps[0].plan)
    cut, healed = prune.apply(load_module(small, small_registry), plan), load_module(made, small_registry)
    assert {k: v.shape for k, v in cut.state_dict().items()} == {k: v.shape for k, v in healed.state_dict().items()}
    assert made.manifest.parameters == sum(p.numel() for p in cut.parameters())
    assert any(not torch.equal(v, healed.state_dict()[k]) for k, v in cut.state_dict().items())
    assert not list(tmp_path.glob(".*"))


def test_what_is_made_can_be_trained_on_and_the_original_is_as_it_was(pruned, teacher, samples, tmp_path):
    frozen = [p.requires_grad for p in teacher.parameters()]
    made = taught(pruned, teacher, samples, tmp_path, DistillConfig(epochs=1))
    assert all(p.requires_grad and p.grad_fn is None for p in made.parameters())
    assert [p.requires_grad for p in teacher.parameters()] == frozen
    assert made is not pruned


class Lines(nn.Module):
    """A model whose every step can be written out: y = w x, as long as nothing is pruned."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.layer = nn.Linear(len(weight), 1, bias=False)
        self.layer.weight.data = torch.tensor([weight])

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_one_step_is_adams_on_the_relative_error(tmp_path):
    """Its first step is the rate in the direction that the gradient has, whatever its size."""
    teacher, student = Lines([1.0, -1.0]), Lines([0.5, 0.5])
    x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    config = DistillConfig(epochs=1, batch_size=64, learning_rate=0.01, features=0.0)
    made = taught(student, teacher, [x], tmp_path, config)
    np.testing.assert_allclose(made.layer.weight.detach().numpy(), [[0.51, 0.49]], atol=1e-5)


@pytest.mark.parametrize("epochs", [2, 5])
def test_the_rate_falls_to_zero_along_a_cosine(epochs, tmp_path, monkeypatch):
    rates = []

    class Noted(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(distill.torch.optim, "Adam", Noted)
    config = DistillConfig(epochs=epochs, batch_size=64, learning_rate=0.1, patience=9)
    taught(Lines([0.5]), Lines([1.0]), [np.ones((16, 1), np.float32)], tmp_path, config)
    assert rates == pytest.approx([0.05 * (1 + np.cos(np.pi * i / epochs)) for i in range(epochs)])


@pytest.mark.parametrize(
    ("counts", "train", "held"), [((16,), 14, 2), ((2,), 1, 1), ((1, 5), 5, 1), ((8, 3, 1), 10, 2)]
)
def test_one_of_eight_samples_is_held_out_and_one_of_each_batch_at_the_least(counts, train, held):
    numbered = np.arange(sum(counts), dtype=np.float32)[:, None]
    batches = np.split(numbered, np.cumsum(counts)[:-1])
    learned, judged = distill._split(batches, 4)
    assert all(len(x) <= 4 for (x,) in learned)
    rows = [sorted(torch.cat([x for (x,) in part]).ravel().tolist()) for part in (learned, judged)]
    assert list(map(len, rows)) == [train, held]
    assert sorted(rows[0] + rows[1]) == numbered.ravel().tolist()
    if counts == (16,):
        assert rows[1] == [4.0, 12.0]


def test_a_plan_is_what_was_asked_for(teacher, samples):
    config = DistillConfig(
        epochs=3, learning_rate=0.5, batch_size=7, features=0.25, patience=2, seed=11, quantized=True
    )
    assert to_plain(distill.plan(teacher, config, samples, None)) == to_plain(config)
    applied = distill.apply(teacher, distill.plan(teacher, config, samples, None), samples)
    assert snapshot(applied) == snapshot(teacher)
    assert applied is not teacher


# -- distances, blocks and samples, written out


def _line(weight: float) -> Lines:
    return Lines([weight])


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"), [(1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (3.0, 2.0, 0.25), (1.0, -1.0, 4.0)]
)
def test_the_distance_is_relative_to_the_originals_outputs(student, teacher, wanted):
    held = [(torch.tensor([[1.0], [2.0]]),), (torch.tensor([[-3.0]]),)]
    outputs = [{"logits": teacher * x} for (x,) in held]
    assert distill._distance(_line(student), held, outputs) == pytest.approx(wanted)
    assert distill._distance(_line(np.inf), held, outputs) == np.inf
    assert distill._distance(_line(np.nan), held, outputs) == np.inf


def test_the_distance_from_outputs_of_nothing_is_finite():
    held = [(torch.tensor([[1e-12]]),)]
    assert distill._distance(_line(1.0), held, [{"logits": torch.zeros(1, 1)}]) == pytest.approx(1e6, rel=1e-4)
    assert distill._distance(_line(0.0), held, [{"logits": torch.zeros(1, 1)}]) == 0.0


class Chain(nn.Module):
    """Two layers, one that runs twice, one that gives no floats, one that gives two tensors, and what is passed by."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(2, width), nn.Tanh()
        self.drop, self.same, self.last = nn.Dropout(0.5), nn.Identity(), nn.Linear(width, 2)
        self.order, self.both, self.unused = Order(), Both(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.again(self.again(self.same(self.drop(self.first(x)))))
        self.order(y)
        return self.both(self.last(y))[0]


class Order(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argsort(1)


class Both(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_blocks_are_what_runs_once_and_gives_one_shape_in_both():
    x = (torch.zeros(2, 2),)
    assert distill._blocks(Chain().eval(), Chain().eval(), x) == ["first", "last"]
    assert distill._blocks(Chain(5).eval(), Chain().eval(), x) == ["last"]
    less = Chain().eval()
    del less.unused
    less.first = nn.Sequential(nn.Linear(2, 3))
    assert distill._blocks(less, Chain().eval(), x) == ["first", "last"]  # first.0 is the student's alone
    assert distill._blocks(Chain().eval(), less, x) == ["first", "last"]


def test_features_are_those_of_one_pass_and_none_of_what_runs_twice():
    model = Chain().eval()
    x = torch.randn(2, 2)
    with distill._features(model, ["first", "again", "both"]) as found:
        model(x)
    assert set(found) == {"first", "again", "both"}
    torch.testing.assert_close(found["first"], model.first(x))
    assert found["again"] is None
    assert found["both"] is None
    assert not any(m._forward_hooks for m in model.modules())


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu_()


def test_features_are_as_they_were_before_what_comes_next_wrote_over_them():
    model, x = InPlace(), torch.randn(8, 2)
    with distill._features(model, ["layer"]) as found:
        model(x)
    torch.testing.assert_close(found["layer"], model.layer(x))
    assert (found["layer"] < 0).any()


def test_the_loss_is_the_mean_of_relative_errors_of_outputs_and_blocks():
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)) for _ in range(2))
    x = torch.randn(4, 2)
    with torch.no_grad():
        outs = [(student(x), teacher(x)), (student[0](x), teacher[0](x))]
    parts = [float(((a - b) ** 2).mean() / (b**2).mean()) for a, b in outs]
    for blocks, wanted in (([], parts[0]), (["0"], sum(parts) / 2), (["0", "1"], (2 * parts[0] + parts[1]) / 3)):
        found = distill._loss(student, student, teacher, (x,), blocks)
        assert found.item() == pytest.approx(wanted, rel=1e-5)
        found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert student[0].weight.grad is not None


def test_outputs_of_nothing_divide_by_next_to_nothing():
    found = distill._loss(_line(1e-6), _line(1e-6), _line(0.0), (torch.ones(2, 1),), [])
    assert found.item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(("count", "out"), [(16, [4, 12]), (13, [4, 12]), (12, [4]), (5, [4]), (4, [0]), (2, [0])])
def test_every_eighth_sample_of_a_batch_is_held_out_from_the_fifth(count, out):
    train, held = distill._split([np.arange(count, dtype=np.float32)[:, None]], 100)
    assert torch.cat([x for (x,) in held]).ravel().tolist() == out
    assert torch.cat([x for (x,) in train]).ravel().tolist() == [i for i in range(count) if i not in out]


class Sourced(list):
    """Batches, and the source of each of their samples."""

    groups = np.repeat(np.arange(8), 4)


@pytest.mark.parametrize("batch", [5, 16, 32])
def test_whole_sources_are_held_out(batch):
    """Of eight sources of four samples one, which is an eighth."""
    numbered = np.arange(32, dtype=np.float32)[:, None]
    train, held = distill._split(Sourced(np.split(numbered, range(batch, 32, batch))), 100)
    (source,) = {int(x) // 4 for (part,) in held for x in part.ravel()}
    assert sorted(int(x) for (part,) in held for x in part.ravel()) == list(range(4 * source, 4 * source + 4))
    assert sorted(int(x) for (part,) in train for x in part.ravel()) == [i for i in range(32) if i // 4 != source]


def test_a_batch_of_one_is_learned_from():
    train, held = distill._split([np.ones((1, 1), np.float32), np.zeros((2, 1), np.float32)], 2)
    assert [x.ravel().tolist() for (x,) in train] == [[1.0, 0.0]]
    assert [x.ravel().tolist() for (x,) in held] == [[0.0]]


@pytest.mark.parametrize("counts", [[1], [1, 1], []])
def test_without_samples_to_judge_by_nothing_is_learned(counts):
    with pytest.raises(DataError) as caught:
        distill._split([np.ones((n, 1), np.float32) for n in counts], 2)
    assert str(caught.value) == (
        "distillation needs samples to train on and samples to validate on\ngive batches of two or more samples"
    )


def test_samples_given_are_not_written_to():
    x = np.ones((4, 1), np.float32)
    train, held = distill._split([x], 2)
    for (part,) in (*train, *held):
        part.zero_()
    assert (x == 1).all()


def test_texts_of_different_lengths_keep_their_batches():
    texts = [np.full((4, n), n) for n in (5, 9, 5)]
    train, held = distill._split(texts, 2)
    assert [tuple(x.shape) for (x,) in train] == [(3, 5), (3, 9), (3, 5)]
    assert [tuple(x.shape) for (x,) in held] == [(1, 5), (1, 9), (1, 5)]
    orders = {
        tuple(x.shape[1] * 10 + i for i, (x,) in enumerate(distill._shuffled(train, 2, seed))) for seed in range(9)
    }
    assert len(orders) > 1
    for seed in range(3):
        found = list(distill._shuffled(train, 2, seed))
        assert sorted(tuple(x.shape) for (x,) in found) == [(3, 5), (3, 5), (3, 9)]


def test_each_epoch_sees_all_samples_in_an_order_of_its_own():
    train = [(x,) for x in torch.arange(10.0)[:, None].split(4)]
    orders = []
    for seed in (0, 1, 0):
        found = list(distill._shuffled(train, 4, seed))
        assert [len(x) for (x,) in found] == [4, 4, 2]
        orders.append(torch.cat([x for (x,) in found]).ravel().tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] == torch.randperm(10, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_epochs_of_one_seed_are_no_epochs_of_another(seed, tmp_path, monkeypatch):
    seeds, shuffled = [], distill._shuffled

    def noted(train, size, number):
        seeds.append((size, number))
        return shuffled(train, size, number)

    monkeypatch.setattr(distill, "_shuffled", noted)
    config = DistillConfig(epochs=3, batch_size=7, seed=seed, patience=9)
    taught(_line(0.5), _line(1.0), [np.ones((16, 1), np.float32)], tmp_path, config)
    assert seeds == [(7, seed * 100_003 + epoch) for epoch in range(3)]


@pytest.mark.parametrize(
    ("features", "epochs", "with_blocks"), [(0.5, 4, 2), (0.0, 3, 0), (0.26, 4, 1), (0.4, 4, 2), (1.0, 3, 3)]
)
def test_blocks_are_matched_in_the_first_epochs(features, epochs, with_blocks, tmp_path, monkeypatch):
    """And patience counts from there on."""
    matched, loss = [], distill._loss

    def noted(run, student, teacher, x, blocks):
        matched.append(blocks)
        return loss(run, student, teacher, x, blocks)

    monkeypatch.setattr(distill, "_loss", noted)
    config = DistillConfig(epochs=epochs, batch_size=64, features=features, patience=9)
    taught(_line(0.5), _line(1.0), [np.ones((16, 1), np.float32)], tmp_path, config)
    assert matched == [["layer"]] * with_blocks + [[]] * (epochs - with_blocks)


@pytest.mark.parametrize(("features", "patience", "seen"), [(0.0, 1, 2), (0.0, 3, 4), (0.5, 1, 7), (0.5, 2, 8)])
def test_patience_counts_epochs_behind_the_features(features, patience, seen, teacher, samples, tmp_path):
    count = KillAfter(None)
    config = DistillConfig(epochs=10, features=features, patience=patience, batch_size=48)
    taught(teacher, teacher, samples, tmp_path, config, count)
    assert count.seen == list(range(seen))


@pytest.mark.parametrize(("zeros", "stay"), [(0, False), (1, False), (2, True), (10, True)])
def test_weights_of_which_more_than_a_hundredth_are_zero_count_as_pruned(zeros, stay, tmp_path):
    """Of a hundred: one may be zero by chance."""
    weight = [0.0] * zeros + [0.5] * (100 - zeros)
    x = np.random.default_rng(0).normal(size=(64, 100)).astype(np.float32)
    config = DistillConfig(epochs=2, batch_size=64, learning_rate=0.01, patience=9)
    made = taught(Lines(weight), Lines([1.0] * 100), [x], tmp_path, config).layer.weight.detach()[0]
    assert bool((made[:zeros] == 0).all()) == (stay or zeros == 0)
    assert (made[zeros:] != 0.5).all()


def test_a_loss_that_is_not_finite_is_said_whole(tmp_path):
    config = DistillConfig(epochs=2, batch_size=64, learning_rate=0.01)
    with pytest.raises(DataError) as caught:
        taught(_line(1e30), _line(1.0), [np.ones((16, 1), np.float32)], tmp_path, config)
    assert str(caught.value) == "distillation diverged: the loss is not finite\nlower the learning rate"
    with pytest.raises(DataError) as caught:
        taught(_line(1.0), _line(np.inf), [np.ones((16, 1), np.float32)], tmp_path, config)
    assert str(caught.value) == (
        "the outputs of the original model are not finite\ncheck the samples for NaN or infinity"
    )


def test_ranges_are_taken_from_the_first_eight_batches_before_each_epoch(tmp_path, monkeypatch):
    seen, observe = [], distill.FakeInt8.observe

    def noted(self, batches):
        seen.append([len(x) for (x,) in batches])
        observe(self, batches)

    monkeypatch.setattr(distill.FakeInt8, "observe", noted)
    x = np.random.default_rng(0).normal(size=(32, 1)).astype(np.float32)
    for quantized, times in ((True, 4), (False, 0)):
        seen.clear()
        config = DistillConfig(epochs=3, batch_size=2, quantized=quantized, patience=9)
        taught(_line(0.5), _line(1.0), [x], tmp_path / str(quantized), config)
        assert seen == [[2] * 8] * times


def test_the_work_of_another_model_or_plan_has_another_key(teacher):
    plans = [distill.plan(teacher, DistillConfig(epochs=n), [], None) for n in (1, 2)]
    models = [Lines([1.0, -2.0]), Lines([1.0, 2.0]), Lines([1.0, 3.0])]
    keys = [[distill._key(plan, model) for model in models] for plan in plans]
    assert len({key for row in keys for key in row}) == 6
    assert distill._key(plans[0], Lines([1.0, -2.0])) == keys[0][0]
    assert distill._key(plans[0], nn.Sequential(models[0], models[2])) not in keys[0]


class OwnWeight(nn.Module):
    """No module inside: there are no blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_without_blocks_patience_counts_from_the_beginning(tmp_path):
    count = KillAfter(None)
    config = DistillConfig(epochs=9, features=0.9, patience=1, batch_size=48)
    taught(OwnWeight(), OwnWeight(), [np.ones((16, 1), np.float32)], tmp_path, config, count)
    assert count.seen == [0, 1]


def test_a_bias_of_zeros_was_not_pruned(tmp_path):
    student, teacher = nn.Sequential(nn.Linear(1, 2)), nn.Sequential(nn.Linear(1, 2))
    for model, bias in ((student, 0.0), (teacher, 1.0)):
        model[0].weight.data.fill_(0.5)
        model[0].bias.data.fill_(bias)
    config = DistillConfig(epochs=1, batch_size=64, learning_rate=0.01, features=0.0)
    made = taught(student, teacher, [np.ones((16, 1), np.float32)], tmp_path, config)
    assert made[0].bias.tolist() == pytest.approx([0.01, 0.01], rel=1e-3)


def test_what_was_trained_in_8_bits_is_handed_out_in_them(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    config = DistillConfig(epochs=1, quantized=True, learning_rate=0.01)
    made = taught(Lines([0.5, 0.1234]), Lines([1.0, 1.0]), [x], tmp_path, config).layer.weight.detach()
    levels = made / (made.abs().max() / 127)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_what_was_left_of_another_model_is_not_taken_up(tmp_path):
    """Also of one with the same shapes, whose parameters are as large in the mean and not in all."""
    teacher, first, second = (Lines([0.5, 0.5]) for _ in range(3))
    for model, weight, bias in ((teacher, 0.5, 0.5), (first, 1.0, 2.0), (second, 2.0, 1.0)):
        model.layer.weight.data.fill_(weight)
        model.layer.bias = nn.Parameter(torch.tensor([bias]))
    samples = [np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)]
    config = DistillConfig(epochs=2, learning_rate=0.01)
    taught(first, teacher, samples, tmp_path / "used", config)
    fresh = snapshot(taught(second, teacher, samples, tmp_path / "empty", config))
    assert snapshot(taught(second, teacher, samples, tmp_path / "used", config)) == fresh != snapshot(second)


def test_of_several_outputs_the_one_that_is_furthest_off_decides():
    class Pair(nn.Module):
        def __init__(self, a: float, b: float) -> None:
            super().__init__()
            self.a, self.b = a, b

        def forward(self, x, y):
            return {"small": x * self.a, "large": 100 * y * self.b}

    held = [(torch.randn(4, 2), torch.randn(4, 3)), (torch.randn(2, 2), torch.randn(2, 3))]
    references = [Pair(1.0, 1.0)(*inputs) for inputs in held]
    for a, b in ((1.0, 1.0), (1.1, 1.0), (1.0, 1.1), (1.2, 1.1)):
        expected = max((a - 1) ** 2, (b - 1) ** 2)
        assert distill._distance(Pair(a, b), held, references) == pytest.approx(expected, rel=1e-4)
    assert distill._distance(Pair(float("nan"), 1.0), held, references) == float("inf")
