"""int8 bundles exported in fp8: what is said and refused, what NVIDIA's parser and builder make of the graph."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from feeds import arrays
from onnx import TensorProto
from told import Told

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import ExportError
from pocketzoo.deploy.check.check_model import check_graph
from pocketzoo.deploy.export import export
from pocketzoo.deploy.fp8_export import write_fp8
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data

TARGETS = {t.name: t for t in pocketzoo_targets()}
RTX = TARGETS["tensorrt-rtx"]


@pytest.fixture(scope="module")
def compressed(fitted, once):
    """As elsewhere, of channels in multiples of 16, on which the bounds here were measured."""

    def make(path):
        steps = [PruneConfig(ratio=0.3, multiple=16), LowRankConfig(energy=0.99, only_faster=False), Int8Config()]
        both = ("cpu", "tensorrt-rtx")
        compress(fitted.path, path, data="digits", steps=steps, targets=both, samples=48, keep_slower=True)

    return read_bundle(once("digits-int8-by-16", make))


@pytest.fixture(scope="module")
def written(compressed, tmp_path_factory):
    """The graph of ``compressed`` in fp8, and what was said of it."""
    out, heard = tmp_path_factory.mktemp("fp8") / "m.onnx", Told()
    assert export(compressed.path, target="tensorrt-rtx", precision="fp8", out=out, progress=heard) == out
    return out, heard.said


def test_what_became_fp8_and_what_did_not_is_said(written, compressed):
    """tinynet has 16 channels at first, and the head 10 classes."""
    layers = len(compressed.manifest.steps[-1].plan["layers"])
    said = re.fullmatch(r"fp8: (\d+) of (\d+) layers \((\d+) dB from fp32\), (\d+) stay in float: (.*)", written[1][0])
    assert int(said[1]) + int(said[4]) == int(said[2]) == layers
    assert int(said[1]) >= 5
    assert int(said[3]) >= 25  # measured: 30
    assert re.fullmatch(r"fewer than 17 channels \(\d+\); fewer than 16 channels \(1\)", said[5])


def test_the_rest_is_in_fp16(written):
    """Scales as well: they are powers of two, and none lost a bit on the way from 32."""
    model = onnx.load(written[0])
    onnx.checker.check_model(model, full_check=True)
    assert {t.data_type for t in model.graph.initializer if t.data_type != TensorProto.INT64} == {
        TensorProto.FLOAT16,
        TensorProto.FLOAT8E4M3FN,
    }
    pairs = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    constants = {t.name: t for t in model.graph.initializer}
    assert len(pairs) >= 10
    assert {constants[n.input[1]].data_type for n in pairs} == {TensorProto.FLOAT16}
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def outputs(path, bundle):
    """Of the samples that trained nothing, and their targets: one in a hundred is worth more than chance there."""
    digits = load_data("digits")
    pairs = [
        next(iter(arrays(Batches(digits.split(name), bundle.manifest.input, size=400)))) for name in ("val", "test")
    ]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {session.get_inputs()[0].name: x})[0] for x, _ in pairs]
    return np.concatenate(rows), np.concatenate([y for _, y in pairs])


def accuracy(path, bundle):
    rows, y = outputs(path, bundle)
    return float((rows.argmax(-1) == y).mean())


def noise(path, bundle):
    expected, actual = (outputs(each, bundle)[0] for each in (bundle.graph(""), path))
    return float(np.square(actual - expected).sum() / np.square(expected).sum())


def test_accuracy_is_that_of_fp32(written, compressed):
    assert accuracy(written[0], compressed) >= accuracy(compressed.graph(""), compressed) - 0.01
    assert written[0].stat().st_size < 0.5 * compressed.graph("").stat().st_size


def test_samples_round_the_weights_anew(written, compressed, tmp_path):
    """The same layers, other numbers, and the answers of fp32."""
    heard = Told()
    export(compressed.path, target="tensorrt", precision="fp8", data="digits", out=tmp_path / "m.onnx", progress=heard)
    assert heard.said[0].partition(" layers")[0] == written[1][0].partition(" layers")[0]
    assert accuracy(tmp_path / "m.onnx", compressed) >= accuracy(compressed.graph(""), compressed) - 0.01
    assert noise(tmp_path / "m.onnx", compressed) < 0.95 * noise(written[0], compressed)
    one, two = (
        {t.name: t.raw_data for t in onnx.load(path).graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN}
        for path in (written[0], tmp_path / "m.onnx")
    )
    assert one.keys() == two.keys()
    assert one != two


@pytest.mark.engine
def test_it_joins_the_bundle_as_an_engine(compressed, tmp_path, run):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    shutil.copytree(compressed.path, tmp_path / "b")
    done = run("export", tmp_path / "b", "--to", "tensorrt-rtx", "--precision", "fp8", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["bytes"] > 10_000
    entry = read_bundle(tmp_path / "b").manifest.files["model.fp8.tensorrt-rtx.engine"]
    assert (entry.target, entry.precision) == ("tensorrt-rtx", "fp8")


# -- NVIDIA's own


@pytest.mark.engine
def test_layers_are_fp8_in_nvidias_network(written):
    """A pair before each of them and a weight behind one: nothing else is in 8 bits, and little in 32."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    count = Counter(layer_precisions(written[0], RTX).values())
    quantize = sum(n.op_type == "QuantizeLinear" for n in onnx.load(written[0]).graph.node)
    assert count["FP8"] >= quantize
    assert count["HALF"] > count["FP8"] > count["FLOAT"]
    assert "INT8" not in count


