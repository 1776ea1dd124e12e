"""The words of the command, and the folder it is written to."""

from __future__ import annotations

import os
import shlex
import subprocess

import onnx
import pytest

from pocketzoo.core.errors import ExportError
from pocketzoo.deploy.export import export
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.trtexec import command
from pocketzoo.zoo.catalog.engine_options import EngineOptions

TARGETS = {t.name: t for t in pocketzoo_targets()}


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("tensorrt-10", {}, {"trtexec", "--stronglyTyped", "--minShapes=image:1x1x28x28"}),
        ("tensorrt-11", {}, {"trtexec", "--optShapes=image:8x1x28x28", "--maxShapes=image:32x1x28x28"}),
        ("tensorrt-10", {"version_compatible": True}, {"--versionCompatible"}),
        ("tensorrt-10", {"hardware_compatible": True}, {"--hardwareCompatibilityLevel=ampere+"}),
        ("tensorrt-11", {"stripped": True}, {"--stripWeights"}),
        ("tensorrt-10", {"workspace": 64}, {"--memPoolSize=workspace:64"}),
        ("tensorrt-rtx", {}, {"tensorrt_rtx"}),
        ("jetson-orin", {"dla": 1, "shapes": {"batch": (8, 8, 8)}},
         {"--useDLACore=1", "--allowGPUFallback", "--optShapes=image:8x1x28x28"}),
    ],
)  # fmt: skip
def test_what_was_asked_for_is_in_the_command(fitted, target, options, words):
    found = command(onnx.load(fitted.graph("")), TARGETS[target], EngineOptions(**options))
    assert words <= set(found)
    assert ("--stronglyTyped" in found) == (10 in TARGETS[target].facts.versions)
    assert len(found) == len(set(found))


def test_the_folder_holds_the_graph_and_a_script_that_runs_the_tool(compressed, tmp_path):
    out = export(compressed.path, to="trtexec", target="tensorrt", out=tmp_path / "build")
    assert sorted(p.name for p in out.iterdir()) == ["build.sh", "model.onnx"]
    assert onnx.load(out / "model.onnx").graph.node
    tool = tmp_path / "trtexec"  # in its place something that says what it is given
    tool.write_text('#!/bin/sh\necho "$0" "$@"; ls\n')
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([out / "build.sh"], capture_output=True, text=True, check=True, env=path, cwd=tmp_path)
    said, *listed = done.stdout.splitlines()
    assert shlex.split(said)[1:] == command(
        onnx.load(out / "model.onnx"), TARGETS["tensorrt"], EngineOptions()
    )[1:]  # fmt: skip
    assert "model.onnx" in listed


def test_the_command_is_printed(run, fitted, tmp_path):
    done = run("export", fitted.path, "--to", "trtexec", "--shape", "batch=2", "-o", tmp_path / "t")
    assert done.exit_code == 0
    assert done.stdout.startswith("trtexec --onnx=model.onnx ")
    assert "--optShapes=image:2x1x28x28" in done.stdout


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"shapes": {"bacth": (1, 1, 1)}}, "no dynamic axis 'bacth'", "'batch'"),
        ({"dla": 0}, "DLA needs static shapes, and 'batch' is dynamic", "--shape batch=8"),
    ],
)
def test_axes_that_cannot_be(fitted, refused, options, what, hint):
    with refused(ExportError, what, hint=hint):
        command(onnx.load(fitted.graph("")), TARGETS["jetson-orin"], EngineOptions(**options))


def test_a_target_without_engines_has_no_command(fitted, refused):
    with refused(ExportError, "'cpu' has no engines"):
        command(onnx.load(fitted.graph("")), TARGETS["cpu"], EngineOptions())
