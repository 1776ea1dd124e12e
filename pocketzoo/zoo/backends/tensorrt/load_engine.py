"""Load an engine with TensorRT or TensorRT-RTX, and explain why one does not load."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from pocketzoo.core.errors import ExportError, MissingDependencyError
from pocketzoo.core.optional import EXTRAS, require
from pocketzoo.zoo.backends.tensorrt.garbage_collector import uncollected
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu, find_gpu


def engine_module(name: str) -> ModuleType:
    """ "tensorrt" or "tensorrt_rtx", or what a plugin's target builds with.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return require(name)


def make_logger(trt: ModuleType) -> Any:
    """A logger that keeps errors and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        @property
        def last(self) -> str:
            return self.errors[-1] if self.errors else ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()


@uncollected()
def load_engine(path: Path, trt: ModuleType) -> tuple[Any, Any, Any]:
    """A logger, a runtime and the engine, which needs both for as long as it lives.

    Raises:
        MissingDependencyError: there is no GPU, or no driver for it.
        ExportError: there is no such file; it was built by another version or for another GPU, is damaged, or memory
            is not enough; the hint says what to do.
    """
    if not path.is_file():
        raise ExportError(f"there is no engine {path}", "check the path, or build it: pocketzoo export")
    if (gpu := find_gpu()) is None:
        raise MissingDependencyError(
            f"{path.name} runs on an NVIDIA GPU, and this machine has none, or no driver for it",
            "check the driver with nvidia-smi; the graph runs anywhere: export --to onnx, predict --provider cpu",
        )
    logger = make_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(path.read_bytes()) if runtime is not None else None
    if engine is None:
        raise unloadable(path, trt.__name__, str(trt.__version__), gpu, " ".join(logger.errors))
    return logger, runtime, engine


def unloadable(engine: Path, module: str, version: str, gpu: Gpu, said: str) -> ExportError:
    """What TensorRT's own words mean for a user."""
    again = f"build it here: pocketzoo export MODEL --to {EXTRAS.get(module, module)}"
    if short_of_memory(said):
        return ExportError(
            f"{engine.name} needs more memory than is free on {gpu} ({gpu.memory >> 20:,} MiB in all): {said}",
            "build it for smaller sizes: --shape batch=1:4:8",
        )
    low = said.lower()
    if "version" in low:
        return ExportError(f"{engine.name} was built by a different version than {module} {version}: {said}", again)
    if "compute capability" in low or "device" in low or "incompatible" in low:
        return ExportError(f"{engine.name} was built for a different GPU than {gpu}: {said}", again)
    return ExportError(
        f"{engine.name} is not an engine that {module} {version} reads: {said or 'no reason given'}", again
    )


def short_of_memory(said: str) -> bool:
    """Whether TensorRT says that memory runs out."""
    low = said.lower()
    return any(words in low for words in ("out of memory", "outofmemory", "workspace limit"))
