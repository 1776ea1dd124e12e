"""Graphs of more than one message of protobuf takes, through every command: the limit is lowered, the graph small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.graphs.files import graph_files
from pocketzoo.zoo.graphs.files.weight_files import weight_files

WIDTH, LAYERS = 40, 3  # weights of 6,400 bytes each
LIMIT = 8_000


def model(opset: int = 17) -> onnx.ModelProto:
    """Rows of 40 through layers of MatMul, Gemm and an If, to 40."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 6, f"w{i}")
        for i in range(LAYERS)
    ]
    bias = numpy_helper.from_array(random.normal(size=WIDTH).astype(np.float32), "b")
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b"], ["g"], transB=1),
        helper.make_node("Tanh", ["g"], ["t"]),
        helper.make_node("MatMul", ["t", "w2"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [*weights, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the graph as torch writes it, and its data; what is opened is kept in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    onnx.save(model(), "net.onnx", save_as_external_data=True, location="net.onnx.data")
    x = np.random.default_rng(1).normal(size=(24, WIDTH)).astype(np.float32)
    np.savez("data.npz", x=x)
    np.savez("told.npz", x=x, y=np.tanh(x))
    return tmp_path


COMMANDS = [
    "info net.onnx", "verify net.onnx", "predict net.onnx data.npz", "profile net.onnx --seconds 0",
    "eval net.onnx --task regression --data told.npz",
    "bench net.onnx --data data.npz --seconds 0 --no-memory", "check net.onnx --target cpu",
    "check net.onnx --target tensorrt-rtx", "report net.onnx --data data.npz -o page.html",
    "open net.onnx -o out", "pack net.onnx -o out",
    "export net.onnx --to onnx -o out.onnx", "export net.onnx --to onnx --precision fp16 --target cuda -o out.onnx",
    "export net.onnx --to onnx --precision int8-fp16 --target tensorrt-rtx --data data.npz -o out.onnx",
    "export net.onnx --to trtexec --target tensorrt-rtx -o out.trtexec",
    "export net.onnx --to trtexec --target tensorrt-rtx --precision fp16 -o out.trtexec",
    "export net.onnx --to triton -o out.triton", "export net.onnx --to onnx --target openvino -o out.onnx",
    "compress net.onnx --int8 --data data.npz --target cpu --target tensorrt-rtx --keep-slower --accept -o out",
]  # fmt: skip


def written(folder: Path) -> dict[str, dict[str, bytes]]:
    """The constants of each graph that a command wrote, weights read from where they lie."""
    found = {}
    for path in sorted([*folder.glob("out*"), *folder.glob("out*/**/*")]):
        if path.suffix == ".onnx":
            found[path.name] = {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_the_same_above_the_limit(command, place, run, monkeypatch):
    usual = run(*command.split())
    assert usual.exit_code == 0, usual.stderr
    expected = written(place)
    assert not any(map(weight_files, place.glob("out*/**/*.onnx")))
    monkeypatch.setenv("POCKETZOO_HOME", str(place / "another"))
    monkeypatch.setattr(graph_files, "LARGEST", LIMIT)
    for path in place.glob("out*"):
        path.rename(place / f"usual-{path.name}")
    ended = run(*command.split())
    assert ended.exit_code == 0, ended.stderr
    assert written(place) == expected
    (opened,) = place.glob("another/**/model.onnx") if "check" not in command else [place / "net.onnx"]
    assert weight_files(opened)
    if command.startswith(("predict", "eval", "check")):
        assert ended.stdout == usual.stdout
    if expected:
        graphs = [path for path in (*place.glob("out*"), *place.glob("out*/**/*")) if path.suffix == ".onnx"]
        stored = {path.name: sum(map(len, expected[path.name].values())) for path in graphs}
        assert all(bool(weight_files(path)) == (stored[path.name] > LIMIT * 7 // 8) for path in graphs)


def test_a_bundle_of_a_large_graph_is_whole_only_with_its_weights(place, run, monkeypatch):
    monkeypatch.setattr(graph_files, "LARGEST", LIMIT)
    assert run("open", "net.onnx", "-o", "out").exit_code == 0
    bundle = read_bundle(place / "out")
    assert bundle.manifest.files["model.onnx.data"].of == "model.onnx"
    assert run("export", "out", "--to", "onnx").exit_code == 0  # into the bundle, in place of what is there
    ended = run("compress", "out", "--int8", "--data", "data.npz", "--keep-slower", "--accept", "-o", "small")
    assert ended.exit_code == 0, ended.stderr
    names = read_bundle(place / "small").manifest.files
    assert {"model.onnx", "model.onnx.data", "model.int8.cpu.onnx"} <= names.keys()
    assert json.loads(run("info", "small", "--json").stdout)["name"] == "small"
    assert run("pack", "small", "--target", "cuda", "-o", "packed").exit_code == 0
    assert "model.onnx.data" in read_bundle(place / "packed").manifest.files
    data = place / "out" / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    assert "model.onnx.data is damaged" in run("verify", "out").stderr
    data.unlink()
    assert "missing its file model.onnx.data" in run("verify", "out").stderr
