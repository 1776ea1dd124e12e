"""What a bundle keeps of each compression step: who took it, its plan, what was measured, and what was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pocketzoo.core.errors import BundleError
from pocketzoo.core.names import RULE, is_name
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.compressor import LayerDecision

# Why a step was rejected; "": a bundle of before does not say.
Cause = Literal["", "floor", "unchanged", "budget", "larger", "slower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A number before a step and after it."""

    before: int | float
    after: int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """The metric of the model's task before a step and after it, on validation samples."""

    name: str  # "accuracy"
    before: int | float
    after: int | float
    low: float | None = None  # the interval of 95% of the latter; None where none is known
    high: float | None = None
    higher_is_better: bool = True
    unit: str = ""  # "" for a fraction of 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationReport:
    """What a step made of the generation graphs for one target."""

    bytes: Change  # of all of them together
    texts: int = 0  # that both wrote
    tokens: int = 0  # of those
    agreement: float | None = None  # fraction of the tokens that are the same, 0-1
    same_texts: float | None = None  # fraction of the texts, 0-1
    latency: Change | None = None  # milliseconds a token; None for what does not run here
    why: str = ""  # they are left in float for this target, and why
    cause: Cause = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationScores:
    """The scores of a step's report again, on the samples that it was calibrated on, as far as they were measured.

    What is better here than there was learned by heart.
    """

    samples: int
    sources: int  # that they are of, such as photos that crops were cut from
    metric: float | None = None
    agreement: float | None = None  # 0-1
    sqnr: float | None = None  # dB; None where nothing differs


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What was measured of a step. None: it was not, or does not apply."""

    seconds: float | None = None  # that the step took
    parameters: Change | None = None  # of the module
    macs: Change | None = None  # multiply-accumulates for one sample
    bytes: Change | None = None  # of the graph
    latency: Change | None = None  # milliseconds for one sample, the median; both graphs timed in turn
    latency_of: str = ""  # "int8 for cpu": what was timed in place of the float graph
    metric: MetricChange | None = None
    agreement: Change | None = None  # fraction of the answers that are the source's, 0-1
    sqnr: float | None = None  # dB against the source, of the worst output
    outputs: Mapping[str, float | None] = field(default_factory=dict)  # the same of each output; None: it is equal
    differing: Mapping[str, float] = field(default_factory=dict)  # fraction of values, of outputs without a distance
    # Outputs whose length depends on the data -> the operator that selects them, before which they are compared,
    selected_by: Mapping[str, str] = field(default_factory=dict)
    same_selection: Mapping[str, float] = field(default_factory=dict)  # and how far the same is selected, 0-1
    held: tuple[str, ...] = ()  # the outputs that ``sqnr`` is the worst of, and the floor is for; () is all
    sqnr_against_float: float | None = None  # dB against the float graph that the step began with
    samples: int = 0  # of the validation split, that the scores are of
    sources: int = 0  # that those are of, where no sample of them was calibrated on; 0: some were, or nobody looked
    calibration: CalibrationScores | None = None  # of the last step: what all steps made
    # That a budget, or the floor, leaves in float -> what each costs,
    float_layers: Mapping[str, str] = field(default_factory=dict)
    float_why: str = ""  # and what the step did not meet without
    # By target, every layer that the graph has in float, at any depth -> why.
    in_float: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    generation: Mapping[str, GenerationReport] = field(default_factory=dict)  # by target
    rejected: tuple[Rejection, ...] = ()  # what was tried before this was accepted, or for other targets


@renamed(kind="compressor")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A step that was tried and left out, for one target or for all."""

    compressor: str
    provider: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    why: str
    cause: Cause = ""
    target: str = ""  # "" where it was left out altogether
    report: StepReport = StepReport()
    # Layers that are to blame, and what it gains and costs to leave each in float: with all of them there it is kept.
    float_layers: Mapping[str, str] = field(default_factory=dict)
    way_out: str = ""  # what brings it back
    tried: tuple[Rejection, ...] = ()  # all that was tried, where less and less of it was


@renamed(kind="compressor", parts="graphs")
@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One compression step that was taken: replaying ``plan`` gives the structure the weights fit.

    ``graphs`` are the plans for the other graphs of a model that runs in several, by name. ``tensors`` are files with
    what of the plans is no plain data: "" is the plan's own, others are of a graph. They are named by position.
    """

    compressor: str
    provider: str = ""  # distribution and version of the plugin: "acme-cluster 1.2.0"; "" where nobody noted it
    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    plan_version: int = 1  # as the compressor counts them
    graphs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[LayerDecision, ...] = ()  # what the compressor says of its plan, layer by layer
    report: StepReport = StepReport()


def tensors_name(position: int, part: str = "") -> str:
    """File name of the tensors that the step at ``position`` (from 0) computed: with them its plan can be applied.

    Raises:
        BundleError: the part, which a manifest names, is not a name; see ``core.names``.
    """
    if part and not is_name(part):
        raise BundleError(f"{part!r} cannot be part of a file's name", RULE)
    return f"step-{position + 1}.{part}.tensors.safetensors" if part else f"step-{position + 1}.tensors.safetensors"
