"""Training: what learns moves and what is frozen does not; a killed run ends as one that was not."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from feeds import arrays
from safetensors.torch import load_file
from scoring import ACCURACY, R2
from torch import nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError, RecipeError, TrainingError
from pocketzoo.core.numerics import r2
from pocketzoo.core.progress import SILENT
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.fit import fit
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.sources import SourceBatch
from pocketzoo.train.training_loop import Phase, Trainer, batches
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.hub.weights import read_weights
from pocketzoo.zoo.models.backbone_blocks import blocks
from pocketzoo.zoo.tasks.training.classes import class_weights


class Killed(BaseException):
    """Stands for what ends a process in the middle."""


class Told:
    """Progress that remembers what it was told, and dies in a given epoch of a label."""

    def __init__(self, label: str = "", epoch: int = -1) -> None:
        self.said: list[str] = []
        self.label, self.epoch = label, epoch

    def track(self, items, label, total=None):
        for item in items:
            if (label, item) == (self.label, self.epoch):
                raise Killed
            yield item

    def say(self, text: str) -> None:
        self.said.append(text)


class Arrays:
    """A source in memory."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y, self.targets = x, y, y.numpy()

    def __len__(self) -> int:
        return len(self.x)

    axes: dict[str, int] = {}  # noqa: RUF012

    def of(self, parts):
        for part in parts:
            yield SourceBatch({"x": self.x[list(part)]}, self.y[list(part)], {})


def count(y: torch.Tensor) -> torch.Tensor:
    return torch.tensor(float(len(y)))


def summed(outputs: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs["logits"], y, reduction="sum")


def toy(size: int = 60, seed: int = 0) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator)
    return Arrays(x, (x.sum(1) > 0).long())


