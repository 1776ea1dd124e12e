"""What an exporter is told besides the graph and its target. Standard library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.specs import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What an exporter that ``asks`` gets besides: whose graph it is, and how its engine is to be built."""

    name: str  # of the model
    input: Input  # the config of its processor
    processor: str = ""  # the name of its processor
    modality: str = "sample"  # of its processor: "image"
    graph: Callable[[Path], None] | None = None  # writes an ONNX graph that does what its processor does
    labels: tuple[str, ...] = ()
    returns: str = "logits"
    states: Mapping[str, str] = field(default_factory=dict)  # output -> the input that it is at the next call
    options: EngineOptions = field(default_factory=EngineOptions)
    backend: BackendSpec | None = None  # of the target; None where that names none
