"""torch as a back end: it runs the module of a bundle, for ``bench`` to measure it alongside graphs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import ExportError
from pocketzoo.core.optional import require
from pocketzoo.zoo.catalog.backend import Support, TargetFinding

if TYPE_CHECKING:
    from pocketzoo.core.progress import Progress
    from pocketzoo.zoo.backends.torch.runner import TorchRunner
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.catalog.registry import Registry
    from pocketzoo.zoo.catalog.specs import TargetSpec

EAGER, COMPILED, CUDA = "torch", "torch-compile", "torch-cuda"  # its runtimes


class TorchBackend:
    """Eagerly on the CPU, compiled, or on a GPU."""

    def why_not(self, runtime: str) -> str:
        if find_spec("torch") is None:
            return "torch is not installed"
        if runtime != CUDA:
            return ""
        # A build for CPUs says so in its version: importing it takes seconds.
        built_for_cpus = version("torch").endswith("+cpu")
        sees = not built_for_cpus and require("torch", extra="compress").cuda.is_available()
        return "" if sees else "torch sees no CUDA device"

    def support(self, target: TargetSpec, precision: str = "") -> Support:
        why = "torch runs modules, which no target is for"
        return Support(builds=False, runs=False, why=why, fix="bench --runtime torch measures them")

    def check(self, model: Path, target: TargetSpec, *, options: EngineOptions) -> tuple[str, Sequence[TargetFinding]]:
        return "torch reads no graphs, so it was not asked", ()

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        raise ExportError("torch runs the module of a bundle and builds nothing", "use --to onnx")

    def load(
        self,
        model: Path,
        *,
        runtime: str,
        target: TargetSpec | None = None,
        threads: int = 0,
        registry: Registry | None = None,
    ) -> TorchRunner:
        require("torch", extra="compress")
        from pocketzoo.zoo.backends.torch.runner import TorchRunner

        return TorchRunner(
            model,
            threads=threads,
            compiled=runtime == COMPILED,
            device="cuda" if runtime == CUDA else "cpu",
            registry=registry,
        )
