"""Back ends: the runtimes that build, check, load and run models. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pocketzoo.core.arrays import Arrays
    from pocketzoo.core.progress import Progress
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.catalog.signature import ModelSignature
    from pocketzoo.zoo.catalog.specs import TargetSpec


class Runner(Protocol):
    """A model that is ready to run; a context manager that gives memory back. Several threads may use one at a time."""

    @property
    def signature(self) -> ModelSignature:
        """What it reads and outputs."""

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """Run once: every input by name to every output by name.

        ``out`` has arrays for some of the outputs, C-contiguous and of their shape and type, to write them to.

        Raises:
            DataError: an input is missing, unknown, or of another shape or type.
            MemoryShortError: there is not enough memory for a batch as large.
        """

    def close(self) -> None:
        """Give the memory back."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFinding:
    """What a back end says of a graph on a target."""

    level: str  # "refused", "slow" or "note"
    what: str
    todo: str = ""
    nodes: tuple[str, ...] = ()


class Backend(Protocol):
    """A back end that was opened. What it cannot do raises UnsupportedModelError, by name."""

    def runtimes(self) -> Mapping[str, str]:
        """What ``bench --runtime`` calls each way that it runs models -> why it does not here; "" where it does."""

    def devices(self, target: TargetSpec) -> tuple[bool, bool, str, str]:
        """Whether a target can be built for here, and run here; why not, and what to do."""

    def check(self, graph: Path, target: TargetSpec) -> tuple[str, tuple[TargetFinding, ...]]:
        """What its parser or compiler says of a graph: who was asked, and what it found."""

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        """Write the form that it loads, a file or a folder.

        Raises:
            ExportError: it refuses the graph, or cannot build here; the hint says what can.
        """

    def load(self, model: Path, *, runtime: str, target: TargetSpec | None = None, threads: int = 0) -> Runner:
        """A graph, or what ``build`` wrote, ready to run. ``threads`` = 0 takes all cores.

        Raises:
            MissingDependencyError: a package is not installed.
            BundleError: it does not load the file.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A back end as plugins declare it; ``open`` imports in its body, and may fail where a package is missing."""

    name: str  # that TargetSpec.backend and the runtimes begin with: "onnxruntime", "openvino"
    summary: str
    open: Callable[[], Backend]
    package: str  # to be installed for it: "openvino"
    module: str  # that is imported of it, to tell whether it is there
    suffix: str = ".onnx"  # of what it loads; ".onnx" where it loads graphs as they are
    form: str = (
        "graph"  # "graph": it is given graphs or what was built of them; "module": bundles, whose module it runs
    )
    facts: type[Any] | None = None  # the dataclass of ``TargetSpec.facts`` that it knows; None: it asks for none
