"""The training loop: epochs, a snapshot after each, early stopping, and the best weights in the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import Progress
from pocketzoo.train.augment.mixed_targets import Wanted
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.epoch_scores import EpochScores
from pocketzoo.train.optimizer_step import MicroBatchStep
from pocketzoo.train.optimizers import build_optimizer, set_rate
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.snapshot import SnapshotFile
from pocketzoo.train.sources import Source
from pocketzoo.train.trainable_parameters import Learning
from pocketzoo.train.validation import TensorOutputs, Validation
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock
from pocketzoo.zoo.modules.inputs import TensorInputs, call, to_device
from pocketzoo.zoo.modules.outputs import outputs_of

SECONDS = 60.0  # between two snapshots within an epoch
STEPS = 1_000_003  # more than an epoch has, so that no two steps have the same seed


@dataclass(frozen=True)
class Phase:
    """Some epochs in which the same parts learn."""

    model: nn.Module  # reads a batch of the source
    head: nn.Module
    body: Sequence[BackboneBlock]  # of the backbone, that learn too
    train: Source
    val: Source
    first: int  # the epochs it has: from this one
    last: int  # to before this one
    # Makes of a process's part of a batch, its targets and the samples of the whole batch what is learned from.
    augment: Callable[[TensorInputs, Tensor, int], tuple[TensorInputs, Wanted]] | None = None
    scorer: nn.Module | None = None  # reads a batch of ``val``, where that is not what the model reads

    def batch(self, x: TensorInputs, y: Tensor, count: int, device: torch.device) -> tuple[TensorInputs, Wanted]:
        """What is learned from, of a process's part of a batch of ``count``."""
        x, y = to_device(x, device), y.to(device)
        return self.augment(x, y, count) if self.augment else (x, [(1.0, y)])


@dataclass
class History(EpochScores):
    """How far a run is, and how it went; ``stale`` is of this phase alone.

    Scores are of the validation split: the metric, or what is to be made greatest where less of it is better, minus it.
    """

    phase: int = 0
    step: int = 0  # the next one of ``epoch``
    losses: list[float] = field(default_factory=list)  # mean over the samples of each epoch
    rates: list[float] = field(default_factory=list)  # the head's, at the end of each epoch
    stopped: str = ""  # why it ended before its last epoch
    loss: float = 0.0  # of the epoch at hand, summed, and
    weight: float = 0.0  # what it is divided by


