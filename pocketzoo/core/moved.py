"""Where modules and names are that older releases had elsewhere: old paths still import, with one warning each.

They work for one release. ``pocketzoo/__init__.py`` asks ``find_spec`` for what no file is called; what took a module's
place, or stays with a name renamed, has ``names_before`` of ``former_names.py``. Nothing is imported until it is used.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from pocketzoo.core.gone import GONE

# Old module -> the new one, or those that its names went to, looked through in this order; all below pocketzoo.
MOVED: dict[str, str | tuple[str, ...]] = {
    "callable_module": "core.callable_module",
    "cli.agent": "cli.agents",
    "cli.look": "cli.catalog",
    "cli.model": "cli.fit_eval_compress",
    "cli.rate": "cli.find_rate",
    "cli.ship": "cli.export_bench_report",
    "cli.target": "cli.targets",
    "cli.training": "cli.options",
    "cli.trust": "cli.pack_sign_verify",
    "cli.write": "cli.generate",
    "compress.acceptance": "compress.pipeline.acceptance",
    "compress.allocate": "compress.low_rank.rank_allocation",
    "compress.base": "zoo.catalog.compressor",
    "compress.budget": "compress.pruning.channel_budget",
    "compress.calibrate": "compress.quantization.calibration",
    "compress.checkpoints": "compress.pipeline.checkpoints",
    "compress.dynamic": "compress.quantization.dynamic_quantization",
    "compress.effects": "compress.low_rank.kronecker_factors",
    "compress.eligible": "compress.statistics.eligible_layers",
    "compress.embeddings": "compress.quantization.embedding_tables",
    "compress.encode": "compress.quantization.qdq",
    "compress.factors": "compress.low_rank.factorizations",
    "compress.fake_int8": "compress.distillation.fake_quantization",
    "compress.float_layers": "compress.quantization.mixed_precision",
    "compress.forecast": "compress.pipeline.forecast",
    "compress.fp8": "compress.quantization.fp8",
    "compress.graph_index": ("zoo.graphs.index", "zoo.graphs.operators"),
    "compress.groups": (
        "compress.pruning.channels",
        "compress.pruning.channel_tracer",
        "compress.pruning.channel_groups",
    ),
    "compress.heal": "compress.distillation.distill",
    "compress.histogram": "compress.statistics.histogram",
    "compress.int8": "compress.quantization.int8",
    "compress.job": "compress.pipeline.job",
    "compress.judge": "compress.pipeline.graph_scores",
    "compress.latency": "compress.pruning.latency_budget",
    "compress.layers": ("compress.statistics.eligible_layers", "compress.statistics.calibration_batches"),
    "compress.lockstep": "compress.statistics.layerwise",
    "compress.lowrank": "compress.low_rank.low_rank",
    "compress.memory": "core.malloc_trim",
    "compress.moments": "compress.statistics.second_moments",
    "compress.operands": "zoo.graphs.operands",
    "compress.patches": "compress.quantization.layer_inputs",
    "compress.patterns": "core.name_patterns",
    "compress.pipeline": "compress.pipeline.compress_model",
    "compress.prune": ("compress.pruning.prune", "compress.pruning.channel_order"),
    "compress.recipe": "compress.pipeline.recipe",
    "compress.refit": "compress.pruning.refit",
    "compress.regress": "compress.pruning.least_squares",
    "compress.rounding": "compress.quantization.gptq",
    "compress.saliency": "compress.pruning.saliency",
    "compress.sensitivity": "compress.pruning.gauss_newton",
    "compress.smooth": "compress.quantization.smoothquant",
    "compress.sparse": "compress.pruning.sparse",
    "compress.steps": (
        "compress.pipeline.step_report",
        "compress.pipeline.acceptance",
        "compress.pipeline.attempt",
        "compress.pipeline.steps",
    ),
    "compress.stopwatch": "compress.low_rank.layer_timing",
    "compress.writing": ("compress.pipeline.further_ends", "zoo.models.resolver"),
    "deploy.answers": ("measure.confusion_matrix", "zoo.tasks.drawing"),
    "deploy.bench": "workflows.bench",
    "deploy.bench_engines": "workflows.bench_engines",
    "deploy.bench_writing": "measure.measure_ends",
    "deploy.build_progress": "zoo.backends.tensorrt.build_progress",
    "deploy.check": "deploy.check.check_model",
    "deploy.check_dla": "zoo.backends.tensorrt.dla_rules",
    "deploy.check_rules": ("deploy.check.rules", "zoo.backends.tensorrt.dla_rules"),
    "deploy.choose": "deploy.device.fastest_runtime",
    "deploy.classes": ("zoo.tasks.metrics.classification", "core.numerics"),
    "deploy.demo": "workflows.demo",
    "deploy.doctor": "deploy.device.doctor",
    "deploy.engine_cache": "zoo.backends.tensorrt.engine_cache",
    "deploy.evaluate": "measure.evaluate",
    "deploy.export_parts": "deploy.export_graphs",
    "deploy.fp8": "deploy.fp8_export",
    "deploy.generate": "workflows.generate",
    "deploy.halve": "deploy.half_precision_export",
    "deploy.inputs": "zoo.data.processors.image_processor",
    "deploy.pack": "deploy.device.pack",
    "deploy.play": "workflows.play",
    "deploy.plot": "reports.bench_plot",
    "deploy.precision": (
        "zoo.graphs.rewriting.half_precision",
        "zoo.graphs.rewriting.half_writer",
        "zoo.graphs.rewriting.half_limits",
        "zoo.graphs.rewriting.flat_graph",
    ),
    "deploy.predict": "workflows.predict",
    "deploy.profile": "measure.profile",
    "deploy.profile_layers": ("measure.node_layers", "zoo.graphs.operators"),
    "deploy.profile_page": "reports.profile_page",
    "deploy.reading": ("zoo.graphs.index", "zoo.graphs.node", "zoo.graphs.files.load_graph"),
    "deploy.report": "reports.report",
    "deploy.report_answers": "reports.confusion_section",
    "deploy.report_bars": "reports.charts.layer_bars",
    "deploy.report_bundle": "reports.bundle_section",
    "deploy.report_curves": "reports.charts.training_curves",
    "deploy.report_graph": "reports.charts.graph_drawing",
    "deploy.report_labels": "reports.charts.plot_labels",
    "deploy.report_layers": "reports.measured.layer_costs",
    "deploy.report_numbers": "reports.measured.number_format",
    "deploy.report_page": "reports.html_page",
    "deploy.report_rates": "reports.learning_rate_plot",
    "deploy.report_runs": "reports.measured.bench_runs",
    "deploy.report_scatter": "reports.charts.scatter_plot",
    "deploy.report_section": "reports.bench_section",
    "deploy.report_steps": "reports.compression_steps",
    "deploy.report_svg": "reports.charts.svg",
    "deploy.report_table": "reports.bench_table",
    "deploy.report_timings": "reports.timing_table",
    "deploy.run": ("workflows.run", "workflows.run_state"),
    "deploy.run_recipe": ("workflows.run_recipe", "compress.pipeline.recipe"),
    "deploy.runtime": ("deploy.device.runtime", "deploy.device.providers"),
    "deploy.targets": ("zoo.backends.tensorrt.build_machine", "zoo.backends.available_targets"),
    "deploy.triton": "deploy.triton.model_repository",
    "deploy.triton_pictures": "deploy.triton.image_preprocessing_graph",
    "deploy.trtexec": "zoo.backends.tensorrt.trtexec",
    "optional": "core.optional",
    "plugins.manager": "zoo.catalog.plugin_manager",
    "plugins.scaffold": "workflows.new_plugin",
    "progress": "core.progress",
    "train.agent_settings": "train.agents.settings",
    "train.augment": ("train.augmenter", "train.augment.transforms"),
    "train.augment_spec": "train.augment.specification",
    "train.blocks": "zoo.models.backbone_blocks",
    "train.features": "train.feature_cache",
    "train.finder": "train.learning_rate_finder",
    "train.learning": ("train.trainable_parameters", "train.snapshot"),
    "train.log": "train.tensorboard",
    "train.loop": ("train.training_loop", "zoo.tasks.training.classes"),
    "train.optimise": "train.optimizers",
    "train.preview": "train.contact_sheet",
    "train.qlearning": "train.agents.double_dqn",
    "train.replay": "train.agents.replay_buffer",
    "train.scores": ("train.validation", "zoo.tasks.training.tokens"),
    "train.shard": "train.distributed.fsdp",
    "train.step": ("train.augment.mixed_targets", "train.optimizer_step"),
    "train.task": "train.model_for_data",
    "train.transfer": "train.transfer_learning",
    "train.world": "train.distributed.process_group",
    "zoo.agreement": ("zoo.tasks.agreement", "zoo.tasks.metrics.embeddings", "core.numerics"),
    "zoo.arrays": ("zoo.data.npz_files", "zoo.data.target_kinds"),
    "zoo.bundle": ("zoo.bundles.manifest", "zoo.bundles.bundle", "zoo.bundles.step_record"),
    "zoo.card": "zoo.bundles.model_card",
    "zoo.collector": "zoo.backends.tensorrt.garbage_collector",
    "zoo.cost": "zoo.graphs.cost",
    "zoo.cuda": "zoo.backends.tensorrt.cuda",
    "zoo.data": ("zoo.catalog.dataset", "zoo.data.batches", "zoo.tasks.class_targets"),
    "zoo.decoding": "zoo.tasks.token_search",
    "zoo.engine_options": ("zoo.catalog.engine_options", "zoo.catalog.export_request"),
    "zoo.engine_runner": "zoo.backends.tensorrt.engine_runner",
    "zoo.engines": "zoo.backends.tensorrt.load_engine",
    "zoo.environments": "zoo.data.gym_environments",
    "zoo.files": "core.files",
    "zoo.findings": "zoo.data.findings",
    "zoo.folders": "zoo.data.image_folders",
    "zoo.foreign": (
        "zoo.models.import_onnx",
        "zoo.data.processors.foreign_inputs",
        "zoo.backends.onnxruntime.tidied_graph",
        "zoo.graphs.foreign.quantized",
    ),
    "zoo.gpu": "zoo.backends.tensorrt.identify_gpu",
    "zoo.graph": "zoo.models.export_graph",
    "zoo.graph_names": "zoo.graphs.fresh_names",
    "zoo.graph_safety": "zoo.graphs.safety",
    "zoo.heads": "zoo.models.heads",
    "zoo.hooks": "zoo.models.layer_hooks",
    "zoo.hub": "zoo.hub.repositories",
    "zoo.hub_http": "zoo.hub.http",
    "zoo.info": "zoo.models.info",
    "zoo.kinds": "zoo.catalog.kinds",
    "zoo.library": "zoo.data.hf_datasets",
    "zoo.lockfile": "zoo.hub.lock_file",
    "zoo.materials": ("zoo.models.materials", "zoo.bundles.bill_of_materials"),
    "zoo.measure": ("measure.measure_graphs", "zoo.bundles.measurement"),
    "zoo.memory": "measure.peak_memory",
    "zoo.model": ("zoo.models.build", "zoo.models.resolver"),
    "zoo.names": "zoo.catalog.glob_index",
    "zoo.parts": "zoo.models.generation_graphs",
    "zoo.preprocess": ("core.arrays", "zoo.data.processors.image_preprocessing"),
    "zoo.pretrained": ("zoo.models.provenance", "zoo.models.open_model"),
    "zoo.providers": "zoo.backends.onnxruntime.providers",
    "zoo.pull": ("zoo.models.open_remote", "zoo.models.pull", "zoo.models.resolver"),
    "zoo.push": "zoo.models.push",
    "zoo.reference": "zoo.hub.reference",
    "zoo.registry": "zoo.catalog.registry",
    "zoo.remote_bundle": ("zoo.bundles.repository_loader", "zoo.models.hub_bundle"),
    "zoo.resize": "zoo.models.input_size",
    "zoo.runner": "zoo.backends.onnxruntime.runner",
    "zoo.runtimes": "zoo.backends.runtimes",
    "zoo.samples": "zoo.data.random_samples",
    "zoo.save": "zoo.models.save",
    "zoo.search": "zoo.models.search",
    "zoo.shards": "zoo.hub.shard_index",
    "zoo.snapshot": "train.snapshot",
    "zoo.sources": "zoo.data.load_data",
    "zoo.store": ("zoo.hub.stored_files", "zoo.hub.locked_files", "zoo.hub.store_layout", "zoo.hub.store"),
    "zoo.tables": ("zoo.data.tables", "zoo.data.table_files", "zoo.data.target_kinds"),
    "zoo.text": "zoo.data.processors.text_encoder",
    "zoo.timing": "zoo.backends.timing",
    "zoo.torch_runner": "zoo.backends.torch.runner",
    "zoo.transfer": "zoo.hub.download",
    "zoo.trust": "zoo.bundles.signing",
    "zoo.typed": "core.typed",
    "zoo.unfinished": "zoo.bundles.work_folder",
    "zoo.weights": "zoo.hub.weights",
    "zoo.windows": "zoo.data.token_windows",
    "zoo.writer": ("zoo.artifacts.generate", "zoo.artifacts.end_score"),
}
# (module of the last release, name) -> the new name, where it has another, whether the module moved or not.
RENAMED = {
    ("cli.options", "Share"): "Fraction",
    ("cli.options", "picture_size"): "image_size",
    ("cli.render", "print_writing"): "print_generation",
    ("compress.checkpoints", "LESSON"): "DISTILLATION",
    ("compress.dynamic", "quantise"): "quantize",
    ("compress.embeddings", "quantise"): "quantize",
    ("compress.effects", "Effect"): "KroneckerFactors",
    ("compress.effects", "measure_effects"): "kronecker_factors",
    ("compress.encode", "Encoder"): "Int8Writer",
    ("compress.encode", "LAYERS"): "QUANTIZABLE",
    ("compress.encode", "Pairs"): "QdqWriter",
    ("compress.factors", "factorise"): "factorize",
    ("compress.float_layers", "Effect"): "FloatEffect",
    ("compress.float_layers", "effects"): "float_effects",
    ("compress.graph_index", "LAYERS"): "QUANTIZABLE",
    ("compress.graph_index", "quantisable"): "quantizable",
    ("compress.heal", "teach"): "distill",
    ("compress.lowrank", "PICTURES"): "IMAGES",
    ("compress.recipe", "recipe_accepts"): "read_compress_section",
    ("compress.saliency", "Judge"): "HeldOutCost",
    ("compress.saliency", "Reader"): "ChannelReader",
    ("compress.sensitivity", "root"): "square_root",
    ("compress.int8", "readings_of"): "layer_inputs_of",
    ("compress.patches", "Moments"): "ColumnMoments",
    ("compress.patches", "Reading"): "Im2col",
    ("compress.patches", "reading"): "im2col_of",
    ("compress.rounding", "Levels"): "Int8Array",
    ("compress.smooth", "Channels"): "ChannelRanges",
    ("compress.smooth", "Group"): "SharedInput",
    ("compress.smooth", "groups"): "shared_inputs",
    ("compress.steps", "TurnedDown"): "Rejected",
    ("deploy.answers", "answers"): "measure_confusion",
    ("deploy.check_rules", "Finding"): "TargetFinding",
    ("deploy.export_parts", "ExportedPart"): "ExportedGraph",
    ("deploy.bench_writing", "WritingMeasurement"): "EndMeasurement",
    ("deploy.report_page", "check_picture"): "check_drawing",
    ("deploy.report_runs", "Run"): "BenchRun",
    ("deploy.report_runs", "headline"): "bench_headline",
    ("deploy.report_runs", "setting"): "batch_setting",
    ("deploy.run", "Run"): "RunResults",
    ("deploy.run", "plan"): "planned_sections",
    ("deploy.halve", "halve"): "write_half_precision",
    ("deploy.precision", "PAIRS"): "QDQ",
    ("deploy.profile_layers", "Layers"): "NodeLayers",
    ("deploy.profile_layers", "WEIGHTED"): "QUANTIZABLE",
    ("deploy.reading", "LAYERS"): "QUANTIZABLE",
    ("deploy.reading", "Reading"): "GraphIndex",
    ("plugins.head_modules", "Standardise"): "Standardize",
    ("plugins.targets", "SYNCHRONISES"): "SYNCHRONIZES",
    ("train.blocks", "Block"): "BackboneBlock",
    ("train.learning", "whole"): "gathered",
    ("train.learning", "whole_optimiser"): "optimizer_tensors",
    ("train.optimise", "build_optimiser"): "build_optimizer",
    ("train.settings", "Optimiser"): "Optimizer",
    ("train.step", "Stepper"): "MicroBatchStep",
    ("deploy.report_steps", "OTHERS"): "REST",
    ("compress.factors", "Metric"): "InputMetric",
    ("train.task", "Task"): "ModelForData",
    ("zoo.agreement", "NEIGHBOURS"): "NEIGHBORS",
    ("zoo.agreement", "nearest_neighbours"): "nearest_neighbors",
    ("zoo.data", "LazyPictures"): "LazyImages",
    ("zoo.data", "aligned"): "with_classes",
    ("deploy.classes", "ClassCounts"): "ClassificationScores",
    ("zoo.bundle", "Step"): "StepRecord",
    ("zoo.bundle", "TRAVELS"): "SOURCE_PREFIX",
    ("zoo.bundle", "travelling"): "source_file_name",
    ("zoo.foreign", "QUANTISED"): "QUANTIZED",
    ("zoo.foreign", "Reading"): "OnnxMetadata",
    ("zoo.graph", "WEIGHTED"): "LAYERS",
    ("zoo.materials", "materials_of"): "bill_of_materials",
    ("zoo.measure", "milliseconds"): "median_milliseconds",
    ("zoo.parts", "Answering"): "CrossAttentionDecoder",
    ("zoo.parts", "Continuer"): "CausalDecoder",
    ("zoo.writer", "GraphWriter"): "TextGenerator",
    ("zoo.writer", "Likeness"): "EndScore",
    ("zoo.writer", "TOKENS"): "LONGEST",
    ("zoo.writer", "alike"): "likeness",
    ("zoo.writer", "milliseconds_a_token"): "milliseconds_a_step",
    ("zoo.parts", "with_parts"): "with_generation_graphs",
    ("zoo.preprocess", "Picture"): "ImageLike",
    ("zoo.runtimes", "alone"): "single_thread",
    ("zoo.preprocess", "decode_picture"): "decode_image",
    ("zoo.preprocess", "read_picture"): "read_image",
    ("zoo.snapshot", "load_optimiser"): "load_optimizer",
    ("zoo.snapshot", "optimiser_tensors"): "optimizer_tensors",
    ("zoo.typed", "BESIDE"): "SEPARATE",
}
ROOT = "pocketzoo."


def new_modules(old: str) -> tuple[str, ...]:
    """Full names of the modules that what ``old`` held is in now; none if it did not move."""
    modules = MOVED.get(old.removeprefix(ROOT), ())
    return tuple(ROOT + name for name in ((modules,) if isinstance(modules, str) else modules))


def find_spec(name: str) -> ModuleSpec | None:
    """How to import a module by its old name; None if there never was one.

    The module looks every name up where it is now, and says so when it is imported (DeprecationWarning).
    """
    loader: Any = _Forwarding()  # importlib.abc.Loader takes long to import
    return ModuleSpec(name, loader, origin=" and ".join(new)) if (new := new_modules(name)) else None


def former_name(module: str, name: str) -> Any:
    """What ``module``, or the module whose place it took, called ``name`` in the last release; said once, in a warning.

    Raises:
        AttributeError: there was nothing of that name.
    """
    held = vars(sys.modules[module])
    if "__path__" in held and PathFinder.find_spec(f"{module}.{name}", held["__path__"]):
        raise AttributeError(f"{module}.{name} is a module", name=name)  # which is imported then
    new, value = _resolve(module, name)
    if name != "__all__":  # which ``import *`` asks for, and then for every name in it
        renamed = RENAMED.get((module.removeprefix(ROOT), name))
        warnings.warn(
            f"{name} of {module} {f'is called {renamed} now, in' if renamed else 'has moved to'} {new}; "
            f"the old {'name' if renamed else 'path'} works for one release",
            DeprecationWarning,
            stacklevel=3,  # the import system's own frames are not counted
        )
        held[name] = value  # so that it is said once
    return value


class _Forwarding:
    """A loader of the import system."""

    def create_module(self, spec: ModuleSpec) -> None:
        """None: an ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        name, new = module.__name__, new_modules(module.__name__)
        module.__doc__ = f"Moved to {' and '.join(new)}."
        vars(module)["__getattr__"] = lambda attribute: _resolve(name, attribute)[1]
        vars(module)["__dir__"] = lambda: _names(name)
        warnings.warn(
            f"{name} has moved to {' and '.join(new)}; the old path works for one release",
            DeprecationWarning,
            stacklevel=2,
        )


def _resolve(old: str, name: str) -> tuple[str, Any]:
    """The module that has what was ``old.name``, and what it is."""
    new = new_modules(old)
    if name == "__all__" and new:
        return old, _names(old)
    if not name.startswith("__"):
        renamed = RENAMED.get((old.removeprefix(ROOT), name))
        for place in new or ((old,) if renamed else ()):
            if hasattr(module := import_module(place), renamed or name):
                return place, getattr(module, renamed or name)
    told = f": {instead}" if (instead := GONE.get((old.removeprefix(ROOT), name))) else ""
    raise AttributeError(f"module {old!r} has no attribute {name!r}{told}", name=name)


def _names(old: str) -> list[str]:
    """The public names of all modules that ``old`` became."""
    return sorted({n for new in new_modules(old) for n in vars(import_module(new)) if not n.startswith("_")})
