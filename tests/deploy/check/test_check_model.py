"""A graph of one fault at a time, and what is said of it; what is said to be refused, NVIDIA's parser refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import ExportError, MissingDependencyError, UnknownNameError, UnsafeFileError
from pocketzoo.deploy.check.check_model import check, check_graph
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.dla_rules import off_dla
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.graphs.index import GraphIndex

TARGETS = {t.name: t for t in pocketzoo_targets()}
RTX, ORIN, CPU = TARGETS["tensorrt-rtx"], TARGETS["jetson-orin"], TARGETS["cpu"]
FLOAT = TensorProto.FLOAT


@pytest.fixture
def graph(tmp_path):
    """Write a graph: x (batch, 16, 16, 16) through the nodes, which make y."""

    def write(*nodes, constants=(), shape=("batch", 16, 16, 16), kind=FLOAT, opset=20, out=FLOAT):
        made = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", out, None)],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(constants).items()],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("elsewhere", 1)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=10)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write


def conv(out=16, into=16, groups=1, side=3, **attributes):
    w = np.random.default_rng(0).normal(size=(out, into // groups, side, side)).astype(np.float32)
    return helper.make_node("Conv", ["x", "w"], ["y"], "layer", group=groups, **attributes), {"w": w}


def levels(report):
    return {(f.level, f.nodes) for f in report.findings}


def the(report, level):
    (finding,) = [f for f in report.findings if f.level == level]
    return finding


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_plain_convolution_suits_every_target(graph, name):
    node, w = conv()
    report = check_graph(graph(node, constants=w), TARGETS[name])
    assert report.findings == ()
    assert not report.refused


@pytest.mark.parametrize(
    ("node", "level", "says"),
    [
        (helper.make_node("Det", ["x"], ["y"], "odd"), "refused", "has no Det"),
        (helper.make_node("Own", ["x"], ["y"], "odd", domain="elsewhere"), "refused", "elsewhere.Own"),
        (helper.make_node("NonZero", ["x"], ["y"], "odd"), "refused", "has no NonZero"),
        (helper.make_node("NonZero", ["x"], ["y"], "odd"), "slow", "runs NonZero slowly"),
    ],
)
def test_an_operator_is_named_with_its_node(graph, node, level, says):
    out = TensorProto.INT64 if node.op_type == "NonZero" else FLOAT
    report = check_graph(graph(node, out=out), RTX if level == "refused" else TARGETS["cuda"])
    finding = the(report, level)
    assert says in finding.what
    assert finding.nodes == ("odd",)
    assert finding.todo
    assert report.refused or level == "slow"


def test_a_newer_opset_is_refused_by_what_reads_older_ones(graph):
    node, w = conv()
    path = graph(node, constants=w, opset=21)
    assert "in opset 21, jetson-orin reads up to 20" in the(check_graph(path, ORIN), "refused").what
    assert not check_graph(path, RTX).refused


def test_channels_that_fall_off_tensor_cores(graph):
    node, w = conv(out=12)
    path = graph(node, constants=w)
    assert the(check_graph(path, RTX), "slow").nodes == ("layer (16 to 12)",)
    assert check_graph(path, CPU).findings == ()
    node, w = conv(groups=16)
    assert "depthwise" in the(check_graph(graph(node, constants=w), RTX), "note").what


def test_zero_points_and_wide_biases_are_refused_by_nvidia(compressed):
    report = check(compressed.path, "tensorrt-rtx")
    assert not report.refused
    report = check(compressed.graph("cpu"), "tensorrt-rtx")
    assert report.refused
    refused = [f for f in report.findings if f.level == "refused"]
    assert [f.what.split(":")[0] for f in refused] == ["zero points that are not 0", "biases in int32"]
    assert all("--target tensorrt-rtx" in f.todo for f in refused)
    assert not check(compressed.path, "cpu").refused


def test_layers_left_in_float_are_listed(compressed, tmp_path):
    """One layer's integers become floats again."""
    model = onnx.load(compressed.graph("tensorrt-rtx"))
    constants = {t.name: t for t in model.graph.initializer}
    layer = next(n for n in model.graph.node if n.op_type == "Conv")
    pair = next(n for n in model.graph.node if n.output[0] == layer.input[1])
    shape = numpy_helper.to_array(constants[pair.input[0]]).shape
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "own"))
    layer.input[1] = "own"
    onnx.save(model, tmp_path / "m.onnx")
    found = [f for f in check_graph(tmp_path / "m.onnx", RTX).findings if "not in int8" in f.what]
    assert [f.nodes for f in found] == [(layer.name,)]


