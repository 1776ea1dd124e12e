"""What plugins import, and scripts that use plugins: the one part of pocketzoo whose names and signatures stay.

Everything else may move or change in any release. A name goes from here only after a release in which it warned.
Importing this loads nothing heavy (no torch, numpy or onnx): a plugin may do so where it declares its specs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.plans import DistillPlan, Int8Plan, LowRankPlan, PrunePlan
from pocketzoo.core.errors import (
    BadReferenceError,
    BundleError,
    BusyError,
    DataError,
    DuplicateNameError,
    ExportError,
    ExportMismatchError,
    HeadMismatchError,
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
    HubRenamedError,
    LicenseError,
    LockError,
    MemoryShortError,
    MissingDependencyError,
    MissingPluginError,
    PluginError,
    PocketzooError,
    ProcessLostError,
    RecipeError,
    RejectedError,
    SignatureError,
    StorageError,
    TooLargeError,
    TrainingError,
    UnknownNameError,
    UnsafeFileError,
    UnsupportedLayerError,
    UnsupportedModelError,
    check_field,
    nearest,
)
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.tensorrt.facts import DlaSpec, NvidiaFacts
from pocketzoo.zoo.catalog.backend import (
    Backend,
    BackendSpec,
    Check,
    Runner,
    RuntimeSpec,
    Support,
    TargetFinding,
    TritonModel,
)
from pocketzoo.zoo.catalog.compressor import (
    Compressor,
    Distillation,
    GraphCompressor,
    LayerDecision,
    ModuleCompressor,
    Samples,
    Step,
)
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import Plugin
from pocketzoo.zoo.catalog.processor import ForeignInputs, Processor, ProcessorSpec, TrainingSamples
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry
from pocketzoo.zoo.catalog.signature import Dim, ModelSignature, TensorSpec
from pocketzoo.zoo.catalog.specs import (
    WINDOW,
    BackboneSpec,
    Cut,
    DatasetSpec,
    ExporterSpec,
    FeatureKind,
    FeatureSpec,
    Fp8Encoding,
    GenerationSpec,
    HeadSpec,
    HubFile,
    Input,
    InputSpec,
    Int8Encoding,
    KernelCosts,
    LoaderSpec,
    PackageFile,
    Repository,
    TargetSpec,
    TextSpec,
    Weights,
)
from pocketzoo.zoo.catalog.task import (
    Answers,
    Decoder,
    DecoderSpec,
    Estimate,
    LossSettings,
    Metric,
    MetricSpec,
    ModelFacts,
    TargetKind,
    Task,
    TaskExample,
    TaskSpec,
    TaskTraining,
)

if TYPE_CHECKING:
    from pocketzoo.core.arrays import Array, Arrays, ImageLike
    from pocketzoo.core.files import replacing_file, replacing_folder
    from pocketzoo.testing.conformance import check_conformance
    from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
    from pocketzoo.zoo.bundles.manifest import FileEntry, Manifest, ModelRef
    from pocketzoo.zoo.bundles.step_record import StepRecord, StepReport
    from pocketzoo.zoo.catalog.dataset import Dataset, LazyImages, Split, SplitName, Targets
    from pocketzoo.zoo.data.batches import from_arrays
    from pocketzoo.zoo.data.processors.base import ProcessorBase
    from pocketzoo.zoo.data.target_kinds import without_targets
    from pocketzoo.zoo.hub.weights import load_state, read_safetensors
    from pocketzoo.zoo.tasks.class_targets import with_classes
    from pocketzoo.zoo.tasks.decoders.answers import (
        Classes,
        Embeddings,
        Labels,
        NextTokens,
        Texts,
        TokenClasses,
        Values,
    )
    from pocketzoo.zoo.tasks.drawing import sample_html, shown
    from pocketzoo.zoo.tasks.metrics.intervals import jackknife, proportion, ratio

# Resolved on first use, since their modules load numpy or torch, or more than a list of specs needs.
_LAZY = {
    "Array": "pocketzoo.core.arrays",
    "Arrays": "pocketzoo.core.arrays",
    "ImageLike": "pocketzoo.core.arrays",
    "replacing_file": "pocketzoo.core.files",
    "replacing_folder": "pocketzoo.core.files",
    "check_conformance": "pocketzoo.testing.conformance",
    "Bundle": "pocketzoo.zoo.bundles.bundle",
    "read_bundle": "pocketzoo.zoo.bundles.bundle",
    "FileEntry": "pocketzoo.zoo.bundles.manifest",
    "Manifest": "pocketzoo.zoo.bundles.manifest",
    "ModelRef": "pocketzoo.zoo.bundles.manifest",
    "StepRecord": "pocketzoo.zoo.bundles.step_record",
    "StepReport": "pocketzoo.zoo.bundles.step_record",
    "Dataset": "pocketzoo.zoo.catalog.dataset",
    "LazyImages": "pocketzoo.zoo.catalog.dataset",
    "Split": "pocketzoo.zoo.catalog.dataset",
    "SplitName": "pocketzoo.zoo.catalog.dataset",
    "Targets": "pocketzoo.zoo.catalog.dataset",
    "from_arrays": "pocketzoo.zoo.data.batches",
    "ProcessorBase": "pocketzoo.zoo.data.processors.base",
    "load_state": "pocketzoo.zoo.hub.weights",
    "read_safetensors": "pocketzoo.zoo.hub.weights",
    "Classes": "pocketzoo.zoo.tasks.decoders.answers",
    "Labels": "pocketzoo.zoo.tasks.decoders.answers",
    "Texts": "pocketzoo.zoo.tasks.decoders.answers",
    "TokenClasses": "pocketzoo.zoo.tasks.decoders.answers",
    "NextTokens": "pocketzoo.zoo.tasks.decoders.answers",
    "Values": "pocketzoo.zoo.tasks.decoders.answers",
    "Embeddings": "pocketzoo.zoo.tasks.decoders.answers",
    "with_classes": "pocketzoo.zoo.tasks.class_targets",
    "without_targets": "pocketzoo.zoo.data.target_kinds",
    "sample_html": "pocketzoo.zoo.tasks.drawing",
    "proportion": "pocketzoo.zoo.tasks.metrics.intervals",
    "ratio": "pocketzoo.zoo.tasks.metrics.intervals",
    "jackknife": "pocketzoo.zoo.tasks.metrics.intervals",
    "shown": "pocketzoo.zoo.tasks.drawing",
}
# Of the previous release: heads name their task.
_FORMER = {"METRICS", "PER_TOKEN", "RETURNS"}
__all__ = [
    "KINDS",
    "SILENT",
    "WINDOW",
    "Answers",
    "Array",
    "Arrays",
    "ArraysSpec",
    "BackboneSpec",
    "Backend",
    "BackendSpec",
    "BadReferenceError",
    "Bundle",
    "BundleError",
    "BusyError",
    "Check",
    "Classes",
    "Compressor",
    "Cut",
    "DataError",
    "Dataset",
    "DatasetSpec",
    "Decoder",
    "DecoderSpec",
    "Dim",
    "DistillConfig",
    "DistillPlan",
    "Distillation",
    "DlaSpec",
    "DuplicateNameError",
    "Embeddings",
    "EngineOptions",
    "Entry",
    "Estimate",
    "ExportError",
    "ExportMismatchError",
    "ExportRequest",
    "ExporterSpec",
    "FeatureKind",
    "FeatureSpec",
    "FileEntry",
    "ForeignInputs",
    "Fp8Encoding",
    "GenerationSpec",
    "GraphCompressor",
    "HeadMismatchError",
    "HeadSpec",
    "HubAccessError",
    "HubConnectionError",
    "HubError",
    "HubFile",
    "HubIntegrityError",
    "HubMissingError",
    "HubRateLimitError",
    "HubRenamedError",
    "ImageLike",
    "Input",
    "InputSpec",
    "Int8Config",
    "Int8Encoding",
    "Int8Plan",
    "KernelCosts",
    "Labels",
    "LayerDecision",
    "LazyImages",
    "LicenseError",
    "LoaderSpec",
    "LockError",
    "LossSettings",
    "LowRankConfig",
    "LowRankPlan",
    "Manifest",
    "MappingSpec",
    "MemoryShortError",
    "Metric",
    "MetricSpec",
    "MissingDependencyError",
    "MissingPluginError",
    "ModelFacts",
    "ModelRef",
    "ModelSignature",
    "ModuleCompressor",
    "NextTokens",
    "NvidiaFacts",
    "OnnxruntimeFacts",
    "PackageFile",
    "Plugin",
    "PluginError",
    "PocketzooError",
    "ProcessLostError",
    "Processor",
    "ProcessorBase",
    "ProcessorSpec",
    "Progress",
    "PruneConfig",
    "PrunePlan",
    "RecipeError",
    "Registry",
    "RejectedError",
    "Repository",
    "Runner",
    "RuntimeSpec",
    "Samples",
    "SignatureError",
    "Sizes",
    "Split",
    "SplitName",
    "Step",
    "StepRecord",
    "StepReport",
    "StorageError",
    "Support",
    "TableSpec",
    "TargetFinding",
    "TargetKind",
    "TargetSpec",
    "Targets",
    "Task",
    "TaskExample",
    "TaskSpec",
    "TaskTraining",
    "TensorSpec",
    "TextSpec",
    "Texts",
    "TokenClasses",
    "TooLargeError",
    "TrainingError",
    "TrainingSamples",
    "TritonModel",
    "UnknownNameError",
    "UnsafeFileError",
    "UnsupportedLayerError",
    "UnsupportedModelError",
    "Values",
    "Weights",
    "check_conformance",
    "check_field",
    "default_registry",
    "from_arrays",
    "hookimpl",
    "jackknife",
    "load_state",
    "nearest",
    "proportion",
    "ratio",
    "read_bundle",
    "read_safetensors",
    "replacing_file",
    "replacing_folder",
    "require",
    "sample_html",
    "shown",
    "with_classes",
    "without_targets",
]


if not TYPE_CHECKING:  # to whom any name would be right then

    def __getattr__(name: str) -> Any:
        if name in _FORMER:
            from pocketzoo.core.renamed import warn_renamed

            warn_renamed(name, "TaskSpec")
            return getattr(import_module("pocketzoo.zoo.catalog.former_words"), name)
        if name not in _LAZY:
            raise AttributeError(f"module 'pocketzoo.api' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
