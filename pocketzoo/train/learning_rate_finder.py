"""Learning-rate finder: increase the rate until the loss diverges (Smith 2015, arXiv:1506.01186)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.train.distributed.process_group import joined
from pocketzoo.train.model_for_data import asked_for, task_of
from pocketzoo.train.optimizers import build_optimizer
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.train.trainable_parameters import Learning
from pocketzoo.train.training_loop import STEPS, Phase, Trainer, batches
from pocketzoo.train.transfer_learning import Transfer
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import processor_entries
from pocketzoo.zoo.models.resolver import Resolver

LOW, HIGH = 1e-6, 10.0  # the rates it starts and ends with
SMOOTH = 0.9  # fraction of the mean so far in the next one
WORSE = 4.0  # times the smallest loss, where it ends


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Losses by rate, as far as the sweep came."""

    rates: tuple[float, ...]  # of the head
    losses: tuple[float, ...]  # of each step's batch, before the step
    smoothed: tuple[float, ...]

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply over the logarithm of the rate.

        The first tenth, where the mean is of few losses, and the last five steps, where it blows up, do not count.

        Raises:
            DataError: it falls at no rate.
        """
        first, last = len(self.rates) // 10, len(self.rates) - 5
        slopes = {
            i: (self.smoothed[i + 1] - self.smoothed[i - 1]) / math.log(self.rates[i + 1] / self.rates[i - 1])
            for i in range(max(first, 1), last)
        }
        if not slopes or min(slopes.values()) > -1e-6 * max(self.smoothed):
            raise DataError("the loss falls at no learning rate", "check the data, or use more steps")
        return self.rates[min(slopes, key=lambda i: slopes[i])]


def find_rate(
    backbone: str,
    *,
    data: str | Path | Dataset | None,
    head: str = "linear",
    head_options: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    cut: str = "",
    input_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    unfreeze: str | None = None,
    seed: int | None = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    steps: int = 100,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> RateCurve:
    """Sweep the head's learning rate on what ``fit`` would train first with the same arguments; nothing is written.

    Unfrozen blocks are trained at their fraction of the rate, as in ``fit``.

    Raises:
        PocketzooError: as ``fit``.
        DataError: also where the head has nothing to learn.
    """
    config = with_settings(training, batch_size=batch_size, unfreeze=unfreeze, seed=seed)
    resolver = Resolver.of(registry)
    asked = asked_for(backbone, head, head_options, backbone_options, cut, input_size, resolver)
    task = task_of(asked, data, config, resolver, None, progress)
    reads = processor_entries(task.parts.backbone.input, resolver.registry)
    with joined() as world:
        run = Transfer(
            task.model,
            task.parts,
            task.task,
            task.training,
            task.dataset,
            task.ref.outputs,
            task.config,
            digest=task.dataset.digest(),
            code=[*plugin_sources(resolver.registry, asked.entry, *reads), task.parts.backbone],
            world=world,
            progress=world.heard(progress),
        )
        _, phase = next(run.phases())
        return sweep(run.trainer, phase, steps)


def sweep(trainer: Trainer, phase: Phase, steps: int = 100, low: float = LOW, high: float = HIGH) -> RateCurve:
    """``steps`` steps at rates from ``low`` to ``high``, evenly over their logarithm; then all is as it was.

    It ends early where the smoothed loss is four times its least, or is not finite.
    """
    config, world = trainer.config, trainer.world
    learning = Learning(phase.model, phase.head, phase.body)
    before = learning.state()
    learning.begin()
    optimizer = build_optimizer(phase.head, phase.body, config)
    model = world.spread(phase.model)
    order = list(islice(_forever(len(phase.train), config), steps))
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    ordered = zip(order, phase.train.of(map(world.share, order)), strict=False)
    for step, (rows, (x, y, _)) in enumerate(trainer.progress.track(ordered, "increasing the learning rate", steps)):
        rate = low * (high / low) ** (step / max(steps - 1, 1))
        for group in optimizer.param_groups:
            group["lr"] = group["highest"] / config.learning_rate * rate
        world.seed(config.seed * STEPS + step)
        batch = phase.batch(x, y, len(rows), world.device)
        total, weight = trainer.step(model, optimizer, *batch, phase.train.axes)
        mean = SMOOTH * mean + (1 - SMOOTH) * total / weight
        level = mean / (1 - SMOOTH ** (step + 1))  # as if it had not begun at 0 (arXiv:1412.6980, section 3)
        if not math.isfinite(level) or (smoothed and level > WORSE * min(smoothed)):
            break
        rates.append(rate)
        losses.append(total / weight)
        smoothed.append(level)
    learning.load(before)
    phase.model.eval()
    return RateCurve(tuple(rates), tuple(losses), tuple(smoothed))


def _forever(samples: int, config: TrainConfig) -> Iterator[Sequence[int]]:
    for epoch in count():
        yield from batches(samples, config, epoch)
