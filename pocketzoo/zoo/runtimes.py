"""What can run a model on this machine: onnxruntime and its providers, torch. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from pocketzoo.errors import UnknownNameError, nearest
from pocketzoo.optional import require
from pocketzoo.zoo.runner import OnnxRunner

if TYPE_CHECKING:
    import numpy as np

CPU = "onnxruntime"  # its own kernels; "onnxruntime-cuda", "onnxruntime-openvino", ... are its other providers
TORCH = "torch"  # eagerly, on the CPU
COMPILED = "torch-compile"
TORCH_CUDA = "torch-cuda"
_PROVIDER = "ExecutionProvider"
_REMOTE = ("Azure",)  # providers that run nothing here


class Runner(Protocol):
    """A model that is ready to run; a context manager that gives memory back."""

    def logits(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(B, *size) -> (B, outputs)."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def runtimes() -> dict[str, str]:
    """Every runtime, with what keeps it from running here: "" for those that run."""
    found = dict.fromkeys([CPU, *_providers()], "")
    for name in ("cuda", "tensorrt", "openvino"):
        found.setdefault(f"{CPU}-{name}", f"this onnxruntime has no {name} provider")
    if find_spec(CPU) is None:
        found = dict.fromkeys(found, "onnxruntime is not installed")
    torch = "" if find_spec("torch") else "torch is not installed"
    cuda = torch or ("" if require("torch", extra="compress").cuda.is_available() else "torch sees no CUDA device")
    return {**found, TORCH: torch, COMPILED: torch, TORCH_CUDA: cuda}


def check_runtime(name: str) -> None:
    """Raises:
    UnknownNameError: there is no such runtime, or it does not run on this machine.
    """
    if name in (
        CPU,
        TORCH,
        COMPILED,
    ):  # without asking: torch takes seconds to import, and says itself if it is missing
        return
    known = runtimes()
    if name not in known:
        raise UnknownNameError(f"there is no runtime {name!r}", nearest(name, known))
    if known[name]:
        here = ", ".join(each for each, why in known.items() if not why)
        raise UnknownNameError(f"the runtime {name!r} does not work here: {known[name]}", f"what does: {here}")


def on_graphs(name: str) -> bool:
    """Whether a runtime runs graphs; else it runs modules."""
    return name.startswith(CPU)


def alone(name: str) -> bool:
    """Whether a runtime that is given one thread does all its work in the thread that calls it."""
    return name in (CPU, TORCH, COMPILED)


def open_runner(name: str, graph: Path, source: Path | None = None, *, threads: int = 0) -> Runner:
    """A runtime with a model in it: the ``graph``, or for torch the module of the bundle ``source``.

    ``threads`` = 0 takes all cores.

    Raises:
        UnknownNameError: the runtime does not work here.
        MissingDependencyError: its package is not installed.
        BundleError: it does not load the graph.
    """
    check_runtime(name)
    if name == CPU:
        return OnnxRunner(graph, threads=threads)
    if on_graphs(name):
        runner = OnnxRunner(graph, threads=threads)
        provider = _providers()[name]
        runner.session.set_providers([provider, f"CPU{_PROVIDER}"])
        if runner.session.get_providers()[0] != provider:  # it says so on stderr, and goes on with the CPU
            raise UnknownNameError(f"the runtime {name!r} does not start", "see what onnxruntime says above")
        return runner
    from pocketzoo.zoo.torch_runner import TorchRunner

    assert source is not None
    return TorchRunner(
        source, threads=threads, compiled=name == COMPILED, device="cuda" if name == TORCH_CUDA else "cpu"
    )


def _providers() -> dict[str, str]:
    """The providers of onnxruntime beside the CPU's, by the name that the runtime has here."""
    if find_spec(CPU) is None:
        return {}
    ask: Callable[[], list[str]] = partial(require(CPU, extra="compress").get_available_providers)
    names = [provider.removesuffix(_PROVIDER) for provider in ask()]
    return {f"{CPU}-{name.lower()}": f"{name}{_PROVIDER}" for name in names if name not in ("CPU", *_REMOTE)}
