"""The runtimes that can run a model here, by name: onnxruntime and its providers, torch, TensorRT. Imported lazily."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pocketzoo.core.errors import UnknownNameError, nearest
from pocketzoo.core.optional import require
from pocketzoo.zoo.backends.onnxruntime.providers import PROVIDERS, installed_providers
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.catalog.backend import Runner

CPU = "onnxruntime"  # its own kernels; "onnxruntime-cuda", "onnxruntime-openvino", ... are its other providers
TORCH = "torch"  # eagerly, on the CPU
COMPILED = "torch-compile"
TORCH_CUDA = "torch-cuda"
ENGINES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}  # runtime, called as its target is -> its module


def runtimes() -> dict[str, str]:
    """Every runtime, with what keeps it from running here: "" for those that run."""
    there = installed_providers() if find_spec(CPU) else []
    onnx_runtimes = {CPU: ""} | {
        f"{CPU}-{name}": "" if name in there else f"this onnxruntime has no {name} provider"
        for name in PROVIDERS
        if name != "cpu"
    }
    if not there:
        onnx_runtimes = dict.fromkeys(onnx_runtimes, "onnxruntime is not installed")
    torch = "" if find_spec("torch") else "torch is not installed"
    cuda = torch or ("" if require("torch", extra="compress").cuda.is_available() else "torch sees no CUDA device")
    gpu = "" if find_gpu() else "this machine has no NVIDIA GPU, or no driver for it"
    engines = {name: gpu if find_spec(module) else f"{module} is not installed" for name, module in ENGINES.items()}
    return {**onnx_runtimes, TORCH: torch, COMPILED: torch, TORCH_CUDA: cuda, **engines}


def check_runtime(name: str) -> None:
    """Raises:
    UnknownNameError: there is no such runtime, or it does not run on this machine.
    """
    if name in (CPU, TORCH, COMPILED):  # without asking: to import torch takes seconds; it says itself if it is missing
        return
    known = runtimes()
    if name not in known:
        raise UnknownNameError(f"there is no runtime {name!r}", nearest(name, known))
    if known[name]:
        here = ", ".join(each for each, why in known.items() if not why)
        raise UnknownNameError(f"the runtime {name!r} does not work here: {known[name]}", f"what does: {here}")


def on_modules(name: str) -> bool:
    """Whether a runtime runs modules; else it runs graphs, or engines built of them."""
    return name in (TORCH, COMPILED, TORCH_CUDA)


def module_of(name: str) -> str:
    """What is imported to run models with it."""
    return ENGINES.get(name) or ("pocketzoo.zoo.backends.torch_runner" if on_modules(name) else CPU)


def alone(name: str) -> bool:
    """Whether a runtime that is given one thread does all its work in the thread that calls it."""
    return name in (CPU, TORCH, COMPILED)


def open_runner(name: str, graph: Path, source: Path | None = None, *, threads: int = 0) -> Runner:
    """A runtime with a model in it: the ``graph`` or engine, or for torch the module of the bundle ``source``.

    ``threads`` = 0 takes all cores.

    Raises:
        UnknownNameError: the runtime does not work here.
        MissingDependencyError: its package is not installed.
        BundleError: it does not load the graph.
        ExportError: it does not load the engine.
    """
    check_runtime(name)
    if name in ENGINES:
        from pocketzoo.zoo.backends.tensorrt.engine_runner import EngineRunner

        return EngineRunner(graph, ENGINES[name])
    if not on_modules(name):
        return OnnxRunner(graph, threads=threads, providers=[name.removeprefix(f"{CPU}-") if name != CPU else "cpu"])
    from pocketzoo.zoo.backends.torch_runner import TorchRunner

    assert source is not None
    return TorchRunner(
        source, threads=threads, compiled=name == COMPILED, device="cuda" if name == TORCH_CUDA else "cpu"
    )
