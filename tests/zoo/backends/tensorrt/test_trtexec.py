"""The words of the command, and the folder it is written to."""

from __future__ import annotations

import os
import shlex
import subprocess

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import pocketzoo
from pocketzoo.core.errors import ExportError
from pocketzoo.deploy.export import export
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.trtexec import command
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.models.import_onnx import OnnxMetadata

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


def foreign(path, names=("x", "y"), shape=("n", 3, "height", "width")):
    """A convolution of images of any size."""
    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32) / 27, "w")
    nodes = [helper.make_node("Conv", [names[0], "w"], [names[1]], pads=[1] * 4)]
    ends = [
        helper.make_tensor_value_info(name, 1, dims)
        for name, dims in zip(names, (shape, ["n", 2, None, None]), strict=True)
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_lengths_that_the_bundle_knows_are_those_of_the_engine(tmp_path):
    """Images are scaled to one size before the graph has them."""
    bundle = pocketzoo.open_graph(foreign(tmp_path / "any.onnx"), OnnxMetadata(size=40))
    words = (export(bundle.path, to="trtexec", out=tmp_path / "t") / "build.sh").read_text()
    for name, batch in (("min", 1), ("opt", 8), ("max", 32)):
        assert f"--{name}Shapes=x:{batch}x3x40x40" in words
    asked = EngineOptions(shapes={"height": (32, 40, 64)})
    words = (export(bundle.path, to="trtexec", out=tmp_path / "u", engine=asked) / "build.sh").read_text()
    assert "--minShapes=x:1x3x32x40" in words
    assert "--maxShapes=x:32x3x64x40" in words


def test_a_name_with_a_colon_is_quoted_for_trtexec(tmp_path):
    """Tensorflow's names have them, and trtexec ends a name there."""
    model = onnx.load(foreign(tmp_path / "tf.onnx", names=("images:0", "out:0")))
    words = command(model, TARGETS["tensorrt"], EngineOptions())
    assert "--optShapes='images:0':8x3x8x8" in words
    assert shlex.split(shlex.join(words)) == words


def test_an_axis_without_a_name_can_be_given_lengths(tmp_path):
    model = onnx.load(foreign(tmp_path / "any.onnx", shape=("n", 3, "height", None)))
    words = command(model, TARGETS["tensorrt"], EngineOptions(shapes={"x_3": (8, 16, 24)}))
    assert "--maxShapes=x:32x3x32x24" in words


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
