"""The manifest of a bundle, pocketzoo.json: model, steps, files and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketzoo.core.renamed import renamed
from pocketzoo.core.typed import from_plain
from pocketzoo.core.version import __version__
from pocketzoo.zoo.bundles.early_format_2 import converted
from pocketzoo.zoo.bundles.measurement import Measurement
from pocketzoo.zoo.bundles.step_record import Rejection, StepRecord
from pocketzoo.zoo.catalog.described import Described, spec_of
from pocketzoo.zoo.catalog.processor_configs import NO_COLUMNS, DataColumns
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.catalog.specs import GenerationSpec
from pocketzoo.zoo.graphs.layer_cost import LayerCost

FORMAT = 2  # 1 had other names for some fields: format_1.py
MANIFEST = "pocketzoo.json"
SIGNATURE = "model.sig"  # next to the manifest, which does not list it: whatever changes the bundle drops it
MODEL = "model"  # the graph of a model that has one; of one that has several, that which reads and outputs all at once
SINGLE, STATEFUL, DUAL, GENERATE = "single", "stateful", "dual", "generate"  # drivers, see zoo/artifacts/
GRAPH_ONLY = "onnx:"  # what the backbone of a model begins with that came as an ONNX file and has no module


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """What a model is built from: registered names, and what was chosen of them."""

    backbone: str
    head: str
    outputs: int
    cut: str = ""
    head_options: Mapping[str, Any] = field(default_factory=dict)  # what is left out has the head's default
    backbone_options: Mapping[str, Any] = field(default_factory=dict)  # likewise, of a backbone that has options
    input_size: tuple[int, ...] = ()  # (height, width) in pixels; empty: the backbone's own


@renamed(part="graph")
@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of the bundle. Graphs and engines say what they run on, and which of the model's graphs they are."""

    sha256: str
    size: int  # bytes
    target: str = ""
    precision: str = ""
    graph: str = ""  # of a model that runs in several: "encoder", "decoder"; "" is ``MODEL``
    backend: str = ""  # that built it and loads it; "" of a graph, and of engines of earlier versions
    of: str = ""  # the file that it is part of, where a back end writes several: weights alongside a description


@renamed(turned_down="rejected")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything known of a model; stored as ``pocketzoo.json``."""

    format: int = FORMAT
    name: str
    model: ModelRef
    processor: Described  # how samples become the model's inputs
    labels: tuple[str, ...]
    data_columns: DataColumns = NO_COLUMNS  # of the table that it was fitted to: those of other tables are the same
    license: str
    parameters: int  # of the module, batch norm included
    macs: int  # multiply-accumulates for one sample
    # Dims of that sample by input; empty in bundles of before, where only layers by a constant weight counted.
    counted_at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    created: str = ""
    pocketzoo: str = __version__
    signature: ModelSignature | None = None  # what it reads and outputs; None in bundles of before: as its graph says
    driver: str = SINGLE  # what runs the graphs together, see zoo/artifacts/
    one_by_one: bool = False  # whether a run takes one sample, as no axis of its graph counts them
    task: str = ""  # what it is for, a registered task; "" in bundles of before, and where nobody said
    tag: str = ""  # the Hub's pipeline tag, where that is not the task's name
    task_provider: str = ""  # distribution and version of the plugin that brings it; "" where that is pocketzoo
    decoder: Described | None = None  # how its outputs become answers; None: as the task has it
    returns: str = ""  # of bundles of before: what the head outputs, which stands for a task
    generation: GenerationSpec | None = None  # of a bundle whose parts write text, see zoo/models/generation_graphs.py
    provenance: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    rejected: tuple[Rejection, ...] = ()  # steps that were tried and left out
    metrics: Mapping[str, Any] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()  # of this bundle and what it was measured with, the last run last
    layers: Mapping[str, tuple[LayerCost, ...]] = field(default_factory=dict)  # target, or "float" -> of that graph
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    @property
    def input(self) -> Any:
        """The config of its processor as that declares it, such as an ``InputSpec``; of what is installed here.

        Raises:
            MissingPluginError: its processor is of a plugin that is not.
        """
        return spec_of(self.processor, "processor", default_registry())[1]

    @property
    def former_returns(self) -> str:
        """The word for what it outputs that stands for its task where that is not said; "" where nobody knows.

        Labels mean a score for each, and a model without head gives its features; a graph from elsewhere may give
        anything.
        """
        if self.returns or self.labels:
            return self.returns or "logits"
        return "" if self.model.backbone.startswith(GRAPH_ONLY) else "embedding"


def read_manifest(data: Any) -> Manifest:
    """A manifest from the plain data of its file, of this format, as it was first written too, or of format 1.

    Raises:
        RecipeError: a field is unknown, missing, or of a wrong type.
    """
    if isinstance(data, dict) and data.get("format") == 1:
        from pocketzoo.zoo.bundles.format_1 import converted as of_format_1  # few are so old

        data = of_format_1(data)
    return from_plain(Manifest, converted(data))
