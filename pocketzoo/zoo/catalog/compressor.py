"""The types of compressors: those that work on the torch module and those on the graph. No heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.specs import TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from torch import nn

    from pocketzoo.core.arrays import Arrays
    from pocketzoo.core.progress import Progress

Samples = Iterable["Arrays"]  # batches of the model's inputs, by name and in its order; iterable more than once
C = TypeVar("C")
P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class _Named(Generic[C, P]):
    name: str  # the word a recipe uses: "low-rank"
    summary: str
    config: type[C]
    plan_type: type[P]

    def read_plan(self, data: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> P:
        """A plan as it was saved in a bundle, with the tensors that were saved alongside it."""
        from pocketzoo.core.typed import from_plain

        plan: Any = from_plain(self.plan_type, data)
        whole: P = replace(plan, tensors=tensors) if tensors else plan
        return whole


@dataclass(frozen=True)
class Distillation:
    """What a step that trains (``ModuleCompressor.distill``) gets besides the module and its plan."""

    teacher: nn.Module  # the model the recipe began with; not to be changed
    folder: Path  # for work in progress: it is still there when a killed run is started again
    progress: Progress


Lesson = Distillation  # the name of the previous release


@renamed(teach="distill")
@dataclass(frozen=True, kw_only=True)
class ModuleCompressor(_Named[C, P]):
    """Works on the torch module. ``plan`` decides and changes nothing; ``apply`` returns a new module.

    ``apply`` gets samples when it compresses, and None when a saved plan is replayed on loading: then only the
    structure matters, and the saved weights must fit it.
    """

    form: ClassVar[Literal["module"]] = "module"
    # ``weaker(config, 0.5)`` removes half as much, ``weaker(config, 1.0)`` as much as was asked: to meet a budget.
    weaker: Callable[[C, float], C] | None = None
    plan: Callable[[nn.Module, C, Samples, TargetSpec], P]
    apply: Callable[[nn.Module, P, Samples | None], nn.Module]
    # In place of ``apply`` when it compresses: trains on the outputs of the model the recipe began with, to win back
    # what the step before it lost. A budget is held after both.
    distill: Callable[[nn.Module, P, Samples, Distillation], nn.Module] | None = None


@dataclass(frozen=True, kw_only=True)
class GraphCompressor(_Named[C, P]):
    """Works on the ONNX graph. The plan is common to all targets; ``apply`` encodes it for one.

    A plan may have a field ``tensors``, name -> array, declared with
    ``metadata={"separate": True}``: what takes samples
    to compute and is too large for a manifest. The bundle keeps it in a safetensors file of the compressor's name.
    """

    form: ClassVar[Literal["graph"]] = "graph"
    precision: str = "float32"  # what most of its weights are stored in
    # Whether graphs may have several inputs: then generation graphs are compressed as well.
    several_inputs: bool = False
    plan: Callable[[onnx.ModelProto, C, Samples], P]
    apply: Callable[[onnx.ModelProto, P, TargetSpec], onnx.ModelProto]
    # A plan in a fraction of the time, whose graph is as fast and need not be as accurate: what steps before it are
    # timed by. None: ``plan`` itself.
    sketch: Callable[[onnx.ModelProto, C, Samples], P] | None = None


Compressor = ModuleCompressor[Any, Any] | GraphCompressor[Any, Any]
