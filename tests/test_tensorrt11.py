"""Every command of docs/tensorrt11.md is run, in its order, on a graph, samples and a calibration cache."""

from __future__ import annotations

import json
import re
import shlex
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

PAGE = (Path(__file__).parent.parent / "docs" / "tensorrt11.md").read_text("utf8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def write_inputs(folder):
    random = np.random.default_rng(0)
    shapes = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (64, 32, 3, 3), "w3": (10, 64), "b3": (10,)}
    constants = [
        numpy_helper.from_array((random.normal(size=s) * (2 / np.prod(s[1:])) ** 0.5).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["images", "w1", "b1"], ["c1"], pads=[1] * 4), node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, strides=[2, 2]), node("Relu", ["c2"], ["r2"]),
            node("GlobalAveragePool", ["r2"], ["p"]), node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w3", "b3"], ["scores"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("images", 1, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", 1, ["batch", 10])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "theirs.onnx")
    images = random.normal(size=(48, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "samples.npz", images=images)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(map(helper.make_empty_tensor_value_info, ("r1", "r2", "p", "f")))
    session = onnxruntime.InferenceSession(watched.SerializeToString())
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": images}), strict=True))
    lines = [
        f"{name}: {struct.pack('>f', np.abs(value).max() / 127).hex()}"
        for name, value in {**values, "images": images}.items()
    ]
    (folder / "calibration.cache").write_text("TRT-8601-EntropyCalibration2\n" + "\n".join(lines) + "\n")
    return model, images


def decibels(path, model, images):
    """Of a graph's output against the float one's."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    ours = onnxruntime.InferenceSession(str(path), options).run(None, {"images": images})[0]
    theirs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})[0]
    return 10 * np.log10(np.square(theirs).sum() / np.square(ours - theirs).sum())


def types(path):
    return {t.data_type for t in onnx.load(path).graph.initializer}


HALF, INT8, FP8 = onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.FLOAT8E4M3FN


def test_every_command_does_what_the_page_says(run, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed, and the page builds an engine")
    monkeypatch.chdir(tmp_path)
    model, images = write_inputs(tmp_path)
    assert len(COMMANDS) >= 8
    for line in COMMANDS:
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.stderr}"
    graphs = {path.parent.name.partition(".")[0]: path for path in tmp_path.glob("*.trtexec/model.onnx")}
    graphs["graph"] = tmp_path / "half.onnx"
    found = {name: types(path) for name, path in graphs.items()}
    for name in ("half", "graph", "mixed", "small", "fp8"):
        assert HALF in found[name], name
        assert onnx.TensorProto.FLOAT not in found[name], name
    for name in ("int8", "mixed", "small", "cached"):
        assert INT8 in found[name], name
    assert FP8 in found["fp8"]
    ratios = {name: decibels(path, model, images) for name, path in graphs.items()}
    assert ratios["half"] > 50
    assert min(ratios[name] for name in ("int8", "cached", "small", "mixed")) > 20, ratios
    assert ratios["fp8"] > 12
    props = {p.key: p.value for p in onnx.load(graphs["graph"]).metadata_props}
    assert json.loads(props["pocketzoo.fp16"])["sqnr"]["scores"] > 50
    assert (tmp_path / "half.engine").stat().st_size > 1000


def test_without_tensorrt_it_is_said_before_anything_is_read(run, tmp_path):
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    done = run("export", tmp_path / "no.onnx", "--to", "tensorrt", "--precision", "fp16")
    assert done.exit_code == 1
    error, hint = done.stderr.strip().splitlines()
    assert "no engine can be built here: this needs the package 'tensorrt', which is not installed" in error
    assert "--to trtexec --target tensorrt" in hint
