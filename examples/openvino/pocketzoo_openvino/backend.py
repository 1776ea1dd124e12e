"""What OpenVINO can do with a graph: read it, write it in its own format, compile it and run it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.api import (
    Check,
    EngineOptions,
    ExportError,
    Progress,
    Support,
    TargetFinding,
    TargetSpec,
    nearest,
    require,
)
from pocketzoo_openvino import OpenVinoFacts

if TYPE_CHECKING:
    from pocketzoo_openvino.runner import OpenVinoRunner

SUFFIX, WEIGHTS = ".xml", ".bin"
UNREAD = re.compile(r"No conversion rule found for operations: (.*)")


class OpenVinoBackend:
    """Each method imports openvino when it is called, so that ``doctor`` can say that it is missing."""

    def why_not(self, runtime: str) -> str:
        return "" if find_spec("openvino") else "openvino is not installed"

    def support(self, target: TargetSpec, precision: str = "") -> Support:
        if not find_spec("openvino"):
            return Support(builds=False, runs=False, why="openvino is not installed", fix="pip install openvino")
        device, here = device_of(target), require("openvino").Core().available_devices
        if any(each.partition(".")[0] == device for each in here):
            return Support(builds=True, runs=True)
        why = f"OpenVINO finds no {device} here, but {', '.join(here) or 'nothing'}"
        return Support(builds=True, runs=False, why=why, fix="copy the bundle to a machine that has one")

    def check(self, model: Path, target: TargetSpec, *, options: EngineOptions) -> tuple[str, Sequence[TargetFinding]]:
        ov = require("openvino")
        from pocketzoo_openvino.runner import said

        core, asked = ov.Core(), f"asked OpenVINO {ov.__version__.partition('-')[0]}"
        try:
            core.compile_model(core.read_model(str(model)), device_of(target))
        except RuntimeError as error:  # the one type that OpenVINO raises
            if model.suffix != SUFFIX and (findings := unread(model, str(error))):
                return asked, findings
            return asked, [TargetFinding(level="refused", what=f"OpenVINO: {said(error)}", todo="see what it names")]
        return asked, ()

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        ov = require("openvino")
        from pocketzoo_openvino.runner import said

        progress.say(f"converting the graph with OpenVINO {ov.__version__.partition('-')[0]}")
        try:
            model = ov.Core().read_model(str(graph))
            if options.shapes:
                model.reshape(bounded(graph, options))
        except RuntimeError as error:
            raise ExportError(
                f"OpenVINO does not read {graph.name}: {said(error)}",
                f"list all findings: pocketzoo check MODEL --target {target.name}",
            ) from error
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:  # whole, or not at all
            written = Path(folder) / out.name
            ov.save_model(model, str(written), compress_to_fp16=False)  # the precision is the graph's
            for each in (written.with_suffix(WEIGHTS), written):
                shutil.move(each, out.with_name(each.name))

    def load(self, model: Path, *, runtime: str, target: TargetSpec | None = None, threads: int = 0) -> OpenVinoRunner:
        require("openvino")
        from pocketzoo_openvino.runner import OpenVinoRunner

        return OpenVinoRunner(model, device_of(target) if target is not None else "CPU", threads)


def device_of(target: TargetSpec) -> str:
    """OpenVINO's name of it."""
    return target.facts.device if isinstance(target.facts, OpenVinoFacts) else OpenVinoFacts().device


def unread(graph: Path, reason: str) -> list[TargetFinding]:
    """What OpenVINO's reader refuses by operator, with the nodes, of the reason that it gave; none where it is another.

    It writes "No conversion rule found for operations: Det-20, elsewhere.Own".
    """
    names = [name for line in UNREAD.findall(reason) for name in line.split(",")]
    operators = sorted({re.sub(r"-\d+$", "", name.strip()) for name in names} - {""})
    nodes = nodes_of(graph) if operators else {}
    return [
        TargetFinding(
            level="refused",
            what=f"OpenVINO does not read {operator}",
            todo="write it in other operators, or move it out of the graph",
            nodes=tuple(nodes.get(operator, ())),
        )
        for operator in operators
    ]


def nodes_of(graph: Path) -> dict[str, list[str]]:
    """Operator, by the name that OpenVINO gives it -> the nodes, those of branches and loops included."""
    import onnx

    found: dict[str, list[str]] = {}
    waiting = [onnx.load(graph, load_external_data=False).graph]
    while waiting:
        for node in waiting.pop().node:
            domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
            found.setdefault(f"{domain}{node.op_type}", []).append(node.name or node.output[0])
            waiting += [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    return found


def bounded(graph: Path, options: EngineOptions) -> dict[str, Any]:
    """The shapes of the inputs, with the least and largest length of the axes that were asked for.

    Raises:
        ExportError: the graph has no such axis.
    """
    import onnx
    import openvino as ov

    model = onnx.load(graph, load_external_data=False).graph
    constants = {tensor.name for tensor in model.initializer}
    shapes: dict[str, Any] = {}
    axes: set[str] = set()
    for value in model.input:
        if value.name in constants:
            continue
        dims = value.type.tensor_type.shape.dim
        axes |= {dim.dim_param for dim in dims if dim.dim_param}
        lengths = [options.shapes.get(dim.dim_param) for dim in dims]
        shapes[value.name] = ov.PartialShape(
            [
                ov.Dimension(asked[0], asked[2]) if asked else ov.Dimension(dim.dim_value or -1)
                for dim, asked in zip(dims, lengths, strict=True)
            ]
        )
    if unknown := [name for name in options.shapes if name not in axes]:
        raise ExportError(f"the graph has no dynamic axis {unknown[0]!r}", nearest(unknown[0], axes))
    return shapes


def examine() -> list[Check]:
    """The devices that OpenVINO finds."""
    if not find_spec("openvino"):
        return []
    core = require("openvino").Core()
    devices = [f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices]
    fix = "" if devices else "reinstall it: pip install --force-reinstall openvino"
    return [Check("OpenVINO devices", bool(devices), ", ".join(devices) or "none found", fix)]
