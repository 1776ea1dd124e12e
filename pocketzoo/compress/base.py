"""What a compressor is, and which form of a model it works on. No heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pocketzoo.zoo.specs import TargetSpec

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from pocketzoo.zoo.preprocess import Array

    Samples = Iterable[Array]  # batches (B, *size) of float32, ready for the model; iterable more than once

C = TypeVar("C")
P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class _Named(Generic[C, P]):
    name: str  # the word a recipe uses: "low-rank"
    summary: str
    config: type[C]
    plan_type: type[P]

    def read_plan(self, data: Mapping[str, Any]) -> P:
        """A plan as it was saved in a bundle."""
        from pocketzoo.zoo.typed import from_plain

        return from_plain(self.plan_type, data)


@dataclass(frozen=True, kw_only=True)
class ModuleCompressor(_Named[C, P]):
    """Works on the torch module. ``plan`` decides and changes nothing; ``apply`` returns a new module.

    ``apply`` gets samples when it compresses, and None when a saved plan is replayed on loading: then only the
    structure matters, and the saved weights must fit it.
    """

    form: ClassVar[Literal["module"]] = "module"
    plan: Callable[[nn.Module, C, Samples, TargetSpec], P]
    apply: Callable[[nn.Module, P, Samples | None], nn.Module]


@dataclass(frozen=True, kw_only=True)
class GraphCompressor(_Named[C, P]):
    """Works on the ONNX graph. The plan is common to all targets; ``apply`` encodes it for one."""

    form: ClassVar[Literal["graph"]] = "graph"
    precision: str = "float32"  # what most of its weights are stored in
    plan: Callable[[onnx.ModelProto, C, Samples], P]
    apply: Callable[[onnx.ModelProto, P, TargetSpec], onnx.ModelProto]


Compressor = ModuleCompressor[Any, Any] | GraphCompressor[Any, Any]
