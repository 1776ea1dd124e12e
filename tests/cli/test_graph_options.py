"""Commands that take a .onnx file, and what such a file does not say."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle

SIZE = ("--size", "8x12", "--mean", "0.5", "--std", "0.25")


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """Images of any size to four scores, and their mean."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    made = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    np.savez("data.npz", x=np.random.default_rng(1).normal(size=(20, 3, 8, 12)).astype(np.float32))
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("command", ["compress net.onnx --int8 -o out", "eval net.onnx"])
def test_a_command_without_its_data_says_what_the_file_takes(command, graph, run):
    ended = run(*command.split())
    assert ended.exit_code == 2
    takes = "an .npz with 'x' (float32 n x 3 x h x w_), samples along the first axis; or a folder of image files"
    assert f"Error: Missing option '--data': net.onnx takes {takes}" in ended.stderr
    other = run(*command.replace("net.onnx", "digits").split())
    assert (other.exit_code, other.stderr.splitlines()[-1]) == (2, "Error: Missing option '--data'.")


@pytest.mark.parametrize(
    "command",
    [
        "info net.onnx", "verify net.onnx", "predict net.onnx data.npz", "profile net.onnx --seconds 0",
        "bench net.onnx --data data.npz --seconds 0 --no-memory", "check net.onnx --target cpu",
        "export net.onnx -o out.onnx", "pack net.onnx -o packed", "open net.onnx -o opened",
        "compress net.onnx --int8 --data data.npz -o small --keep-slower --accept",
    ],
)  # fmt: skip
def test_every_command_takes_a_file_with_what_it_does_not_say(command, graph, run):
    words = command.split()
    first = run(*words)
    if "data.npz" in words:  # its arrays show the size
        assert first.exit_code == 0, first.stderr
    elif words[0] != "check":  # which asks nothing of images
        assert first.exit_code == 1
        assert first.stderr.splitlines()[-2:] == [
            "error: net.onnx reads images of any size",
            "hint:  say which one with --size HEIGHTxWIDTH and, to read image files, how they are scaled with --mean "
            "and --std; if they are none: --processor arrays",
        ]
    if "-o" in words:
        words.append("--force")
    second = run(*words, *SIZE)
    assert second.exit_code == 0, second.stderr


def test_a_model_without_a_task_predicts_what_its_outputs_are(graph, run):
    rows = json.loads(run("predict", graph, "data.npz", *SIZE, "--json").stdout)
    assert len(rows) == 20
    assert rows[0]["y"]["shape"] == [4]
    assert len(rows[0]["y"]["first"]) == 4


def test_a_file_is_opened_once_and_kept(graph, run):
    (graph.parent / "labels.txt").write_text("a\nb\nc\nd\n")
    result = run("open", graph, *SIZE, "--labels", "labels.txt", "--task", "image-classification", "-o", "theirs")
    assert result.exit_code == 0, result.stderr
    manifest = read_bundle(graph.parent / "theirs").manifest
    assert (manifest.task, manifest.labels) == ("image-classification", tuple("abcd"))
    assert manifest.input.shape == ("batch", 3, 8, 12)
    assert "top" in json.loads(run("predict", "theirs", "data.npz", "--json").stdout)[0]
    again = run("open", graph, *SIZE, "-o", "theirs")
    assert (again.exit_code, again.stderr.splitlines()[0]) == (1, "error: theirs is already a finished bundle")
    assert run("open", graph, *SIZE, "-o", "theirs", "--force").exit_code == 0
    assert read_bundle(graph.parent / "theirs").manifest.labels == ()


def test_options_of_a_file_are_for_files(graph, run):
    run("open", graph, *SIZE, "-o", "theirs")
    result = run("info", "theirs", "--size", "8")
    assert result.exit_code == 2
    assert "--size is for a .onnx file; other models know theirs" in result.stderr


def test_free_axes_are_as_long_as_the_data_has_them(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "time", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "time", 5])]
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), "w")
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", inputs, outputs, [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    np.savez("data.npz", x=np.random.default_rng(1).normal(size=(20, 50, 4)).astype(np.float32))
    done = run("compress", "net.onnx", "--int8", "--data", "data.npz", "-o", "small", "--keep-slower", "--accept")
    assert done.exit_code == 0, done.stderr
    manifest = read_bundle(tmp_path / "small").manifest
    assert manifest.processor.config["lengths"] == {"time": 50}
    assert manifest.macs == 50 * 4 * 5
    told = run("bench", "net.onnx", "--data", "data.npz", "--axis", "time=7", "--seconds", "0", "--no-memory")
    assert told.exit_code == 0, told.stderr


@pytest.mark.parametrize(("rows", "shape"), [((5, 3, 8), [3, 4]), ((5, 8), [4])])
def test_data_decides_whether_a_fixed_first_axis_counts_samples(rows, shape, tmp_path, monkeypatch, run):
    """Of three rows of eight numbers, each by itself, nobody knows whether they are three samples or one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4])],
        [numpy_helper.from_array(np.eye(8, 4, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "m.onnx")
    x = np.random.default_rng(0).normal(size=rows).astype(np.float32)
    np.savez("d.npz", x=x)
    result = run("predict", "m.onnx", "d.npz", "--json")
    assert result.exit_code == 0, result.stderr
    answers = json.loads(result.stdout)
    assert [each["y"]["shape"] for each in answers] == [shape] * 5
    first = [pytest.approx(row[0, :4].tolist()) for row in x.reshape(5, -1, 8)]
    assert [each["y"]["first"][:4] for each in answers] == first
    assert ("a row of the data is all that a run reads" in result.stderr) is (len(rows) == 3)
    assert run("bench", "m.onnx", "--data", "d.npz", "--seconds", 0, "--batch", 2, "--no-memory").exit_code == 0


@pytest.mark.parametrize("axis", [(), ("--classes-axis", "y:1"), ("--classes-axis", "-3")])
def test_labels_of_maps_are_of_each_position(axis, graph, tmp_path, run):
    model = onnx.load(graph)
    model.graph.node[1].output[0] = "y"
    del model.graph.node[2:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h", "w_"]))
    onnx.save(model, "maps.onnx")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    x = np.load("data.npz")["x"]
    with OnnxRunner(tmp_path / "maps.onnx") as runner:
        right = runner.infer({"x": x})["y"].argmax(1)
    np.savez("known.npz", x=x, y=right)
    options = (*SIZE, "--labels", "labels.txt", *axis)
    rows = json.loads(run("predict", "maps.onnx", "known.npz", *options, "--json").stdout)
    assert [row["tokens"] for row in rows] == [["abcd"[i] for i in each.ravel()] for each in right]
    assert json.loads(run("eval", "maps.onnx", "--data", "known.npz", *options, "--json").stdout)["token accuracy"] == 1
    ended = run("compress", "maps.onnx", "--int8", "--data", "known.npz", *options, "-o", "small", "--keep-slower")
    assert ended.exit_code == 0, ended.stderr
    row = read_bundle("small").manifest.measurements[-1]
    assert 0.8 < row.agreement <= 1
    assert row.metric.value == pytest.approx(row.agreement)  # the float graph is always right


def test_an_axis_that_is_no_number_is_refused(graph, run):
    ended = run("info", graph, *SIZE, "--classes-axis", "y:")
    assert (ended.exit_code, "write 1, or scores:1" in ended.stderr) == (2, True)
