"""The ``check`` function: what a target will reject or run slowly, known before anything is built.

Rules read the graph alone; a parser or runtime that is installed here is then asked, and has the last word.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import ExportError, PocketzooError
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.check.dla_rules import DLA_RULES
from pocketzoo.deploy.check.rules import RULES, Finding
from pocketzoo.deploy.export import graph_for
from pocketzoo.zoo.backends.onnxruntime.providers import available
from pocketzoo.zoo.backends.onnxruntime.session import FATAL, open_session
from pocketzoo.zoo.backends.tensorrt.build_engine import check_engine, refusals
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.load_graph import load_graph
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All that was found of a graph, what is refused first."""

    graph: str  # file name
    target: str
    nodes: int
    asked: str  # which parser or runtime looked as well, or why none did
    findings: tuple[Finding, ...]

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
    """Check a graph (of a bundle, a registered model, or an ONNX file) against a target; an engine is loaded.

    ``dla``: also report what falls back from the target's deep learning accelerator to the GPU.

    Raises:
        UnknownNameError: an unknown model or target.
        MissingDependencyError: an engine's package is not installed.
        ExportError: the file is not an ONNX graph; the target has no DLA; an engine is of another version or GPU.
    """
    resolver = Resolver.of(registry)
    spec: TargetSpec = resolver.registry.get("target", target)
    if dla and spec.dla is None:
        raise ExportError(f"target {target!r} has no DLA", "leave out --dla, or use --target jetson-orin")
    path = Path(model)
    if path.suffix == ".engine":
        check_engine(path, spec)
        asked = f"loaded by {spec.engine} on {find_gpu()}"
        return CheckReport(graph=path.name, target=target, nodes=0, asked=asked, findings=())
    if path.suffix == ".onnx":
        return check_graph(path, spec, dla=dla)
    bundle = open_model(model, registry=resolver, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        return check_graph(graph_for(bundle, spec, resolver, Path(folder)), spec, dla=dla)


def check_graph(path: Path, target: TargetSpec, *, dla: bool = False) -> CheckReport:
    """The same of one ONNX file."""
    graph = GraphIndex(load_graph(path))
    rules = [*RULES, *(DLA_RULES if dla else ())]
    findings = [finding for rule in rules for finding in rule(graph, target)]
    asked, said = _ask(path, target)
    if said and not any(f.level == "refused" for f in findings):
        findings += said  # what a rule foresaw need not be said twice
    order = ("refused", "slow", "note")
    return CheckReport(
        graph=path.name,
        target=target.name,
        nodes=len(graph.nodes),
        asked=asked,
        findings=tuple(sorted(findings, key=lambda f: order.index(f.level))),
    )


def _ask(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    """The parser or runtime itself, where it is installed; TensorRT-RTX stands in for its twin."""
    if target.engine:
        return _ask_parser(path, target)
    return _ask_runtime(path, target)


def _ask_parser(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    for module in dict.fromkeys((target.engine, "tensorrt_rtx")):
        try:
            reasons = refusals(path, module)
        except PocketzooError:  # it is not installed, or does not start
            continue
        twin = "" if module == target.engine else f" (in place of {target.engine}, which is not installed)"
        todo = f"compress the model for it (--target {target.name}), or change these nodes"
        asked = f"asked the parser of {module}{twin}"
        return asked, [Finding(level="refused", what=f"{module}: {reason}", todo=todo) for reason in reasons]
    return f"{target.engine} is not installed, so no parser was asked", []


def _ask_runtime(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    require("onnxruntime", extra="compress")
    if target.provider not in available():
        return f"onnxruntime has no {target.provider} here, so it was not asked", []
    try:
        open_session(path, providers=[target.provider], severity=FATAL)
    except Exception as error:  # onnxruntime's own types
        reason = " ".join(str(error).split())
        return "asked onnxruntime", [Finding(level="refused", what=f"onnxruntime: {reason}", todo="see what it names")]
    return "asked onnxruntime", []
