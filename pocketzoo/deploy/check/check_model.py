"""The ``check`` function: what a target will reject or run slowly, known before anything is built.

Rules read the graph alone; a parser or runtime that is installed here is then asked, and has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pocketzoo.core.errors import ExportError, PluginError, PocketzooError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.check.rules import RULES
from pocketzoo.deploy.export_graphs import graphs_for
from pocketzoo.zoo.backends.open_backend import backend_of, backends, blaming, open_backend
from pocketzoo.zoo.catalog.backend import BackendSpec, TargetFinding
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.tensor_sizes import check_tensor_sizes
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver

DLA = EngineOptions(dla=0)
NO_OPTIONS = EngineOptions()
LEVELS = ("refused", "slow", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All that was found of a graph, what is refused first."""

    graph: str  # file name
    target: str
    nodes: int
    asked: str  # which parser or runtime looked as well, or why none did
    findings: tuple[TargetFinding, ...]

    @property
    def refused(self) -> bool:
        """Whether the target cannot take it."""
        return any(finding.level == "refused" for finding in self.findings)


def check(
    model: str | Path,
    target: str,
    *,
    dla: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> CheckReport:
    """Check a graph (of a bundle, a registered model, or an ONNX file) against a target; what was built is loaded.

    ``dla``: also report what falls back from the target's deep learning accelerator to the GPU.

    Raises:
        UnknownNameError: an unknown model or target.
        MissingDependencyError: the package of the target's back end is not installed, which a built file needs.
        ExportError: the file is not an ONNX graph; the target has no DLA; an engine is of another version or GPU.
        PluginError: the back end of the target fails.
    """
    resolver = Resolver.of(registry)
    spec: TargetSpec = resolver.registry.get("target", target)
    options = DLA if dla else NO_OPTIONS
    owner, spec = backend_of(spec, resolver.registry)
    if dla and (owner is None or "dla" not in owner.build_options):
        raise ExportError(f"target {target!r} has no DLA", "leave out --dla, or use --target jetson-orin")
    path = Path(model)
    if path.suffix == ".onnx":
        return _checked(path, spec, owner, options)
    if path.suffix in {each.suffix for each in backends(resolver.registry).specs.values() if each.suffix}:
        return _built(path, spec, owner, options)
    bundle = open_model(model, registry=resolver, progress=progress)
    with scratch_folder() as folder:
        graphs = graphs_for(bundle, spec, resolver, folder)
        return _together({name: _checked(path, spec, owner, options) for name, path in graphs.items()})


def _together(reports: Mapping[str, CheckReport]) -> CheckReport:
    """The reports on an artifact's graphs as one: nodes of several are called "GRAPH:NODE"."""
    first = next(iter(reports.values()))
    if len(reports) == 1:
        return first
    findings = [
        replace(finding, nodes=tuple(f"{name}:{node}" for node in finding.nodes))
        for name, report in reports.items()
        for finding in (replace(each, what=f"{name}: {each.what}") for each in report.findings)
    ]
    return replace(
        first,
        graph=", ".join(report.graph for report in reports.values()),
        nodes=sum(report.nodes for report in reports.values()),
        findings=tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
    )


def check_graph(path: Path, target: TargetSpec, *, dla: bool = False, registry: Registry | None = None) -> CheckReport:
    """The same of one ONNX file."""
    owner, target = backend_of(target, registry or default_registry())
    return _checked(path, target, owner, DLA if dla else NO_OPTIONS)


def _checked(path: Path, target: TargetSpec, owner: BackendSpec | None, options: EngineOptions) -> CheckReport:
    graph = GraphIndex(load_graph(path))
    check_tensor_sizes(graph, path.name)
    findings = [finding for rule in RULES for finding in rule(graph, target)]
    asked, said = _ask(path, target, owner, options)
    foreseen = [f for f in findings if f.level == "refused"]
    nodes = {node for finding in foreseen for node in finding.nodes}
    for finding in said:  # what a rule foresaw need not be said twice, and a reason without nodes may be that
        twice = foreseen and finding.level == "refused" and set(finding.nodes) <= nodes
        findings += [finding] * (not twice)
    return CheckReport(
        graph=path.name,
        target=target.name,
        nodes=len(graph.nodes),
        asked=asked,
        findings=tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
    )


def _built(path: Path, target: TargetSpec, owner: BackendSpec | None, options: EngineOptions) -> CheckReport:
    """What a back end says of a file that it built, or another did."""
    if owner is None or owner.suffix != path.suffix:
        what = "has no engines" if owner is None or not owner.builds else f"does not run {path.suffix} files"
        raise ExportError(f"target {target.name!r} {what}", "name the target that it was built for: --target")
    asked, findings = _asked(path, target, owner, options)
    return CheckReport(graph=path.name, target=target.name, nodes=0, asked=asked, findings=findings)


def _ask(
    path: Path, target: TargetSpec, owner: BackendSpec | None, options: EngineOptions
) -> tuple[str, tuple[TargetFinding, ...]]:
    """The parser or runtime itself, where it is installed; where it fails, the rules alone speak."""
    if owner is None:
        return f"{target.name} names no back end, so that none was asked", ()
    try:
        return _asked(path, target, owner, options)
    except (ExportError, PluginError):
        raise
    except PocketzooError as error:
        return f"{error.message}, so that it was not asked", ()


def _asked(
    path: Path, target: TargetSpec, owner: BackendSpec, options: EngineOptions
) -> tuple[str, tuple[TargetFinding, ...]]:
    backend = open_backend(owner)
    with blaming(owner, f"fails at {path.name}"):
        asked, findings = backend.check(path, target, options=options)
        return str(asked), tuple(findings)