class Trainer:
    """Runs phases one after the other, and resumes where an earlier run was stopped."""

    def __init__(
        self,
        config: TrainConfig,
        loss: Callable[[TensorOutputs, Tensor], Tensor],
        weigh: Callable[[Tensor], Tensor],
        validation: Validation,
        world: World,
        place: Path | None,
        progress: Progress,
        note: Callable[[History], None] | None = None,
    ) -> None:
        """``loss`` is summed over a batch, ``weigh`` gives what it is divided by; snapshots are kept at ``place``.

        ``note`` is told of every finished epoch.
        """
        self.config, self.validation = config, validation
        self.world, self.progress, self.note = world, progress, note
        self.step = MicroBatchStep(config, loss, weigh, world, progress)
        self.snapshot = SnapshotFile(place, world=world)
        self.history = self.snapshot.record(History) or History()

    def run(self, phase: Phase, number: int) -> None:
        """Train ``phase.model`` in place; it ends with the weights of the epoch with the best score.

        Raises:
            DataError: the loss was not finite before an epoch was finished.
            TrainingError: not even one sample at a time fits into memory.
        """
        history, snapshot = self.history, self.snapshot
        if snapshot.stored is not None and history.phase > number:
            return  # the later phase's snapshot has all that this one learned
        learning = Learning(phase.model, phase.head, phase.body)
        learning.begin()
        optimizer = build_optimizer(phase.head, phase.body, self.config)
        steps = len(batches(len(phase.train), self.config, 0))
        best = learning.state()
        if history.phase == number and snapshot.load(model=learning, best=best, optimizer=optimizer):
            self.progress.say(f"resuming in epoch {history.epoch + 1}, step {history.step + 1}, of an earlier run")
        else:
            history.phase, history.epoch, history.step, history.stale = number, phase.first, 0, 0
        model = self.world.spread(phase.model)
        saved_at = time.monotonic()
        remaining = range(history.epoch, phase.last)
        for epoch in self.progress.track(
            remaining, "fine-tuning" if phase.body else "fitting the head", len(remaining)
        ):
            if history.stopped or (self.config.patience is not None and history.stale >= self.config.patience):
                break
            learning.begin()
            order = batches(len(phase.train), self.config, epoch)[history.step :]
            for rows, (x, y, _) in zip(order, phase.train.of(map(self.world.share, order)), strict=False):
                done = (epoch - phase.first) * steps + history.step
                set_rate(optimizer, self.config, done, (phase.last - phase.first) * steps)
                self.world.seed((self.config.seed * STEPS + epoch) * STEPS + history.step)
                batch = phase.batch(x, y, len(rows), self.world.device)
                loss, weight = self.step(model, optimizer, *batch, phase.train.axes)
                if not math.isfinite(loss):
                    self._diverged(epoch, history.step)
                    break
                history.loss, history.weight, history.step = (
                    history.loss + loss,
                    history.weight + weight,
                    history.step + 1,
                )
                if history.step < steps and self._due(phase.model, saved_at):
                    self._keep(learning, best, optimizer)
                    saved_at = time.monotonic()
            if history.stopped:
                break
            self.world.agree(phase.model)
            score = self.validation.sign * self.value(phase.scorer or phase.model, phase.val)
            if self._close(epoch, score, optimizer.param_groups[-1]["lr"]):
                best.update(learning.state())
            self._keep(learning, best, optimizer)
            saved_at = time.monotonic()
        if not history.stopped and history.epoch < phase.last == self.config.epochs:
            history.stopped = f"no improvement for {history.stale} epochs"
        learning.load(best)
        phase.model.eval()

    def value(self, model: nn.Module, source: Source) -> float:
        """The metric of a model on a source."""
        return self.estimate(model, source).value

    def estimate(self, model: nn.Module, source: Source) -> Estimate:
        """The same with its interval."""
        return self.validation.task.headline(self.results(model, source))

    def results(self, model: nn.Module, source: Source) -> Mapping[str, Estimate]:
        """All metrics of a model on a source: each process scores its part."""
        model.eval()
        rows, size, world = range(len(source)), self.config.batch_size, self.world
        own = world.share(rows)
        parts = [own[i : i + size] for i in range(0, len(own), size)]
        # All run as often as the first: a sharded model runs on all processes at once. What is too much counts nothing.
        spare = [rows[:1]] * (-(-len(rows[:: world.size]) // size) - len(parts))
        metric = self.validation.empty()
        with torch.no_grad(), self.step.arithmetic():
            for i, (x, y, inputs) in enumerate(source.of([*parts, *spare])):
                outputs = outputs_of(call(model, to_device(x, world.device)))
                if i < len(parts):
                    self.validation.update(metric, outputs, y, inputs)
        first, *others = world.gather(metric)
        for other in others:
            first.merge(other)
        return first.result()

    def _close(self, epoch: int, score: float, rate: float) -> bool:
        """Note a finished epoch; whether it is the best."""
        history = self.history
        better = history.note(epoch, score)
        history.losses.append(history.loss / history.weight)
        history.rates.append(rate)
        history.step, history.loss, history.weight = 0, 0.0, 0.0
        if self.note is not None:
            self.note(history)
        return better

    def _due(self, model: nn.Module, saved_at: float) -> bool:
        """Whether it is time for a snapshot. Of a sharded model all processes make it, so the first decides."""
        due = time.monotonic() - saved_at > SECONDS
        return bool(self.world.tell(due)) if isinstance(model, FSDPModule) else due

    def _keep(self, learning: Learning, best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        if isinstance(learning.model, FSDPModule) or self.snapshot.place is not None:
            self.snapshot.keep(self.history, model=learning, best=best, optimizer=optimizer)

    def _diverged(self, epoch: int, step: int) -> None:
        """Stop where the loss is not finite; the best epoch before counts, if there is one."""
        where = f"the loss is not finite in epoch {epoch + 1}, step {step + 1}"
        if not self.history.scores:
            raise DataError(where, "lower the learning rate, or check the data for NaN")
        self.history.stopped = where
        self.progress.say(f"stopped: {where}; the weights are those of epoch {self.history.best_epoch + 1}")


def batches(count: int, config: TrainConfig, epoch: int) -> list[Sequence[int]]:
    """The batches of an epoch: every sample once, in an order that seed and epoch decide.

    What is left over is a batch if it is a quarter of one; less joins the last, as batch norm needs company.
    """
    generator = torch.Generator().manual_seed(config.seed * STEPS + epoch)
    rows, size = torch.randperm(count, generator=generator).tolist(), config.batch_size
    parts: list[Sequence[int]] = [rows[i : i + size] for i in range(0, count, size)]
    if len(parts) > 1 and len(parts[-1]) * 4 < size:
        parts[-2:] = [[*parts[-2], *parts[-1]]]
    return parts
