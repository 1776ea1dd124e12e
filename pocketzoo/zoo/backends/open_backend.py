"""Find the back end of a target or of a runtime's name, and open it. One that fails is said by name, in two lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import (
    MissingDependencyError,
    PluginError,
    PocketzooError,
    UnknownNameError,
    in_a_line,
    nearest,
)
from pocketzoo.core.names import RULE, is_name
from pocketzoo.core.optional import version_of_first
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.backend import METHODS, Backend, BackendSpec, GraphTimer, Runner, RuntimeSpec
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True)
class Way:
    """A runtime and the back end that it is of."""

    backend: BackendSpec
    runtime: RuntimeSpec


@dataclass(frozen=True, slots=True)
class Backends:
    """All back ends that can be used, and why others cannot."""

    specs: Mapping[str, BackendSpec]
    ways: Mapping[str, Way]  # by the name of the runtime
    left_out: Mapping[str, str]  # name of a back end -> why


def backends(registry: Registry) -> Backends:
    """The registered back ends. One that names a runtime that is taken is left out, whole; what ships comes first."""
    order = {plugin.name: i for i, plugin in enumerate(registry.manager.plugins)}
    entries = sorted(registry.entries("backend").values(), key=lambda entry: order.get(entry.plugin, len(order)))
    specs: dict[str, BackendSpec] = {}
    ways: dict[str, Way] = {}
    left_out: dict[str, str] = {}
    for spec in (entry.spec for entry in entries):
        names = [runtime.name for runtime in spec.ways]
        odd = next((name for name in names if not is_name(name)), None)
        twice = next((name for i, name in enumerate(names) if name in names[:i]), "")
        taken = next((name for name in names if name in ways), "")
        if odd is not None:
            left_out[spec.name] = f"its runtime cannot be called {odd!r}: {RULE}"
        elif twice:
            left_out[spec.name] = f"it names the runtime {twice!r} twice"
        elif taken:
            left_out[spec.name] = (
                f"it names the runtime {taken!r}, which is of the back end {ways[taken].backend.name!r}"
            )
        else:
            specs[spec.name] = spec
            ways |= {runtime.name: Way(spec, runtime) for runtime in spec.ways}
    return Backends(specs, ways, left_out)


def open_backend(spec: BackendSpec) -> Backend:
    """A back end, ready to be asked.

    Raises:
        MissingDependencyError: its package is not installed; the hint is the line that installs it.
        PluginError: it fails to open, or lacks a method.
    """
    with blaming(spec, "does not open"):
        backend = spec.open()
    if lacking := [name for name in METHODS if not callable(getattr(backend, name, None))]:
        raise PluginError(
            f"the back end {spec.name!r} has no method {lacking[0]!r}",
            f"its plugin has to add it: {', '.join(METHODS)}; see docs/plugins.md",
        )
    return backend


def backend_named(name: str, registry: Registry) -> BackendSpec:
    """The back end of that name.

    Raises:
        UnknownNameError: there is none.
        PluginError: it is left out.
    """
    known = backends(registry)
    if name in known.left_out:
        raise _unusable(name, known)
    if name not in known.specs:
        raise UnknownNameError(f"no back end is called {name!r}", registry.hint(nearest(name, known.specs), "backend"))
    return known.specs[name]


def backend_of(target: TargetSpec, registry: Registry) -> tuple[BackendSpec | None, TargetSpec]:
    """The back end of a target, None where it names none; and the target with that back end's facts.

    Raises:
        UnknownNameError: it names one that is not registered.
        PluginError: that one is left out, or the target's facts are not its own.
    """
    target = with_facts(target, registry)
    if not target.backend:
        return None, target
    spec = backend_named(target.backend, registry)
    if target.facts is not None and not isinstance(target.facts, spec.facts or ()):
        wanted = spec.facts.__name__ if spec.facts else "no facts"
        raise PluginError(
            f"target {target.name!r} has {type(target.facts).__name__} for the back end {spec.name!r},"
            f" which wants {wanted}",
            "correct facts= where the target is declared",
        )
    return spec, target


def timer_of(target: TargetSpec, registry: Registry) -> GraphTimer | None:
    """What times graphs for a target here, on one thread; None where nothing does, or where its back end fails."""
    try:
        spec, target = backend_of(target, registry)
        if spec is None or spec.timer is None:
            return None
        with blaming(spec, "does not say how it times graphs"):
            return spec.timer(target)
    except PocketzooError:  # what is decided by measured latency is left out; who runs graphs there says it
        return None


def with_facts(target: TargetSpec, registry: Registry) -> TargetSpec:
    """A target whose fields of the previous release became facts of the back end that knows them."""
    if target.backend or not target.former:
        return target
    for spec in backends(registry).specs.values():
        if spec.former_facts is not None and (facts := spec.former_facts(target.former)) is not None:
            return replace(target, backend=spec.name, facts=facts, former={})
    return target


def find_runtime(name: str, registry: Registry) -> Way:
    """The runtime that ``bench --runtime`` calls so.

    Raises:
        UnknownNameError: there is none.
        PluginError: its back end is left out.
    """
    known = backends(registry)
    if name in known.ways:
        return known.ways[name]
    if name in known.left_out:
        raise _unusable(name, known)
    raise UnknownNameError(f"there is no runtime {name!r}", registry.hint(nearest(name, known.ways), "backend"))


def why_not(way: Way) -> tuple[str, str]:
    """Why a runtime does not work here, and what to do; empty where it does. Raises nothing."""
    try:
        backend = open_backend(way.backend)
        with blaming(way.backend, "does not say whether it works"):
            why = str(backend.why_not(way.runtime.name))
    except PocketzooError as error:
        return error.message, error.hint
    return why, install(way.backend) if why and not is_installed(way.backend) else ""


def runtimes(registry: Registry) -> dict[str, str]:
    """Every runtime, with what keeps it from running here: "" for those that run."""
    return {name: why_not(way)[0] for name, way in backends(registry).ways.items()}


def check_runtime(name: str, registry: Registry) -> Way:
    """The runtime of that name.

    Raises:
        UnknownNameError: there is no such runtime, or it does not run on this machine.
    """
    way = find_runtime(name, registry)
    why, fix = why_not(way)
    if why:
        here = ", ".join(each for each, reason in runtimes(registry).items() if not reason)
        raise UnknownNameError(
            f"the runtime {name!r} does not work here: {why}",
            f"{fix}; what does: {here}" if fix else f"what does: {here}",
        )
    return way


def load(
    way: Way, model: Path, *, target: TargetSpec | None = None, threads: int = 0, registry: Registry | None = None
) -> Runner:
    """A graph, what was built of it, or for a runtime of modules a bundle, ready to run. ``threads`` = 0: all cores.

    ``registry`` is for back ends that look up what a module is built from.

    Raises:
        MissingDependencyError: a package is not installed.
        BundleError, ExportError: it does not load the file.
        PluginError: the back end fails in a way that it does not explain.
    """
    backend = open_backend(way.backend)
    with blaming(way.backend, f"does not load {model.name}"):
        known: dict[str, Any] = {"registry": registry} if way.backend.takes_registry else {}
        return backend.load(model, runtime=way.runtime.name, target=target, threads=threads, **known)


def build(
    spec: BackendSpec,
    graph: Path,
    out: Path,
    target: TargetSpec,
    *,
    options: EngineOptions,
    progress: Progress = SILENT,
) -> None:
    """Write the form that a back end loads.

    Raises:
        MissingDependencyError: its package is not installed.
        ExportError: it refuses the graph or an option, or cannot build here.
        PluginError: it fails in a way that it does not explain, or wrote nothing.
    """
    options.check(spec.build_options, f"the back end {spec.name}")
    backend = open_backend(spec)
    with blaming(spec, f"does not build {graph.name}"):
        backend.build(graph, out, target, options=options, progress=progress)
    if not out.exists():
        raise PluginError(f"the back end {spec.name!r} wrote no {out.name}", "its plugin has to write what it is given")


def is_installed(spec: BackendSpec) -> bool:
    """Whether the module of its package is there; it is not imported."""
    try:
        return find_spec(spec.module) is not None
    except (ImportError, ValueError):  # of the package it is in
        return False


def install(spec: BackendSpec) -> str:
    """The line that installs its package."""
    quote = "'" if "[" in spec.package else ""
    return f"pip install {quote}{spec.package}{quote}"


def version_of(spec: BackendSpec) -> str:
    """The version of its package; "" where nobody knows."""
    return version_of_first(*spec.distributions, spec.package.partition("[")[0])


def _unusable(name: str, known: Backends) -> PluginError:
    return PluginError(
        f"the back end {name!r} cannot be used: {known.left_out[name]}",
        "rename its runtime, or uninstall one of the two",
    )


@contextmanager
def blaming(spec: BackendSpec, what: str) -> Iterator[None]:
    """Turn what a plugin's code raises into an error that names the back end; one of the family says it itself."""
    try:
        yield
    except PocketzooError:
        raise
    except ImportError as error:
        if (error.name or "").partition(".")[0] == spec.module.partition(".")[0] and not is_installed(spec):
            raise MissingDependencyError(
                f"the back end {spec.name!r} needs the package {spec.package!r}, which is not installed", install(spec)
            ) from error
        raise _broken(spec, what, error) from error
    except (Exception, SystemExit) as error:  # third-party code may fail in any way
        raise _broken(spec, what, error) from error


def _broken(spec: BackendSpec, what: str, error: BaseException) -> PluginError:
    return PluginError(
        f"the back end {spec.name!r} {what}: {in_a_line(error)}", f"see whether {spec.package} works: pocketzoo doctor"
    )