@pytest.mark.engine
@pytest.mark.parametrize(("capability", "builds"), [("SM89", True), ("SM120", True), ("SM80", False)])
def test_rtx_builds_it_for_gpus_that_have_fp8_and_for_no_others(written, capability, builds):
    """Without a GPU: a compute capability can be named. Those before Ada's are refused for their types."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
    said = []

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, message):
            if severity <= trt.ILogger.Severity.ERROR:
                said.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(written[0].read_bytes())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shape = tuple(network.get_input(0).shape)[1:]
    profile.set_shape(network.get_input(0).name, (1, *shape), (8, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    assert (engine is not None) == builds
    assert any("fp8" in message for message in said) != builds


def test_check_knows_who_takes_it(written):
    """jetson-orin's GPU has no fp8, onnxruntime's providers no kernels worth it."""
    for name, target in TARGETS.items():
        report = check_graph(written[0], target)
        assert report.refused == (target.fp8 is None), (name, report.findings)
        if report.refused:
            assert any("tensors in fp8, and" in f.what for f in report.findings)
        assert not any("not in int8" in f.what for f in report.findings)


# -- what cannot be


@pytest.mark.parametrize("target", ["cpu", "cuda", "jetson-orin"])
def test_targets_without_fp8_refuse_it(target, compressed, tmp_path, refused):
    with refused(ExportError, f"{target} does not compute in fp8", hint="fp32"):
        export(compressed.path, target=target, precision="fp8", out=tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_calibrated_is_refused_in_two_lines(fitted, tmp_path, run):
    done = run("export", fitted.path, "--target", "tensorrt", "--precision", "fp8", "-o", tmp_path / "m.onnx")
    assert done.exit_code == 1
    what, hint = done.stderr.strip().splitlines()
    assert "was not calibrated" in what
    assert "--int8" in hint
    assert list(tmp_path.iterdir()) == []


def test_a_network_too_small_for_its_kernels_is_refused(compressed, registry, tmp_path, refused):
    wide = replace(RTX, fp8=replace(RTX.fp8, conv_channels=1000, matmul_channels=1000))
    with refused(ExportError, "no layer with kernels in fp8: ", "fewer than 1000 channels", hint="--precision fp16"):
        write_fp8(compressed, tmp_path / "m.onnx", wide, registry)
    assert list(tmp_path.iterdir()) == []
