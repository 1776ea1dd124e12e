"""A metric as it was measured: what it is called, its value and interval, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pocketzoo.core.renamed import ReadByKey
from pocketzoo.zoo.catalog.task import Estimate, MetricSpec


def key_of(name: str) -> str:
    """A metric's name as part of a key."""
    return name.replace(" ", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue(ReadByKey):
    """A value of a task's metric, as rows of a bench and reports of steps keep it."""

    name: str
    value: float
    low: float | None = None  # the interval of 95%; None where none is known
    high: float | None = None
    higher_is_better: bool = True
    unit: str = ""  # "" for a fraction of 0 to 1

    @classmethod
    def of(cls, metric: MetricSpec, estimate: Estimate) -> MetricValue:
        """What was measured of a metric."""
        return cls(
            name=metric.name,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            higher_is_better=metric.higher_is_better,
            unit=metric.unit,
        )

    def loss(self, other: float) -> float:
        """How much worse than this ``other`` is; below 0 where it is better."""
        return self.value - other if self.higher_is_better else other - self.value

    def beats(self, other: float) -> bool:
        """Whether it is better than a value, by the whole of its interval where one is known."""
        end = self.low if self.higher_is_better else self.high
        return self.loss(other) > 0 if end is None else replace(self, value=end).loss(other) > 0

    @property
    def key(self) -> str:
        """Its name as part of a key: "mean average precision" is "mean_average_precision"."""
        return key_of(self.name)

    @property
    def titled(self) -> str:
        """Its name with its unit, where it has one: "angular error, degrees"."""
        return f"{self.name}, {self.unit}" if self.unit not in ("", "number") else self.name

    @property
    def worsens(self) -> str:
        """What it does where a model gets worse: "falls", or "rises"."""
        return "falls" if self.higher_is_better else "rises"

    def shown(self, value: float) -> str:
        """A value of this metric, for people: fractions in percent, others with their unit."""
        return f"{value:.1%}" if not self.unit else f"{value:.4g} {self.unit}".removesuffix(" number")
