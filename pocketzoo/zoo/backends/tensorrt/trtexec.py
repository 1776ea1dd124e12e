"""Write the trtexec command that builds the same engine on a machine without pocketzoo."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from onnx import ModelProto

from pocketzoo.core.errors import ExportError
from pocketzoo.core.files import replacing_folder
from pocketzoo.zoo.backends.tensorrt.build_engine import check_axes
from pocketzoo.zoo.backends.tensorrt.facts import facts_of
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.index import graph_inputs
from pocketzoo.zoo.graphs.load_graph import load_graph

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


def save_script(graph: Path, out: Path, target: TargetSpec, request: ExportRequest) -> None:
    """Write the folder ``out``: the graph, and a script with the command."""
    words = command(load_graph(graph), target, request.options)
    with replacing_folder(out) as folder:
        shutil.copyfile(graph, folder / "model.onnx")
        script = folder / SCRIPT
        script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit\n{shlex.join(words)}\n', "utf8")
        os.chmod(script, 0o755)


def _shapes(model: ModelProto, options: EngineOptions) -> list[str]:
    """The profile of every input with a free axis."""
    texts: list[list[str]] = [[], [], []]
    axes: dict[str, Sizes] = {}
    for value in graph_inputs(model):
        dims = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            continue
        free = {d.dim_param: options.sizes(d.dim_param) for d in dims if not d.HasField("dim_value")}
        axes |= free
        for k, text in enumerate(texts):
            sizes = [d.dim_value if d.HasField("dim_value") else free[d.dim_param][k] for d in dims]
            text.append(f"{value.name}:{'x'.join(map(str, sizes))}")
    check_axes(axes, options)
    return [f"--{name}Shapes={','.join(text)}" for name, text in zip(("min", "opt", "max"), texts, strict=True) if text]
