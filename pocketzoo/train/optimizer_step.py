"""One optimizer step: gradients of a loss, clipped, and the update; in micro-batches where memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import TrainingError
from pocketzoo.core.progress import Progress
from pocketzoo.train.augment.mixed_targets import Wanted, sum_of
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.validation import TensorOutputs
from pocketzoo.zoo.modules.inputs import Axes, TensorInputs, call, rows_of
from pocketzoo.zoo.modules.outputs import outputs_of

if TYPE_CHECKING:
    from pocketzoo.train.distributed.process_group import World


class OptimizerStep:
    """The step of everything that is trained here: ``fit``, distillation and agents differ in their losses only."""

    def __init__(
        self, clip: float | None = None, world: World | None = None, scaler: torch.amp.GradScaler | None = None
    ) -> None:
        """``clip`` is the maximum norm of all gradients together; ``scaler`` scales losses in half precision."""
        self.clip, self.world = clip, world
        self.scaler = scaler or torch.amp.GradScaler(enabled=False)

    def __call__(self, optimizer: torch.optim.Optimizer, losses: Iterable[Tensor]) -> float:
        """Step on the sum of ``losses``, and return it. A step whose loss is not finite is not taken."""
        total = self.gradients(optimizer, losses)
        if math.isfinite(total):
            self.update(optimizer)
        return total

    def gradients(
        self, optimizer: torch.optim.Optimizer, losses: Iterable[Tensor], scale: Tensor | float = 1.0
    ) -> float:
        """Compute the gradients of ``scale`` times the sum of ``losses``, one loss after the other.

        Returns:
            The sum, unscaled, over all processes.
        """
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=None if self.world is None else self.world.device)
        for loss in losses:
            total += loss.detach().double()
            self.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
        return float(total if self.world is None else self.world.sum(total))

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients and let the optimizer step."""
        self.scaler.unscale_(optimizer)
        if self.clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        self.scaler.step(optimizer)
        self.scaler.update()


class MicroBatchStep:
    """Steps on batches of ``fit``. All processes of a world take the same one, each on its part of the batch."""

    def __init__(
        self,
        config: TrainConfig,
        loss: Callable[[TensorOutputs, Tensor], Tensor],
        weigh: Callable[[Tensor], Tensor],
        world: World,
        progress: Progress,
    ) -> None:
        """``loss`` is summed over a batch, ``weigh`` gives what it is divided by."""
        self.config, self.loss, self.weigh, self.world, self.progress = config, loss, weigh, world, progress
        self.at_once = config.batch_size  # samples that go through the model together
        scaler = torch.amp.GradScaler(enabled=config.precision == "float16" and world.device.type == "cuda")
        self.optimizer_step = OptimizerStep(config.clip, world, scaler)

    def __call__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        x: TensorInputs,
        targets: Wanted,
        axes: Axes | None = None,
    ) -> tuple[float, float]:
        """Step on a batch on the device: its summed loss over all processes, and the weight that is divided by.

        ``axes`` has the axis of each input that counts samples, where it is not the first.

        A step whose loss is not finite is not taken. Where memory runs out for the batch it goes through in halves,
        whose gradients are summed.

        Raises:
            TrainingError: not even one sample at a time fits into memory.
        """
        weight = self.world.sum(sum_of(targets, self.weigh).double())
        # The gradients of all processes are averaged; those of all samples are to be summed.
        scale = (self.world.size / weight).float()
        while True:
            try:
                total = self.optimizer_step.gradients(optimizer, self._losses(model, x, targets, axes), scale)
                break
            except RuntimeError as error:
                if not _no_memory(error) or self.world.size > 1:
                    raise
                self.at_once = min(self.at_once, len(targets[0][1])) // 2
                if not self.at_once:
                    raise TrainingError("out of memory for a single sample", "use a smaller backbone") from error
            self.progress.say(f"out of memory: continuing with {self.at_once} samples at a time")
        if math.isfinite(total):
            self.optimizer_step.update(optimizer)
        return total, float(weight)

    def _losses(self, model: nn.Module, x: TensorInputs, targets: Wanted, axes: Axes | None) -> Iterator[Tensor]:
        """The summed loss of each micro-batch."""
        for start in range(0, len(targets[0][1]), self.at_once):
            part = slice(start, start + self.at_once)
            with self.arithmetic():
                out = {name: each.float() for name, each in outputs_of(call(model, rows_of(x, part, axes))).items()}
                loss = sum_of([(share, y[part]) for share, y in targets], lambda y, out=out: self.loss(out, y))  # type: ignore[misc]
            yield loss

    def arithmetic(self) -> AbstractContextManager[Any]:
        """What the model is to run in."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, getattr(torch, self.config.precision))


def _no_memory(error: RuntimeError) -> bool:
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