class Net(nn.Module):
    """A backbone with batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 2))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def trained(net: Net, config: TrainConfig, body=(), *, progress=SILENT, loss=summed, place=None, source=None):
    trainer = Trainer(config, loss, count, ACCURACY, World(), place, progress)
    source = source or toy()
    trainer.run(Phase(net, net.head, body, source, toy(seed=1), 0, config.epochs), 0)
    return trainer


def changed(net: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}


# -- what learns


def test_a_frozen_backbone_stays_as_it_is_statistics_included():
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    trained(net, TrainConfig(epochs=3, batch_size=8))
    assert changed(net, before) == {"head.1.weight", "head.1.bias"}
    assert not net.training


def test_of_the_backbone_only_what_is_unfrozen_moves():
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    body = blocks(net.backbone, toy().x[:2])[-1:]
    trained(net, TrainConfig(epochs=3, batch_size=8), body)
    moved = changed(net, before)
    assert all(k.startswith(("head.1", "backbone.3", "backbone.4")) for k in moved)
    assert {"backbone.3.weight", "backbone.4.running_mean"} <= moved


def test_the_best_epoch_is_what_stays():
    net = Net()
    trainer = trained(net, TrainConfig(epochs=12, batch_size=8, learning_rate=0.05, schedule="constant"))
    assert trainer.history.best == max(trainer.history.scores)
    assert trainer.value(net, toy(seed=1)) == trainer.history.best


def test_it_learns():
    net = Net()
    trainer = trained(net, TrainConfig(epochs=20, batch_size=8, learning_rate=0.02), blocks(net.backbone, toy().x[:2]))
    assert trainer.history.losses[-1] < trainer.history.losses[0] / 2


def test_it_stops_when_nothing_gets_better():
    trainer = trained(Net(), TrainConfig(epochs=50, batch_size=8, learning_rate=1e-9, patience=3))
    assert len(trainer.history.scores) == 4
    assert trainer.history.stopped == "no improvement for 3 epochs"


def test_gradients_are_clipped():
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    net, config = Net(), TrainConfig(epochs=1, batch_size=60, learning_rate=1.0, clip=1e-3, **plain)
    before = torch.cat([p.detach().flatten().clone() for p in net.head.parameters()])
    trained(net, config)
    after = torch.cat([p.detach().flatten() for p in net.head.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_keeps_the_best_epoch():
    class Burst(Arrays):
        """Infinite from the third epoch on."""

        epochs = 0

        def of(self, parts):
            self.epochs += 1
            for x, y, inputs in super().of(parts):
                yield SourceBatch({"x": x["x"] * math.inf} if self.epochs > 2 else x, y, inputs)

    net, told, source = Net(), Told(), toy()
    trainer = trained(net, TrainConfig(epochs=5, batch_size=8), progress=told, source=Burst(source.x, source.y))
    assert len(trainer.history.scores) == 2
    assert trainer.history.stopped == "the loss is not finite in epoch 3, step 1"
    assert "stopped: the loss is not finite in epoch 3, step 1" in told.said[-1]
    assert trainer.value(net, toy(seed=1)) == trainer.history.best
    with pytest.raises(DataError, match="epoch 1, step 1"):
        trained(Net(), TrainConfig(epochs=1), source=Arrays(source.x * math.nan, source.y))


def test_without_memory_for_a_batch_it_goes_through_in_parts():
    class Small(nn.Module):
        """Runs out of memory above ``room`` samples."""

        def __init__(self, room: int) -> None:
            super().__init__()
            self.room, self.backbone, self.head = room, nn.Identity(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training_now and len(x) > self.room:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
            return self.head(x)

        @property
        def training_now(self) -> bool:
            return self.head.training

    def run(room: int) -> tuple[nn.Module, Told]:
        torch.manual_seed(0)
        net, told = Small(room), Told()
        trained(net, TrainConfig(epochs=2, batch_size=16, optimizer="sgd"), progress=told)
        return net, told

    (whole, _), (parts, told) = run(100), run(5)
    assert told.said == [
        "out of memory: continuing with 8 samples at a time",
        "out of memory: continuing with 4 samples at a time",
    ]
    assert torch.allclose(whole.head.weight, parts.head.weight, atol=1e-6)
    with pytest.raises(TrainingError, match="single sample"):
        run(0)


# -- batches, weights, scores


@pytest.mark.parametrize(("samples", "size"), [(64, 16), (65, 16), (71, 16), (3, 16), (1, 1), (67, 16)])
def test_every_sample_is_in_one_batch(samples, size):
    found = batches(samples, TrainConfig(batch_size=size), 3)
    assert sorted(i for part in found for i in part) == list(range(samples))
    assert found == batches(samples, TrainConfig(batch_size=size), 3)
    if samples > size:
        assert min(map(len, found)) * 4 >= size
        assert found != batches(samples, TrainConfig(batch_size=size), 4)
        assert found != batches(samples, TrainConfig(batch_size=size, seed=1), 3)


def test_classes_count_alike():
    targets = np.array([0] * 6 + [1] * 3 + [3] * 1)
    weights = class_weights(targets, 4).double()
    totals = [float(weights[c]) * int((targets == c).sum()) for c in (0, 1, 3)]
    assert totals == pytest.approx([10 / 3] * 3)
    assert float(weights[targets].mean()) == pytest.approx(1.0)


def test_a_source_is_scored_in_batches_as_it_is_as_one():
    generator = np.random.default_rng(0)
    y = (generator.normal(size=(50, 3)) * [1, 100, 0] + [0, 1000, 5]).astype(np.float32)
    out = (y + generator.normal(size=y.shape) * [0.1, 30, 0]).astype(np.float32)
    trainer = Trainer(TrainConfig(batch_size=20), summed, count, R2, World(), None, SILENT)
    source = Arrays(torch.from_numpy(out), torch.from_numpy(y))
    assert trainer.value(nn.Identity(), source) == pytest.approx(r2(out, y), abs=1e-9)
    estimate = trainer.estimate(nn.Identity(), source)
    assert estimate.low < estimate.value < estimate.high


# -- resuming


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    config = TrainConfig(epochs=6, batch_size=8, learning_rate=0.01, momentum=0.5, optimizer="sgd", warm_up=0.2)

    def body(net: Net):
        return blocks(net.backbone, toy().x[:2])

    whole = Net()
    reference = trained(whole, config, body(whole))
    for epoch in (1, 4):
        net = Net()
        with pytest.raises(Killed):
            trained(net, config, body(net), progress=Told("fine-tuning", epoch), place=tmp_path / "s")
    net, told = Net(), Told()
    last = trained(net, config, body(net), progress=told, place=tmp_path / "s")
    assert told.said == ["resuming in epoch 5, step 1, of an earlier run"]
    assert changed(net, whole.state_dict()) == set()
    assert last.history == reference.history


def test_a_run_goes_on_within_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("pocketzoo.train.training_loop.SECONDS", 0.0)  # a snapshot a step

    class Cut(Arrays):
        steps = 0

        def of(self, parts):
            for batch in super().of(parts):
                self.steps += 1
                if self.steps == 11:
                    raise Killed
                yield batch

    config, data = TrainConfig(epochs=3, batch_size=8, learning_rate=0.01), toy()
    whole = Net()
    reference = trained(whole, config)
    with pytest.raises(Killed):
        trained(Net(), config, source=Cut(data.x, data.y), place=tmp_path / "s")
    net, told = Net(), Told()
    again = trained(net, config, progress=told, place=tmp_path / "s")
    assert told.said == ["resuming in epoch 2, step 3, of an earlier run"]
    assert changed(net, whole.state_dict()) == set()
    assert again.history == reference.history


@pytest.mark.slow
def test_fit_goes_on_in_either_phase(few, registry, tmp_path):
    settings = {"data": few, "epochs": 4, "training": {"head_epochs": 2, "unfreeze": "last:1"}, "registry": registry}
    whole = fit("tinynet", tmp_path / "whole", **settings)
    for label, epoch in (("fitting the head", 1), ("fine-tuning", 3)):
        with pytest.raises(Killed):
            fit("tinynet", tmp_path / "cut", progress=Told(label, epoch), **settings)
        assert (tmp_path / ".cut.run").is_dir()
    told = Told()
    again = fit("tinynet", tmp_path / "cut", progress=told, **settings)
    assert "resuming in epoch 4, step 1, of an earlier run" in told.said
    assert not (tmp_path / ".cut.run").exists()
    one, two = (load_file(b.file("model.safetensors")) for b in (whole, again))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert again.manifest.provenance["training"] == whole.manifest.provenance["training"]


def test_another_command_starts_anew(few, registry, tmp_path):
    with pytest.raises(Killed):
        fit("tinynet", tmp_path / "x", data=few, epochs=3, registry=registry, progress=Told("fitting the head", 2))
    told = Told()
    fit("tinynet", tmp_path / "x", data=few, epochs=2, registry=registry, progress=told)
    assert any("another command" in text for text in told.said)
    assert not any("resuming" in text for text in told.said)


# -- fine-tuning


def moved(bundle, registry) -> set[str]:
    """Names of a backbone's tensors that are not as they came."""
    saved, given = (
        load_file(bundle.file("model.safetensors")),
        read_weights(registry.get("backbone", "tinynet").weights),
    )
    return {name for name, value in given.items() if not torch.equal(value, saved[f"backbone.{name}"])}


