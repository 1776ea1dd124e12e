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
    assert [s.kind for s in made.manifest.steps] == ["prune", "distill"]
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
    assert all(len(x) <= 4 for x in learned)
    rows = [sorted(torch.cat(part).ravel().tolist()) for part in (learned, judged)]
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