def test_free_axes_are_said_where_engines_are_built(graph):
    node = helper.make_node("Relu", ["x"], ["y"], "r")
    path = graph(node, shape=("batch", "sequence", 32))
    assert "sequence" in the(check_graph(path, RTX), "note").what
    assert check_graph(path, CPU).findings == ()


def test_types_that_a_gpu_does_not_have(graph):
    node = helper.make_node("Relu", ["x"], ["y"], "r")
    double = check_graph(graph(node, kind=TensorProto.DOUBLE, out=TensorProto.DOUBLE), RTX)
    assert "float64 tensors" in the(double, "slow").what
    text = helper.make_node("Identity", ["x"], ["y"], "words")
    said = check_graph(graph(text, kind=TensorProto.STRING, out=TensorProto.STRING), RTX)
    assert "string" in said.findings[0].what
    half = graph(node, kind=TensorProto.FLOAT16, out=TensorProto.FLOAT16)
    assert "in fp16, and cpu computes in fp32, int8" in the(check_graph(half, CPU), "slow").what
    brain = graph(node, kind=TensorProto.BFLOAT16, out=TensorProto.BFLOAT16)
    assert "in bf16" in check_graph(brain, TARGETS["openvino"]).findings[0].what


# -- DLA


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (conv(), ""),
        (conv(side=33, pads=[16] * 4), "window is larger than 32"),
        (conv(strides=[9, 9], pads=[1] * 4), "stride is larger than 8"),
        ((helper.make_node("MaxPool", ["x"], ["y"], "layer", kernel_shape=[9, 9]), {}), "window is larger than 8"),
        ((helper.make_node("MaxPool", ["x"], ["y"], "layer", kernel_shape=[8, 8]), {}), ""),
        ((helper.make_node("Erf", ["x"], ["y"], "layer"), {}), "DLA has no such operators"),
        ((helper.make_node("MatMul", ["x", "x"], ["y"], "layer"), {}), "a product of two activations"),
    ],
)
def test_what_dla_leaves_to_the_gpu(graph, made, reason):
    node, constants = made
    path = graph(node, constants=constants, shape=(8, 16, 16, 16))
    found = [f for f in check_graph(path, ORIN, dla=True).findings if "not on DLA" in f.what]
    assert [f.nodes for f in found] == ([(f"layer ({node.op_type})",)] if reason else [])
    assert all(reason in f.what for f in found)


KERNEL = {"kernel_shape": [3, 3]}
LARGEST = {  # NVIDIA, "Working with DLA", TensorRT 10: layers and restrictions; of a batch 4096
    "kernel": 32, "stride": 8, "window": 8, "window_stride": 16, "channels": 8192, "size": 8192, "batch": 4096,
}  # fmt: skip


def test_the_ranges_of_dla_are_nvidias():
    assert ORIN.facts.dla is not None
    assert {name: getattr(ORIN.facts.dla, name) for name in LARGEST} == LARGEST


def node(op: str, inputs: tuple[str, ...] = ("x", "w"), **attributes):
    return helper.make_node(op, inputs, ["y"], "layer", **attributes)


