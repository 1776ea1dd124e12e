"""Build an engine from a graph, with TensorRT or its API twin TensorRT-RTX.

The network is strongly typed: every precision is in the graph, as TensorRT 11 demands and 10 allows. Building with
TensorRT-RTX needs no GPU; TensorRT builds on the GPU the engine will run on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pocketzoo.core.errors import ExportError, nearest
from pocketzoo.core.files import replacing_file
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.tensorrt.build_machine import check_machine
from pocketzoo.zoo.backends.tensorrt.build_progress import watched
from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache, engine_key
from pocketzoo.zoo.backends.tensorrt.engine_graph import engine_graph
from pocketzoo.zoo.backends.tensorrt.facts import facts_of
from pocketzoo.zoo.backends.tensorrt.garbage_collector import uncollected
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu, find_gpu
from pocketzoo.zoo.backends.tensorrt.load_engine import engine_module, load_engine, make_logger, short_of_memory
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.graphs.foreign.refused_operators import refused_operators, told_refused

DEFAULT = EngineOptions()


@uncollected()
def save_engine(
    graph: Path,
    out: Path,
    target: TargetSpec,
    *,
    options: EngineOptions = DEFAULT,
    cache: EngineCache | None = None,
    progress: Progress = SILENT,
) -> None:
    """Build an engine from an ONNX graph and write it to ``out``.

    One that was built before of the same graph, for the same target, by the same version, on the same GPU and with the
    same options is copied from ``cache`` (default: the store's). Ctrl-C ends a build cleanly.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target has no engines, this machine cannot build them, or NVIDIA's parser or builder refuses
            the graph; no file is left.
    """
    gpu = find_gpu()
    check_machine(target, gpu)
    trt = engine_module(facts_of(target).module)
    cache = cache or EngineCache()
    key = engine_key(graph, target, str(trt.__version__), gpu, options)
    if (known := cache.find(key)) is not None:
        progress.say(f"engine copied from the cache: {known.parent}")
        with replacing_file(out) as temporary:
            temporary.write_bytes(known.read_bytes())
        return
    parsed = _parsed(trt, graph, target, options, progress)
    config, profile = _configured(trt, parsed, target, options)
    progress.say(f"building the engine with {facts_of(target).module} {trt.__version__}{profile}")
    timings = cache.timings(facts_of(target).module, str(trt.__version__), gpu) if _times(trt) else None
    if timings is not None:
        known_times = timings.read_bytes() if timings.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known_times), False)
    plan = watched(trt, parsed.builder, parsed.network, config, progress)
    if plan is None:
        raise _refused_by_builder(graph, target, parsed.logger, options, gpu)
    if timings is not None:
        with replacing_file(timings) as temporary:
            temporary.write_bytes(memoryview(config.get_timing_cache().serialize()))
    cache.keep(key, memoryview(plan))
    with replacing_file(out) as temporary:
        temporary.write_bytes(memoryview(plan))


@uncollected()
def layer_precisions(graph: Path, target: TargetSpec) -> dict[str, str]:
    """Each layer of the network NVIDIA's parser makes of a graph, with the type of its output.

    Raises:
        ExportError: the parser refuses the graph.
    """
    network = _parsed(engine_module(facts_of(target).module), graph, target, DEFAULT).network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {layer.name: str(layer.get_output(0).dtype).rpartition(".")[2] for layer in layers}


@uncollected()
def refusals(graph: Path, module: str) -> list[str]:
    """What NVIDIA's parser says against a graph; nothing where it takes it. ``module``: whose parser.

    Raises:
        MissingDependencyError: it is not installed.
    """
    # The names are not used, and hold the builder and the network while the parser refers to them.
    _logger, _builder, _network, parser = _begun(engine_module(module))
    if _parses(parser, graph if weight_files(graph) else graph.read_bytes()):
        return []
    return _reasons(parser)


@uncollected()
def refit_engine(engine: Path, graph: Path, out: Path, target: TargetSpec) -> None:
    """Put the weights of ``graph`` into an engine that was built without (``stripped``), on the device.

    Raises:
        MissingDependencyError: the target's package is not installed, or there is no GPU.
        ExportError: the engine does not load here, or is not of this graph.
    """
    trt = engine_module(facts_of(target).module)
    logger, _runtime, loaded = load_engine(engine, trt)
    refitter = trt.Refitter(loaded, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    refits = parser.refit_from_file(str(graph)) if weight_files(graph) else parser.refit_from_bytes(graph.read_bytes())
    if not refits or not refitter.refit_cuda_engine():
        raise ExportError(
            f"the weights of {graph.name} do not fit {engine.name}: {logger.last or 'no reason given'}",
            "give the graph that the engine was built from",
        )
    config = loaded.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    with replacing_file(out) as temporary:
        temporary.write_bytes(memoryview(loaded.serialize_with_config(config)))


@uncollected()
def check_engine(engine: Path, target: TargetSpec) -> None:
    """Load an engine and let it go again.

    Raises:
        MissingDependencyError: the target's package is not installed, or there is no GPU.
        ExportError: the target has no engines, or as ``load_engine``.
    """
    load_engine(engine, engine_module(facts_of(target).module))


@dataclass(frozen=True, slots=True)
class _Parsed:
    logger: Any
    builder: Any
    network: Any
    parser: Any  # it owns the weights that the network refers to


def _begun(trt: ModuleType) -> tuple[Any, Any, Any, Any]:
    logger = make_logger(trt)
    if hasattr(trt, "init_libnvinfer_plugins"):  # some operators of ONNX are plugins of theirs
        trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    if builder is None:
        raise ExportError(f"{trt.__name__} cannot start a builder", "check the driver with nvidia-smi")
    network = builder.create_network(_strongly_typed(trt))
    return logger, builder, network, trt.OnnxParser(network, logger)


def _parsed(
    trt: ModuleType, graph: Path, target: TargetSpec, options: EngineOptions, progress: Progress = SILENT
) -> _Parsed:
    logger, builder, network, parser = _begun(trt)
    if options.dla is not None and hasattr(trt, "OnnxParserFlag") and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    with engine_graph(graph, options, progress) as source:
        parses = _parses(parser, source)
    if not parses:
        every = f"list all findings: pocketzoo check MODEL --target {target.name}"
        raise ExportError(
            f"{facts_of(target).module}'s parser refuses {graph.name}: {'; '.join(_reasons(parser))}",
            _instead(graph, target) or f"{every}; or compress with --target {target.name}",
        )
    return _Parsed(logger, builder, network, parser)


def _parses(parser: Any, graph: bytes | Path) -> bool:
    """Whether a parser takes a graph: from its file where its weights lie alongside."""
    return bool(parser.parse_from_file(str(graph)) if isinstance(graph, Path) else parser.parse(graph))


def _configured(trt: ModuleType, parsed: _Parsed, target: TargetSpec, options: EngineOptions) -> tuple[Any, str]:
    """The builder's config, and what lengths it is built for in words."""
    config = parsed.builder.create_builder_config()
    flags = [*facts_of(target).flags]
    flags += ["VERSION_COMPATIBLE"] * options.version_compatible
    flags += ["STRIP_PLAN"] * options.stripped
    if options.hardware_compatible and trt.__name__ != "tensorrt_rtx":  # whose engines run on all GPUs since Ampere
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.dla is not None:
        cores = parsed.builder.num_DLA_cores
        if options.dla >= cores:
            has = f"{cores} DLA core{'s' * (cores != 1)}" if cores else "no DLA core"
            raise ExportError(f"this machine has {has}, and core {options.dla} was asked for", "leave out --dla")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
        flags.append("GPU_FALLBACK")
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    profile = parsed.builder.create_optimization_profile()
    axes: dict[str, Sizes] = {}
    for i in range(parsed.network.num_inputs):
        tensor = parsed.network.get_input(i)
        # An axis without a name is called as the graph's signature calls it.
        free = {d: tensor.get_dimension_name(d) or f"{tensor.name}_{d}" for d, n in enumerate(tensor.shape) if n == -1}
        sizes = {d: options.sizes(name) for d, name in free.items()}
        axes |= {name: sizes[d] for d, name in free.items()}
        if free:
            profile.set_shape(tensor.name, *([sizes[d][k] if d in free else n for d, n in enumerate(tensor.shape)]
                                             for k in range(3)))  # fmt: skip
    check_axes(axes, options)
    if axes:
        config.add_optimization_profile(profile)
    words = ", ".join(f"{name or 'axis'} {a} to {c} (best {b})" for name, (a, b, c) in axes.items())
    return config, f" for {words}" if words else ""


def check_axes(axes: Mapping[str, Sizes], options: EngineOptions) -> None:
    """Raises:
    ExportError: lengths were given for an axis that the graph has not, or DLA would have to run several shapes.
    """
    if unknown := [name for name in options.shapes if name not in axes]:
        raise ExportError(f"the graph has no dynamic axis {unknown[0]!r}", nearest(unknown[0], [n for n in axes if n]))
    if options.dla is not None and (free := [name for name, sizes in axes.items() if sizes[0] != sizes[2]]):
        raise ExportError(f"DLA needs static shapes, and {free[0]!r} is dynamic", f"fix it, as in --shape {free[0]}=8")


def _strongly_typed(trt: ModuleType) -> int:
    """Creation flags. TensorRT 11 and RTX type every network strongly and may no longer have the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _times(trt: ModuleType) -> bool:
    """Whether building measures kernels: TensorRT-RTX chooses them on the device."""
    return trt.__name__ != "tensorrt_rtx"


def _refused_by_builder(
    graph: Path, target: TargetSpec, logger: Any, options: EngineOptions, gpu: Gpu | None
) -> ExportError:
    said = " ".join(logger.errors)
    what = f"{facts_of(target).module} cannot build an engine of {graph.name}"
    if short_of_memory(said):
        has = f"the GPU has {gpu.memory >> 20:,} MiB" if gpu is not None else "this machine has no GPU"
        limit = f", workspace limit {options.workspace:,} MiB" if options.workspace else ""
        largest = ":".join(map(str, options.others))
        return ExportError(
            f"{what}: out of memory ({has}{limit}): {logger.last}",
            f"build for smaller sizes than {largest}: --shape batch=1:4:8"
            + ("; or a larger --workspace" if options.workspace else ""),
        )
    if "libnvinfer_lean" in said:
        return ExportError(
            f"{what} for later versions: its lean runtime is not installed",
            "install tensorrt_lean, or leave out --version-compatible",
        )
    if options.stripped and gpu is None:
        return ExportError(
            f"{what} without weights: that needs a GPU, and none is here", "build it where one is, or leave out --strip"
        )
    hint = _instead(graph, target) or "see which layer it names; leave it in float"
    return ExportError(f"{what}: {logger.last or 'no reason given'}", hint)


def _instead(graph: Path, target: TargetSpec) -> str:
    """What to do where the target states that it has no such operator; "" where it has all."""
    refused = refused_operators(graph, target)
    return told_refused(refused, target) if refused else ""


def _reasons(parser: Any) -> list[str]:
    """What the parser says, each thing once."""
    said = Counter(_reason(parser.get_error(i)) for i in range(parser.num_errors))
    return [f"{text} ({count} times)" if count > 1 else text for text, count in said.items()] or ["no reason given"]


def _reason(error: Any) -> str:
    node = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    what = error.desc()
    if what in ("", "false"):  # the name of a check that failed; of operators it does not have it is this one
        what = f"it does not support {operator or 'a node'}"
    return f"{what}{f' (node {node})' if node else ''}"