def test_fine_tuning_moves_the_last_blocks_alone(few, registry, tmp_path):
    bundle = fit("tinynet", tmp_path / "x", data=few, epochs=2, unfreeze="last:1", registry=registry)
    assert moved(bundle, registry)
    assert all(name.startswith("stage2.0") for name in moved(bundle, registry))
    training = bundle.manifest.provenance["training"]
    assert (training["unfreeze"], len(training["val_accuracy"]), len(training["loss"])) == ("last:1", 2, 2)


def test_blocks_learn_though_the_first_image_is_broken(photos, registry, tmp_path):
    path = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    load_data(path).split("train").samples[0].write_bytes(b"broken")
    more = {"data": path, "epochs": 1, "skip_bad": True, "unfreeze": "last:1", "registry": registry}
    bundle = fit("tinynet", tmp_path / "model", **more)
    assert bundle.manifest.metrics["skipped"] == 1
    assert moved(bundle, registry)


def test_what_cannot_be_unfrozen_is_refused(few, registry, tmp_path, refused):
    with refused(RecipeError, "blocks, but the last 99", hint="all"):
        fit("tinynet", tmp_path / "x", data=few, unfreeze="last:99", registry=registry)
    with refused(RecipeError, "balanced means nothing for regression"):
        fit("tinynet", tmp_path / "x", data=few, head="regression", training={"balanced": True}, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_and_class_weights_train(few, registry, tmp_path):
    bundle = fit("tinynet", tmp_path / "x", data=few, epochs=6, registry=registry,
                 training={"precision": "bfloat16", "balanced": True, "label_smoothing": 0.1})  # fmt: skip
    assert bundle.manifest.metrics["test_accuracy"] > 0.6


# -- images are decoded ahead


def test_images_come_in_the_order_asked_for(photos, tmp_path):
    folder = photos(tmp_path / "p", {"a": 9})
    files = sorted((folder / "a").iterdir())
    spec = InputSpec(shape=("batch", 3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resize=8)
    source = Batches(Split(files, np.arange(9)), spec, size=2)
    one_by_one = [x for x, _ in arrays(source)]
    order = [[8, 1], [0], [3, 3, 7]]
    found = list(arrays(source.of(order)))
    assert [y.tolist() for _, y in found] == order
    whole = np.concatenate(one_by_one)
    assert all(np.array_equal(x, whole[rows]) for (x, _), rows in zip(found, order, strict=True))


# -- many processes

TRAINING = {"epochs": 4, "head_epochs": 2, "unfreeze": "last:1", "batch_size": 32, "optimizer": "sgd"}
LONGER = {**TRAINING, "epochs": 40, "head_epochs": 20}
SCRIPT = """
import sys
from pocketzoo.train.fit import fit
fit("tinynet", sys.argv[1], data=sys.argv[2], training={})
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does(few, tmp_path):
    np.savez(tmp_path / "few.npz", x=few.split("train").samples, y=few.split("train").targets)
    (tmp_path / "run.py").write_text(SCRIPT.format(TRAINING))

    fit("tinynet", tmp_path / "one", data=tmp_path / "few.npz", training=TRAINING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, tmp_path / "run.py", tmp_path / "two", tmp_path / "few.npz"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    worst = max(float((v.float() - two[k].float()).abs().max()) for k, v in one.items() if "running" not in k)
    # Batch norm of what learns sees half of a batch in each process.
    assert worst < 2e-2
    heads = {k: v for k, v in one.items() if k.startswith("head.")}
    assert all(torch.allclose(v, two[k], atol=2e-3) for k, v in heads.items())


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(few, tmp_path):
    np.savez(tmp_path / "few.npz", x=few.split("train").samples, y=few.split("train").targets)
    (tmp_path / "run.py").write_text(SCRIPT.format(LONGER))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, tmp_path / "run.py", tmp_path / out, tmp_path / "few.npz"]
        return subprocess.Popen(command, env=environment)

    fit("tinynet", tmp_path / "whole", data=tmp_path / "few.npz", training=LONGER)
    process, work = start("cut"), tmp_path / ".cut.run" / "training.safetensors"
    deadline = time.monotonic() + 600
    while not work.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(600)
    assert not Path(tmp_path / "cut").exists()
    assert start("cut").wait(600) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(v, two[k]) for k, v in one.items())


@pytest.mark.parametrize("frozen", [False, True])
def test_the_rate_that_is_noted_is_the_heads(frozen):
    """The backbone's blocks have groups of their own, before it, with lower ones."""
    net = Net()
    body = () if frozen else blocks(net.backbone, torch.zeros(2, 4))
    config = TrainConfig(
        epochs=2, batch_size=8, schedule="constant", learning_rate=0.02, unfreeze="none" if frozen else "all"
    )
    assert trained(net, config, body).history.rates == [0.02, 0.02]


def test_the_rate_falls_along_one_schedule_over_all_epochs(monkeypatch):
    rates = []
    monkeypatch.setattr(
        "pocketzoo.train.training_loop.set_rate",
        lambda optimizer, config, done, steps: rates.append((done, steps)),
    )
    trained(Net(), TrainConfig(epochs=3, batch_size=8, patience=None))
    steps = math.ceil(len(toy().x) / 8)
    assert rates == [(done, 3 * steps) for done in range(3 * steps)]
    assert steps > 1


# -- the loop, step by step


class Heard:
    """Progress that remembers what is gone through, and how long that was said to be."""

    def __init__(self) -> None:
        self.tracked: list[tuple[str, int | None, list[int]]] = []
        self.said: list[str] = []

    def track(self, items, label, total=None):
        seen: list[int] = []
        self.tracked.append((label, total, seen))
        for item in items:
            seen.append(item)
            yield item

    def say(self, text: str) -> None:
        self.said.append(text)


def constantly(out: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    """7 a sample, and nothing to learn from."""
    return 0 * out["logits"].sum() + 7.0 * len(y)


@pytest.mark.parametrize("first", [0, 2])
def test_a_phase_has_its_own_schedule_and_losses_are_means_of_an_epoch(first):
    net, heard = Net(), Heard()
    config = TrainConfig(epochs=first + 2, batch_size=8, learning_rate=0.5, schedule="linear")
    trainer = Trainer(config, constantly, count, ACCURACY, World(), None, heard)
    trainer.run(Phase(net, net.head, (), toy(), toy(seed=1), first, first + 2), 3)
    history = trainer.history
    assert heard.tracked == [("fitting the head", 2, [first, first + 1])]
    assert history.rates == pytest.approx([0.5 * (1 - 7 / 16), 0.5 * (1 - 15 / 16)])  # the last of 8 steps each
    assert history.losses == pytest.approx([7.0, 7.0])
    assert (history.phase, history.epoch, history.step) == (3, first + 2, 0)
    assert (history.loss, history.weight, history.stopped) == (0.0, 0.0, "")


def test_every_step_of_every_epoch_and_seed_has_chance_of_its_own():
    seeds: list[int] = []

    class Seeded(World):
        def seed(self, number: int) -> None:
            seeds.append(number)

    net, config = Net(), TrainConfig(epochs=2, batch_size=30, seed=5)
    trainer = Trainer(config, summed, count, ACCURACY, Seeded(), None, SILENT)
    trainer.run(Phase(net, net.head, (), toy(), toy(seed=1), 0, 2), 0)
    start = 5 * 1_000_003
    assert seeds == [(start + epoch) * 1_000_003 + step for epoch in (0, 1) for step in (0, 1)]


def test_patience_is_of_a_phase_and_only_the_last_one_ends_a_run_early():
    net, heard = Net(), Heard()
    body = blocks(net.backbone, toy().x[:2])[-1:]
    config = TrainConfig(epochs=9, batch_size=60, learning_rate=1e-9, patience=2, unfreeze="last:1", head_epochs=5)
    noted: list[tuple[int, int]] = []
    trainer = Trainer(config, summed, count, ACCURACY, World(), None, heard, lambda h: noted.append((h.phase, h.epoch)))
    trainer.run(Phase(net, net.head, (), toy(), toy(seed=1), 0, 5), 0)
    assert (trainer.history.epoch, trainer.history.stale, trainer.history.stopped) == (3, 2, "")
    trainer.run(Phase(net, net.head, body, toy(), toy(seed=1), 5, 9), 1)
    assert noted == [(0, 1), (0, 2), (0, 3), (1, 6), (1, 7)]
    assert trainer.history.stopped == "no improvement for 2 epochs"
    assert [(label, total) for label, total, _ in heard.tracked] == [("fitting the head", 5), ("fine-tuning", 4)]
    assert [items[0] for _, _, items in heard.tracked] == [0, 5]


def test_where_the_loss_ends_is_said_with_the_epoch_that_is_kept(refused):
    def failing(at: int):
        calls = 0

        def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return summed(out, y) * (math.nan if calls == at else 1.0)

        return loss

    heard = Heard()
    trained(Net(), TrainConfig(epochs=4, batch_size=30, learning_rate=1e-9), progress=heard, loss=failing(6))
    assert heard.said == ["stopped: the loss is not finite in epoch 3, step 2; the weights are those of epoch 1"]
    with refused(
        DataError,
        "the loss is not finite in epoch 1, step 2",
        hint="lower the learning rate, or check the data for NaN",
    ):
        trained(Net(), TrainConfig(epochs=4, batch_size=30), loss=failing(2))


def test_what_a_batch_is_made_of():
    net, x, y = Net(), torch.ones(3, 4), torch.tensor([0, 1, 1])
    phase, cpu = Phase(net, net.head, (), toy(), toy(), 0, 1), torch.device("cpu")
    same, ((share, targets),) = phase.batch({"x": x}, y, 3, cpu)
    assert (torch.equal(same["x"], x), share, torch.equal(targets, y)) == (True, 1.0, True)

    def augment(x: dict[str, torch.Tensor], y: torch.Tensor, count: int):
        return {"x": x["x"] * count}, [(0.25, y), (0.75, y + 1)]

    double, mixture = Phase(net, net.head, (), toy(), toy(), 0, 1, augment).batch({"x": x}, y, 5, cpu)
    assert torch.equal(double["x"], 5 * x)
    assert [(share, y.tolist()) for share, y in mixture] == [(0.25, [0, 1, 1]), (0.75, [1, 2, 2])]


@pytest.mark.parametrize(("rank", "calls", "right"), [(0, 3, 3 / 3), (1, 3, 1 / 2), (2, 3, 1 / 2)])
def test_all_processes_run_as_often_and_each_sample_counts_once(rank, calls, right):
    """7 samples, of which the processes have 3, 2 and 2, one at a time; nothing is summed here."""

    class One(World):
        def sum(self, value: torch.Tensor) -> torch.Tensor:
            return value

        def gather(self, value):
            return [value]

        def tell(self, value):
            return value

    class Counting(nn.Module):
        runs, modes = 0, ()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs, self.modes = self.runs + 1, (*self.modes, self.training)
            return x

    wrong = torch.tensor([0, 0, 1, 0, 1, 0, 0])  # of process 0: 0, 3 and 6; of 1: 1 and 4; of 2: 2 and 5
    source, model = Arrays(F.one_hot(wrong, 2).float(), torch.zeros(7, dtype=torch.long)), Counting().train()
    trainer = Trainer(TrainConfig(batch_size=1), summed, count, ACCURACY, One(rank, 3), None, SILENT)
    assert trainer.value(model, source) == right
    assert (model.runs, model.modes) == (calls, (False,) * calls)
    whole = Trainer(TrainConfig(batch_size=3), summed, count, ACCURACY, World(), None, SILENT)
    assert whole.value(model, source) == 5 / 7
    assert model.runs == calls + 3


def test_a_scorer_reads_what_the_model_does_not():
    """The model reads samples, and what scores it reads features."""
    net, val = Net(), toy(seed=1)
    with torch.no_grad():
        features = Arrays(net.backbone(val.x), val.y)
    config = TrainConfig(epochs=1, batch_size=8)
    trainer = Trainer(config, summed, count, ACCURACY, World(), None, SILENT)
    trainer.run(Phase(net, net.head, (), toy(), features, 0, 1, scorer=net.head), 0)
    assert trainer.history.scores == [trainer.value(net, val)]


@pytest.mark.parametrize(("saved_at", "due"), [(39.75, True), (40.0, False), (40.25, False), (100.0, False)])
def test_a_snapshot_is_due_after_a_minute(saved_at, due, monkeypatch):
    trainer = Trainer(TrainConfig(), summed, count, ACCURACY, World(), None, SILENT)
    monkeypatch.setattr("pocketzoo.train.training_loop.time.monotonic", lambda: 100.0)
    assert trainer._due(Net(), saved_at) is due


@pytest.mark.parametrize(
    ("samples", "size", "sizes"),
    [
        (64, 16, [16] * 4),
        (67, 16, [16, 16, 16, 19]),
        (68, 16, [16] * 4 + [4]),
        (18, 16, [18]),
        (3, 16, [3]),
        (4, 1, [1, 1, 1, 1]),
    ],
)
def test_a_quarter_of_a_batch_is_one_and_less_joins_the_last(samples, size, sizes):
    found = batches(samples, TrainConfig(batch_size=size, seed=2), 3)
    assert [len(part) for part in found] == sizes
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(2 * 1_000_003 + 3)).tolist()
    assert [i for part in found for i in part] == order


@pytest.mark.parametrize(
    ("targets", "classes", "wanted"),
    [([0, 0, 1, 3], 4, [2 / 3, 4 / 3, 4 / 3, 4 / 3]), ([1, 1], 2, [2.0, 1.0]), ([0, 1], 2, [1.0, 1.0]), ([], 1, [0.0])],
)
def test_what_a_sample_of_each_class_counts(targets, classes, wanted):
    found = class_weights(np.array(targets, np.int64), classes)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(wanted)


def test_a_phase_that_a_later_one_follows_is_not_run_again(tmp_path):
    net, config = Net(), TrainConfig(epochs=2, batch_size=30)
    body = blocks(net.backbone, toy().x[:2])
    place = tmp_path / "s"

    def phases(progress=SILENT) -> Trainer:
        trainer = Trainer(config, summed, count, ACCURACY, World(), place, progress)
        trainer.run(Phase(net, net.head, (), toy(), toy(seed=1), 0, 1), 0)
        trainer.run(Phase(net, net.head, body, toy(), toy(seed=1), 1, 2), 1)
        return trainer

    done = phases().history
    heard = Heard()
    assert phases(heard).history == done
    assert heard.said == ["resuming in epoch 3, step 1, of an earlier run"]
    assert heard.tracked == [("fine-tuning", 0, [])]
