"""Graph to engine, through TensorRT or its API twin TensorRT-RTX.

The network is strongly typed: every precision is in the graph, as TensorRT 11 demands and 10 allows. Building with
TensorRT-RTX needs no GPU; TensorRT builds on the GPU the engine will run on.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from pocketzoo.errors import ExportError
from pocketzoo.optional import require
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.files import replacing_file
from pocketzoo.zoo.specs import TargetSpec

BATCHES = (1, 8, 32)  # smallest, best and largest size of a free axis


def save_engine(
    graph: Path,
    out: Path,
    target: TargetSpec,
    *,
    batches: tuple[int, int, int] = BATCHES,
    progress: Progress = SILENT,
) -> None:
    """Build an engine from an ONNX graph and write it to ``out``. Free axes get the profile ``batches``.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target has no engines, or NVIDIA's parser or builder refuses the graph; no file is left.
    """
    if not target.engine:
        raise ExportError(f"target {target.name!r} has no engines", "try --target tensorrt-rtx")
    trt = require(target.engine, extra=target.name)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    if builder is None:
        raise ExportError(f"{target.engine} cannot start a builder", "check the driver with nvidia-smi")
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        reasons = [_reason(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ExportError(
            f"{target.engine}'s parser refuses {graph.name}: {'; '.join(reasons) or 'no reason given'}",
            f"compress the model for it: --target {target.name}",
        )
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *(tuple(b if d == -1 else d for d in tensor.shape) for b in batches))
    config.add_optimization_profile(profile)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(
            f"{target.engine} cannot build an engine of {graph.name}: {logger.last or 'no reason given'}",
            "see which layer it names; leave it in float with skip",
        )
    with replacing_file(out) as temporary:
        temporary.write_bytes(memoryview(plan))


def layer_precisions(graph: Path, target: TargetSpec) -> dict[str, str]:
    """Each layer of the network NVIDIA's parser makes of a graph, with the type of its output.

    Raises:
        ExportError: the parser refuses the graph.
    """
    trt = require(target.engine, extra=target.name)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        raise ExportError(
            f"{target.engine}'s parser refuses {graph.name}: {_reason(parser.get_error(0))}",
            f"compress the model for it: --target {target.name}",
        )
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {layer.name: str(layer.get_output(0).dtype).rpartition(".")[2] for layer in layers}


def _strongly_typed(trt: ModuleType) -> int:
    """Creation flags. TensorRT 11 and RTX type every network strongly and may no longer have the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _reason(error: Any) -> str:
    node = error.node_name() if hasattr(error, "node_name") else ""
    return f"{error.desc()}{f' (node {node})' if node else ''}"


def _logger(trt: ModuleType) -> Any:
    """A logger that keeps the last error and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = message

    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    """Tells the user which phase the builder is in."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                progress.say(f"building the engine: {phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
