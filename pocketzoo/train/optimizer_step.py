"""One optimizer step on a batch, split into micro-batches where memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import TrainingError
from pocketzoo.core.progress import Progress
from pocketzoo.train.augment.mixed_targets import Wanted, sum_of
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.settings import TrainConfig


class Stepper:
    """Takes steps. All processes of a world take the same one, each on its part of the batch."""

    def __init__(
        self,
        config: TrainConfig,
        loss: Callable[[Tensor, Tensor], Tensor],
        weigh: Callable[[Tensor], Tensor],
        world: World,
        progress: Progress,
    ) -> None:
        """``loss`` is summed over a batch, ``weigh`` gives what it is divided by."""
        self.config, self.loss, self.weigh, self.world, self.progress = config, loss, weigh, world, progress
        self.at_once = config.batch_size  # samples that go through the model together
        self.scaler = torch.amp.GradScaler(enabled=config.precision == "float16" and world.device.type == "cuda")

    def __call__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, wanted: Wanted
    ) -> tuple[float, float]:
        """Step on a batch on the device: its summed loss over all processes, and the weight that is divided by.

        A step whose loss is not finite is not taken. Where memory runs out for the batch it goes through in halves,
        whose gradients are summed.

        Raises:
            TrainingError: not even one sample at a time fits into memory.
        """
        weight = self.world.sum(sum_of(wanted, self.weigh).double())
        while True:
            optimizer.zero_grad()
            total = torch.zeros((), dtype=torch.float64, device=self.world.device)
            try:
                for start in range(0, len(x), self.at_once):
                    part = slice(start, start + self.at_once)
                    with self.arithmetic():
                        out = model(x[part]).float()
                        loss = sum_of([(share, y[part]) for share, y in wanted], lambda y, out=out: self.loss(out, y))  # type: ignore[misc]
                    total += loss.detach().double()
                    # The gradients of all processes are averaged; those of all samples are to be summed.
                    self.scaler.scale(loss * (self.world.size / weight).float()).backward()  # type: ignore[no-untyped-call]
                break
            except RuntimeError as error:
                if not _no_memory(error) or self.world.size > 1:
                    raise
                self.at_once = min(self.at_once, len(x)) // 2
                if not self.at_once:
                    raise TrainingError("out of memory for a single sample", "use a smaller backbone") from error
            self.progress.say(f"out of memory: continuing with {self.at_once} samples at a time")
        total = self.world.sum(total)
        if math.isfinite(float(total)):
            self.scaler.unscale_(optimizer)
            if self.config.clip is not None:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
            self.scaler.step(optimizer)
            self.scaler.update()
        return float(total), float(weight)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """What the model is to run in."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, getattr(torch, self.config.precision))


def _no_memory(error: RuntimeError) -> bool:
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
