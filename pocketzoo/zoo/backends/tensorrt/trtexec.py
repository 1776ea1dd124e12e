"""Write the trtexec command that builds the same engine on a machine without pocketzoo."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from onnx import ModelProto

from pocketzoo.core.errors import ExportError
from pocketzoo.core.files import replacing_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.tensorrt.build_engine import check_axes
from pocketzoo.zoo.backends.tensorrt.engine_graph import engine_graph
from pocketzoo.zoo.backends.tensorrt.facts import facts_of
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.files.weight_files import copy_graph
from pocketzoo.zoo.graphs.signature import signature_of

SCRIPT = "build.sh"
TOOLS = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}  # the module -> the tool that comes with it


def command(model: ModelProto, target: TargetSpec, options: EngineOptions, *, graph: str = "model.onnx") -> list[str]:
    """The words of the command; it reads ``graph`` and writes ``model.engine``.

    Raises:
        ExportError: the target has no engines, or the graph no such axis.
    """
    facts = facts_of(target)
    if facts.module not in TOOLS:
        raise ExportError(f"{facts.module} has no command that builds engines", "try --target tensorrt")
    words = [TOOLS[facts.module], f"--onnx={graph}", "--saveEngine=model.engine"]
    if facts.module == "tensorrt" and 10 in facts.versions:  # later ones know no other networks
        words.append("--stronglyTyped")
    words += _shapes(model, options)
    words += ["--versionCompatible"] * options.version_compatible
    if options.hardware_compatible and facts.module == "tensorrt":
        words.append("--hardwareCompatibilityLevel=ampere+")
    words += ["--stripWeights"] * options.stripped
    if options.dla is not None:
        words += [f"--useDLACore={options.dla}", "--allowGPUFallback"]
    if options.workspace:
        words.append(f"--memPoolSize=workspace:{options.workspace}")
    return words


def save_script(
    graph: Path, out: Path, target: TargetSpec, request: ExportRequest, progress: Progress = SILENT
) -> None:
    """Write the folder ``out``: the graph, and a script with the command."""
    words = command(load_graph(graph), target, request.options)
    with replacing_folder(out) as folder:
        with engine_graph(graph, request.options, progress) as source:
            if isinstance(source, Path):
                copy_graph(source, folder / "model.onnx")
            else:
                (folder / "model.onnx").write_bytes(source)
        script = folder / SCRIPT
        script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit\n{shlex.join(words)}\n', "utf8")
        os.chmod(script, 0o755)


def _quoted(name: str) -> str:
    """trtexec takes a name in quotes where it has a colon, which ends names otherwise."""
    return f"'{name}'" if ":" in name else name


def _shapes(model: ModelProto, options: EngineOptions) -> list[str]:
    """The profile of every input with a free axis."""
    texts: list[list[str]] = [[], [], []]
    axes: dict[str, Sizes] = {}
    for tensor in signature_of(model).inputs:
        free = {name: options.sizes(name) for name in tensor.free.values()}
        axes |= free
        for k, text in enumerate(texts if free else ()):
            sizes = [free[dim][k] if isinstance(dim, str) else dim for dim in tensor.shape]
            text.append(f"{_quoted(tensor.name)}:{'x'.join(map(str, sizes))}")
    check_axes(axes, options)
    return [f"--{name}Shapes={','.join(text)}" for name, text in zip(("min", "opt", "max"), texts, strict=True) if text]