def reading(op, weight=(), shape=(8, 16, 64, 64), made=None, **attributes):
    """A graph of one node as rules see it: x of ``shape``, w of ``weight``, y of ``made``, none of it allocated."""
    info = helper.make_tensor_value_info
    w = TensorProto(name="w", data_type=FLOAT, dims=weight, raw_data=b"")
    out = info("y", FLOAT, made or (8, 16, 64, 64))
    inputs = ("x", "w") if weight else ("x",)
    graph = helper.make_graph(
        [node(op, inputs, **attributes)], "g", [info("x", FLOAT, shape)], [out], [w] if weight else []
    )
    return GraphIndex(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.mark.parametrize(
    ("fits", "exceeds", "reason"),
    [
        *[
            (
                {"op": op, "weight": (16, 16, 32, 32)},
                {"op": op, "weight": (16, 16, *kernel)},
                "its window is larger than 32",
            )
            for op in ("Conv", "ConvTranspose")
            for kernel in ((33, 3), (3, 33))
        ],
        *[
            (
                {"op": op, "weight": (16, 16, 3, 3), "strides": [8, 8]},
                {"op": op, "weight": (16, 16, 3, 3), "strides": strides},
                "its stride is larger than 8",
            )
            for op in ("Conv", "ConvTranspose")
            for strides in ([9, 1], [1, 9])
        ],
        *[
            ({"op": op, "kernel_shape": [8, 8]}, {"op": op, "kernel_shape": kernel}, "its window is larger than 8")
            for op in ("AveragePool", "MaxPool")
            for kernel in ([9, 1], [1, 9])
        ],
        *[
            (
                {"op": op, **KERNEL, "strides": [16, 16]},
                {"op": op, **KERNEL, "strides": strides},
                "its stride is larger than 16",
            )
            for op in ("AveragePool", "MaxPool")
            for strides in ([17, 1], [1, 17])
        ],
        *[
            (
                {"op": "Conv", "weight": (8192, 8192, 1, 1)},
                {"op": "Conv", "weight": weight},
                "more than 8192 channels",
            )
            for weight in ((8193, 16, 1, 1), (16, 8193, 1, 1))
        ],
        *[
            ({"op": "Relu", "made": (9000, 8192, 8192)}, {"op": "Relu", "made": made}, "an axis is longer than 8192")
            for made in ((8, 8193, 2), (8, 2, 8193))
        ],
        ({"op": "Relu", "made": (8, "sequence", 2)}, {"op": "Erf"}, "DLA has no Erf"),
        ({"op": "Conv", "weight": (16, 16, 3, 3)}, {"op": "Conv", "weight": (16, 16, 3)}, "it is not 2-D"),
        ({"op": "Conv", "weight": (16, 16, 3, 3)}, {"op": "Conv", "weight": (16, 16, 3, 3, 3)}, "it is not 2-D"),
        ({"op": "MaxPool", **KERNEL}, {"op": "MaxPool", "kernel_shape": [3]}, "it is not 2-D"),
        (
            {"op": "Conv", "weight": (16, 1, 3, 3), "group": 16},
            {"op": "ConvTranspose", "weight": (16, 1, 3, 3), "group": 2},
            "a grouped deconvolution",
        ),
        ({"op": "Gemm", "weight": (64, 64)}, {"op": "Gemm"}, "a product of two activations"),
        ({"op": "Relu"}, {"op": "DequantizeLinear", "weight": (1,)}, "Q/DQ nodes"),
    ],
)  # fmt: skip
def test_dla_takes_what_is_within_its_ranges_and_no_more(fits, exceeds, reason):
    for facts, wanted in ((fits, ""), (exceeds, reason)):
        if facts["op"] == "Gemm" and "weight" not in facts:
            graph = reading("Gemm")
            (found,) = graph.nodes
            found.input.append("x")
        else:
            graph = reading(**facts)
            (found,) = graph.nodes
        said = off_dla(found, graph, ORIN)
        assert said.startswith(wanted) if wanted else said == ""


def test_a_target_without_dla_runs_nothing_on_one():
    graph = reading("Relu")
    assert off_dla(graph.nodes[0], graph, CPU) == "there is none"


def test_dla_wants_one_shape_and_16_bits(graph):
    node, w = conv()
    said = " ".join(f.what for f in check_graph(graph(node, constants=w), ORIN, dla=True).findings)
    assert "dynamic axes (batch)" in said
    assert "float32" in said


def test_a_target_without_dla_says_which_has_one(graph, refused):
    with refused(ExportError, "'cpu' has no DLA", hint="jetson-orin"):
        check("tinynet", "cpu", dla=True)


# -- who is asked


def test_onnxruntime_is_asked_where_it_runs_the_graph(graph):
    """A graph that no rule refuses: there is no such axis."""
    report = check_graph(graph(helper.make_node("Softmax", ["x"], ["y"], axis=9)), CPU)
    assert report.asked == "asked onnxruntime"
    assert the(report, "refused").what.startswith("onnxruntime: ")


@pytest.mark.engine
def test_the_parser_is_asked_and_stands_in_for_its_twin(graph):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    path = graph(helper.make_node("Softmax", ["x"], ["y"], axis=9))
    report = check_graph(path, RTX)
    assert report.asked == "asked the parser of tensorrt_rtx"
    assert the(report, "refused").what.startswith("tensorrt_rtx: ")
    if find_spec("tensorrt") is None:
        assert "in place of tensorrt" in check_graph(path, ORIN).asked


# -- mistakes


def test_mistakes_are_named(graph, tmp_path, refused):
    (tmp_path / "text.onnx").write_text("no graph")
    with refused(ExportError, "text.onnx is not an ONNX graph"):
        check(tmp_path / "text.onnx", "cpu")
    with refused(ExportError, "there is no file", hint="path"):
        check(tmp_path / "none.onnx", "cpu")
    with refused(UnknownNameError, "no target is called 'tensorrt-9'", hint="tensorrt"):
        check(tmp_path / "text.onnx", "tensorrt-9")


def test_weights_alongside_are_read_and_others_refused(graph, tmp_path, refused):
    node, w = conv()
    model = onnx.load(graph(node, constants=w))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert check(tmp_path / "split.onnx", "cpu").findings == check(graph(node, constants=w), "cpu").findings
    (tmp_path / "w.bin").unlink()
    with refused(UnsafeFileError, "keeps weights in 'w.bin', another file, which is not there", hint="copy it"):
        check(tmp_path / "split.onnx", "cpu")


def test_an_engine_is_loaded_where_it_could_run(tmp_path, refused):
    with refused(ExportError, "'cpu' has no engines"):
        check(tmp_path / "m.engine", "cpu")
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    with refused(ExportError, "there is no engine", hint="pocketzoo export"):
        check(tmp_path / "m.engine", "tensorrt-rtx")
    (tmp_path / "m.engine").write_bytes(b"no engine")
    here = (MissingDependencyError, "NVIDIA GPU") if find_gpu() is None else (ExportError, "is not an engine that")
    with refused(*here):
        check(tmp_path / "m.engine", "tensorrt-rtx")


def test_the_command_prints_and_exits_with_1_where_refused(run, graph, compressed):
    done = run("check", compressed.path, "--target", "cpu")
    assert (done.exit_code, "nothing found" in done.output) == (0, True)
    path = graph(helper.make_node("Det", ["x"], ["y"], "odd"))
    done = run("check", path, "--target", "tensorrt-rtx")
    assert done.exit_code == 1
    assert "refused tensorrt-rtx has no Det\n        odd\n        do: " in done.output
    done = run("check", path, "--target", "tensorrt-rtx", "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)["findings"][0]["nodes"] == ["odd"]


def test_targets_are_printed(run):
    done = run("targets")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1 : len(TARGETS) + 1]] == sorted(TARGETS)
    rows = json.loads(run("targets", "--json").output)
    assert {row["target"]["name"] for row in rows} == set(TARGETS)


def test_a_rule_reads_the_target_not_its_name(graph):
    node, w = conv()
    path = graph(node, constants=w)
    assert check_graph(path, replace(CPU, refuses={"Conv": "use none"})).refused
