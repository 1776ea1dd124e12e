"""What NVIDIA's back ends know of a target besides what every target says. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import ExportError

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DlaSpec:
    """What a deep learning accelerator alongside the GPU takes; what it does not falls back to the GPU.

    Shapes are fixed when an engine is built. Sizes are those of a 2-D convolution or pooling.
    """

    cores: int
    operators: tuple[str, ...]  # of ONNX
    kernel: int  # largest side
    stride: int  # largest
    window: int  # largest side of a pooling window
    window_stride: int  # largest of a pooling window
    channels: int  # most, in and out
    size: int  # longest axis besides the batch
    batch: int  # largest
    types: tuple[str, ...] = ("fp16",)  # it computes in


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaFacts:
    """Facts of a target that engines are built for."""

    module: str = "tensorrt"  # the Python module that builds them, or "tensorrt_rtx"
    versions: tuple[int, ...] = ()  # major versions of it; empty: any
    flags: tuple[str, ...] = ()  # names of BuilderFlag, set for every engine
    machine: str = ""  # "aarch64" where it is one device, and engines are built on that
    capability: str = ""  # that device's compute capability, such as "8.7"
    fp8_capability: str = "8.9"  # the least that kernels in fp8 need
    dla: DlaSpec | None = None


def facts_of(target: TargetSpec) -> NvidiaFacts:
    """The facts of a target that engines are built for.

    Raises:
        ExportError: it is not one.
    """
    if not isinstance(target.facts, NvidiaFacts):
        raise ExportError(f"target {target.name!r} has no engines", "try --target tensorrt-rtx")
    return target.facts


def former_facts(module: str) -> Callable[[Mapping[str, Any]], NvidiaFacts | None]:
    """What reads the fields of the previous release for the back end that builds with ``module``."""

    def read(fields: Mapping[str, Any]) -> NvidiaFacts | None:
        if fields.get("engine") != module:
            return None
        return NvidiaFacts(
            module=module,
            versions=fields.get("versions", ()),
            flags=fields.get("engine_flags", ()),
            machine=fields.get("machine", ""),
            capability=fields.get("capability", ""),
            dla=fields.get("dla"),
        )

    return read
