"""What a model in training is worth: its task's metrics, merged over processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.open_task import GuardedMetric, ModelTask

TensorOutputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """Scores outputs by a task. Where less is better, ``sign`` is -1: ``sign`` times the value is to be greatest."""

    task: ModelTask

    @property
    def name(self) -> str:
        """What the metric is called."""
        return self.task.metric.name

    @property
    def sign(self) -> float:
        """1, or -1 where less is better."""
        return 1.0 if self.task.metric.higher_is_better else -1.0

    def empty(self) -> GuardedMetric:
        """The metric before anything is scored."""
        return self.task.scores()

    def update(self, metric: GuardedMetric, outputs: TensorOutputs, targets: Tensor, inputs: Arrays) -> None:
        """Take in the outputs for some samples; ``inputs`` are what the model read for them."""
        arrays = {name: out.detach().float().cpu().numpy() for name, out in outputs.items()}
        metric.update(self.task.answers(arrays, inputs), targets.cpu().numpy())

    def estimate(self, metric: GuardedMetric) -> Estimate:
        """The value that the model is judged by."""
        return self.task.headline(metric.result())
