"""The runtimes that can run a model here, by name: those of the registered back ends."""

from __future__ import annotations

from pathlib import Path

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.backends import open_backend
from pocketzoo.zoo.backends.open_backend import Way, find_runtime
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.registry import Registry, default_registry

CPU = "onnxruntime"  # its own kernels; the reference that others are measured against
TORCH = "torch"  # eagerly, on the CPU
COMPILED = "torch-compile"
TORCH_CUDA = "torch-cuda"


def runtimes(registry: Registry | None = None) -> dict[str, str]:
    """Every runtime, with what keeps it from running here: "" for those that run."""
    return open_backend.runtimes(registry or default_registry())


def check_runtime(name: str, registry: Registry | None = None) -> Way:
    """The runtime of that name, and its back end.

    Raises:
        UnknownNameError: there is no such runtime, or it does not run on this machine.
    """
    return open_backend.check_runtime(name, registry or default_registry())


def single_thread(name: str, registry: Registry | None = None) -> bool:
    """Whether a runtime that is given one thread does all its work in the thread that calls it."""
    return find_runtime(name, registry or default_registry()).runtime.single_thread


def open_runner(
    name: str, graph: Path, source: Path | None = None, *, threads: int = 0, registry: Registry | None = None
) -> Runner:
    """A runtime with a model in it: the ``graph`` or engine, or of a runtime of modules that of the bundle ``source``.

    ``threads`` = 0 takes all cores.

    Raises:
        UnknownNameError: the runtime does not work here.
        MissingDependencyError: its package is not installed.
        BundleError: it does not load the graph, or there is no bundle for it.
        ExportError: it does not load the engine.
    """
    way = check_runtime(name, registry)
    if way.backend.form == "graph":
        return open_backend.load(way, graph, threads=threads)
    if source is None:
        raise BundleError(f"the runtime {name!r} runs modules, and {graph.name} is none", "give the bundle it is of")
    return open_backend.load(way, source, threads=threads, registry=registry)
