"""The types of compressors: those that work on the torch module and those on the graph. No heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pocketzoo.core.errors import PluginError
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.specs import Fp8Encoding, TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from torch import nn

    from pocketzoo.core.arrays import Arrays
    from pocketzoo.core.progress import Progress
    from pocketzoo.zoo.catalog.backend import GraphTimer

Samples = Iterable["Arrays"]  # batches of the model's inputs, by name and in its order; iterable more than once
# What samples a step can do with where there are no real ones: any of the right form (ranges are found on them), only
# such as resemble those of training (weights are fitted to them), or none.
SyntheticUse = Literal["any", "resembling", "none"]
BUDGETS = frozenset({"min_sqnr", "max_drop"})  # fields of configs that hold a step to one: dB, fraction of the metric
C = TypeVar("C")
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a recipe: the registered name of the compressor that takes it, and the config it takes it with.

    In Python a bare config stands for the step where exactly one registered compressor declares its type.
    """

    compressor: str
    config: Any = None  # None: the compressor's own config with its defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """What a plan does to one layer, as the compressor says it: for dry runs, reports, and searches under a budget."""

    layer: str  # by its name in the graph: a weight's without ".weight"
    what: str  # "out 64 -> 45", "16 values", "stays dense"
    why: str = ""  # it stays as it is, and why; "" for one that is compressed
    precision: str = ""  # what the plan stores its weight in: "int8"; "": as it was. Only these can be excluded
    # Targets that have it in floats all the same, and why.
    floats: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class _Named(Generic[C, P]):
    name: str  # the word a recipe uses: "low-rank"
    summary: str
    config: type[C]
    plan_type: type[P]
    # Count up when the plan's fields change their meaning: a bundle says which version it has, and a newer one is
    # refused. ``upgrade(plan, version)`` turns the plain data of an older one into those of today.
    plan_version: int = 1
    upgrade: Callable[[Mapping[str, Any], int], Mapping[str, Any]] | None = None
    # ``weaker(config, 0.5)`` removes half as much, ``weaker(config, 1.0)`` as much as was asked: to meet a budget.
    weaker: Callable[[C, float], C] | None = None
    # What a plan does, layer by layer: shown by --dry-run and the report, and kept in the bundle.
    describe: Callable[[P], Iterable[LayerDecision]] | None = None
    synthetic: SyntheticUse = "none"  # what of samples that were made up it takes (``compress --data none``)

    @property
    def budgets(self) -> frozenset[str]:
        """Which of ``BUDGETS`` its config has a field for."""
        return BUDGETS & {field.name for field in fields(self.config)}  # type: ignore[arg-type]

    def decisions(self, plan: P) -> tuple[LayerDecision, ...]:
        """What the compressor says of a plan; () where it says nothing."""
        return tuple(self.describe(plan)) if self.describe is not None else ()

    def read_plan(
        self, data: Mapping[str, Any], tensors: Mapping[str, Any] | None = None, version: int | None = None
    ) -> P:
        """A plan as it was saved in a bundle, of an older version too, with the tensors saved alongside it."""
        from pocketzoo.core.typed import from_plain

        if self.upgrade is not None and version is not None and version < self.plan_version:
            data = self.upgrade(data, version)
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
    plan: Callable[[nn.Module, C, Samples, TargetSpec], P]
    apply: Callable[[nn.Module, P, Samples | None], nn.Module]
    # Whether ``plan`` is also given ``shipped``: what makes of a float graph that which a step on the graph will make
    # for the target, its numbers only roughly, and which is to be timed in its place; None where no such step is.
    times_shipped: bool = False
    # In place of ``apply`` when it compresses: trains on the outputs of the model the recipe began with, to win back
    # what the step before it lost. A budget is held after both.
    distill: Callable[[nn.Module, P, Samples, Distillation], nn.Module] | None = None


@dataclass(frozen=True, kw_only=True)
class GraphCompressor(_Named[C, P]):
    """Works on the ONNX graph. The plan is common to all targets; ``apply`` encodes it for one.

    A plan may have a field ``tensors``, name -> array, declared with
    ``metadata={"separate": True}``: what takes samples to compute and is too large for a manifest. The bundle keeps it
    in a safetensors file of its own.
    """

    form: ClassVar[Literal["graph"]] = "graph"
    precision: str = "float32"  # what most of its weights are stored in
    plan: Callable[[onnx.ModelProto, C, Samples], P]
    apply: Callable[[onnx.ModelProto, P, TargetSpec], onnx.ModelProto]
    # ``exclude(plan, layers)``: the plan with these layers left in float, named as ``describe`` does, which has to say
    # the precision of those that can be. Under a budget the layers that cost the least are excluded until it is met.
    exclude: Callable[[P, Collection[str]], P] | None = None
    # What a layer left in float costs: latency (on targets that do not run here its MACs), or bytes of the file.
    price: Literal["latency", "bytes"] = "latency"
    # ``for_graph(config, graph)``: the config for one of a model's graphs, which may lack layers that it names.
    for_graph: Callable[[C, onnx.ModelProto], C] | None = None
    # The plan's layers in fp8 in place of its own precision: the graph, and what was decided (``layers`` and ``left``).
    fp8: Callable[[onnx.ModelProto, P, Fp8Encoding, Samples], tuple[onnx.ModelProto, Any]] | None = None
    # How many channels (a multiple) a target likes in its graphs; None: the target's own ``channel_multiple``. Steps on
    # the module that come before keep to it.
    channel_multiple: Callable[[TargetSpec], int | None] | None = None
    # The same and more: the target as steps on the module that come before are to see it.
    module_target: Callable[[TargetSpec], TargetSpec] | None = None
    # A plan in a fraction of the time, whose graph is as fast and need not be as accurate: what steps before it are
    # timed by. None: ``plan`` itself.
    sketch: Callable[[onnx.ModelProto, C, Samples], P] | None = None
    # ``tune(graph, plan, config, x, target, timer)``: the plan as it is fastest on one target, timed on the sample
    # ``x``; for other targets it stays as it is. None: nothing of it hangs on measured latency.
    tune: Callable[[onnx.ModelProto, P, C, Arrays, TargetSpec, GraphTimer], P] | None = None

    def __post_init__(self) -> None:
        if self.exclude is not None and self.describe is None:
            raise PluginError(
                f"compressor {self.name!r} has exclude and no describe, so no layer is known that it could exclude",
                "add describe, which says the precision of each layer",
            )


Compressor = ModuleCompressor[Any, Any] | GraphCompressor[Any, Any]
