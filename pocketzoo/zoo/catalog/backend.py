"""Back ends: the runtimes that build, check, load and run models. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
    """Something that a target rejects, runs slowly or should be known of, and the nodes it is about."""

    level: Literal["refused", "slow", "note"]
    what: str
    todo: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``doctor``."""

    name: str
    works: bool
    detail: str  # version, or what is wrong
    fix: str = ""  # what to type for what does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What this machine can do for a target; where it cannot do one of the two, why, and what to do."""

    builds: bool  # what the target runs can be made here; a graph can be anywhere
    runs: bool
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSpec:
    """One way in which a back end runs models."""

    name: str  # for ``bench --runtime`` and ``load_runtime(provider=...)``: "onnxruntime-cuda"
    # Other names for the second: "cuda". A runtime that is called so comes first.
    aliases: tuple[str, ...] = ()
    target: str = ""  # whose graph it runs where a bundle has several, and whose facts what is built for it follows
    single_thread: bool = False  # given one thread, it does all its work in the thread that calls it
    automatic: bool = True  # ``load_runtime`` tries it where no other is asked for; a device has no torch

    @property
    def label(self) -> str:
        """What the choice of a runtime calls it."""
        return self.aliases[0] if self.aliases else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """How the Triton server runs what a back end builds: by which of its own, and from a file of which name."""

    backend: str
    file: str
    accelerators: tuple[str, ...] = ()  # of its onnxruntime, on a CPU


class Backend(Protocol):
    """A back end that was opened. What it cannot do raises an error of the family, by name."""

    def why_not(self, runtime: str) -> str:
        """Why one of its runtimes does not work here; "" where it does. Nothing is run to find out."""

    def support(self, target: TargetSpec, precision: str = "") -> Support:
        """What can be done for a target here, with graphs of a precision ("fp8") where that makes a difference."""

    def check(self, model: Path, target: TargetSpec, *, options: EngineOptions) -> tuple[str, Sequence[TargetFinding]]:
        """What its parser or compiler says of a graph, or of a file that ``build`` wrote.

        Who was asked ("asked the parser of ..."), and what was found; or why nobody was.
        """

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        """Write the form that it loads to ``out``: a file, with others alongside of the same stem; or a folder.

        Raises:
            ExportError: it refuses the graph, or cannot build here; the hint says what can.
        """

    def load(self, model: Path, *, runtime: str, target: TargetSpec | None = None, threads: int = 0) -> Runner:
        """A graph, what ``build`` wrote, or a bundle, ready to run. ``threads`` = 0 takes all cores.

        Raises:
            MissingDependencyError: a package is not installed.
            BundleError: it does not load the file.
        """


class GraphTimer(Protocol):
    """Times graphs on this machine as a target runs them: in the thread that calls, and nowhere else."""

    def open(self, graph: Path) -> Runner:
        """The graph, ready to run."""

    def layers(self, graph: Path, original: Path, x: Arrays) -> Mapping[str, float]:
        """Milliseconds of each layer for ``x``, by its name in the float graph ``original`` that it was encoded from.

        Those whose time is not known are left out.
        """


METHODS = ("why_not", "support", "check", "build", "load")  # that each back end has


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A back end as plugins declare it; ``open`` imports in its body, and may fail where a package is missing."""

    name: str  # that ``TargetSpec.backend`` and ``export --to`` say: "openvino"
    summary: str
    open: Callable[[], Backend]
    package: str  # to be installed for it, as pip reads it: "openvino", "pocketzoo[edge]"
    module: str  # that is imported of it, to tell whether it is there
    distributions: tuple[str, ...] = ()  # that bring the module, where that is not the package; for its version
    runtimes: tuple[RuntimeSpec, ...] = ()  # empty: one, called as the back end
    # What it loads: "graph": graphs, or what it built of them; "module": bundles, whose module it runs.
    form: Literal["graph", "module"] = "graph"
    takes_registry: bool = False  # ``load`` is also given ``registry``, to look up what a bundle's module is built from
    suffix: str = ""  # of what it builds: ".xml"; "" where it loads graphs as they are, and builds nothing
    loads_graphs: bool = True  # also as they are, without building
    folder: bool = False  # what it builds is a folder, which is never part of a bundle
    target: str = ""  # the target that it builds for where no other is named
    facts: type[Any] | None = None  # the dataclass of ``TargetSpec.facts`` that it knows; None: it asks for none
    build_options: tuple[str, ...] = ()  # fields of ``EngineOptions`` that it builds by; any other is refused
    # Of what runs only on the machine that built it, and may be code: whether a file of this sha256 was built here.
    # Nothing else is loaded. None: what it builds is data, and runs elsewhere too.
    built_here: Callable[[str], bool] | None = None
    examine: Callable[[], Iterable[Check]] | None = None  # what ``doctor`` says of it besides its runtimes
    triton: Callable[[TargetSpec], TritonModel] | None = None  # raises ExportError where Triton does not run it
    # What times graphs for a target on this machine; None where nothing here runs them as they will run there. What
    # is decided by measured latency is left out then.
    timer: Callable[[TargetSpec], GraphTimer | None] | None = None
    # ``facts`` of the fields that a TargetSpec had in the previous release; None where they are none of its own.
    former_facts: Callable[[Mapping[str, Any]], Any] | None = None

    @property
    def ways(self) -> tuple[RuntimeSpec, ...]:
        """Its runtimes, of which there is at least one."""
        return self.runtimes or (RuntimeSpec(name=self.name, target=self.target),)

    @property
    def builds(self) -> bool:
        """Whether it has a form of its own."""
        return bool(self.suffix)
