"""GPTQ, SmoothQuant and fp8 on generated models of two inputs and two outputs; each output's SQNR is counted anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.quantization import fp8, int8
from pocketzoo.compress.quantization import smoothquant as smooth
from pocketzoo.plugins.targets import NVIDIA_FP8, pocketzoo_targets
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.graphs.index import GraphIndex

TARGETS = {t.name: t for t in pocketzoo_targets()}
ANY = replace(NVIDIA_FP8, conv_channels=1, matmul_channels=1)
SEEDS = pytest.mark.parametrize("seed", range(5))
WIDTH, TOKENS = 16, 6


def model_of(seed: int) -> onnx.ModelProto:
    """An image (n, 3, 8, 8) and tokens (n, 6, 16) that meet in one sum: scores of it, and what becomes of each token.

    The layers, their widths and which branch is the deeper one are drawn. A few channels of what the tokens' layers
    read are far larger than the others, as they are in language models.
    """
    r = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        constants[f"{name}.weight"] = (r.normal(size=shape) / fan**0.5).astype(np.float32)
        return f"{name}.weight"

    def node(op: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{op.lower()}_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def matmul(x: str, name: str, inner: int, out: int) -> str:
        constants[f"{name}.bias"] = r.normal(size=out).astype(np.float32) / 4
        return node("Add", [node("MatMul", [x, weight(name, inner, out)]), f"{name}.bias"])

    image, channels = "image", 3
    for i in range(int(r.integers(1, 4))):
        out = int(r.integers(4, 12))
        constants[f"conv{i}.bias"] = r.normal(size=out).astype(np.float32) / 4
        image = node("Conv", [image, weight(f"conv{i}", out, channels, 3, 3), f"conv{i}.bias"], pads=[1] * 4)
        image, channels = node("Relu", [image]), out
    seen = matmul(node("Flatten", [node("GlobalAveragePool", [image])]), "seen", channels, WIDTH)
    gain = r.uniform(0.5, 1.5, WIDTH)
    gain[r.choice(WIDTH, 2, replace=False)] *= 30
    constants |= {"norm.weight": gain.astype(np.float32), "norm.bias": np.zeros(WIDTH, np.float32)}
    tokens = "tokens"
    for i in range(int(r.integers(1, 3))):
        normal = node("LayerNormalization", [tokens, "norm.weight", "norm.bias"], axis=-1)
        wide = int(r.integers(16, 40))
        hidden = node("Relu", [matmul(normal, f"up{i}", WIDTH, wide)])
        tokens = node("Add", [tokens, matmul(hidden, f"down{i}", wide, WIDTH)])
    constants["axis"] = np.array([1], np.int64)
    both = node("Add", [seen, node("ReduceMean", [tokens, "axis"], keepdims=0)])
    scores = matmul(both, "scores", WIDTH, 5)
    context = node("Add", [tokens, node("Unsqueeze", [seen, "axis"])])
    labels = matmul(context, "labels", WIDTH, 3)
    nodes += [helper.make_node("Identity", [scores], ["score"]), helper.make_node("Identity", [labels], ["label"])]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "both",
        [info("image", TensorProto.FLOAT, ["n", 3, 8, 8]), info("tokens", TensorProto.FLOAT, ["n", TOKENS, WIDTH])],
        [info("score", TensorProto.FLOAT, ["n", 5]), info("label", TensorProto.FLOAT, ["n", TOKENS, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def samples_of(seed: int, count: int = 48) -> list[dict[str, np.ndarray]]:
    """One at a time, the tokens correlated as GPTQ likes them."""
    r = np.random.default_rng(1000 + seed)
    mix = r.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    return [
        {
            "image": r.normal(size=(1, 3, 8, 8)).astype(np.float32),
            "tokens": (r.normal(size=(1, TOKENS, WIDTH)) @ mix).astype(np.float32),
        }
        for _ in range(count)
    ]


def outputs_of(model: onnx.ModelProto, samples, *, as_written: bool = False) -> dict[str, np.ndarray]:
    """All outputs by onnxruntime itself; ``as_written`` without its rewriting, which takes float8 for integers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = [session.run(["score", "label"], sample) for sample in samples]
    return {
        name: np.concatenate(each).astype(np.float64)
        for name, each in zip(("score", "label"), zip(*rows, strict=True), strict=True)
    }


def decibels(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, float]:
    """SQNR of each output by the textbook."""
    return {
        name: 10 * np.log10(np.square(out).sum() / np.square(out - after[name]).sum()) for name, out in before.items()
    }


def weight_error(model: onnx.ModelProto, plan, samples) -> dict[str, float]:
    """Layer -> the mean squared error of what it gives for the samples where its weight alone is rounded."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    index = GraphIndex(model)
    layers = [n for n in index.nodes if n.op_type == "MatMul" and n.input[1] in index.constants]
    reads = list(dict.fromkeys(n.input[0] for n in layers))
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in reads if name != "tokens")
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [dict(zip(reads, session.run(reads, sample), strict=True)) for sample in samples]
    errors = {}
    for node in layers:
        name = node.input[1].removesuffix(".weight")
        weight = numpy_helper.to_array(index.constants[node.input[1]])
        levels, scale = (plan.tensors[f"{name}.weight.{what}"] for what in ("levels", "scale"))
        x = np.concatenate([row[node.input[0]].reshape(-1, weight.shape[0]) for row in rows]).astype(np.float64)
        errors[name] = float(np.square(x @ (levels.astype(np.float64) * scale - weight)).mean())
    return errors


@SEEDS
def test_gptq_rounds_each_layer_of_both_branches_no_worse_than_to_nearest(seed):
    """On what each layer reads, which only the samples of both inputs together tell."""
    model, samples = model_of(seed), samples_of(seed)
    config = Int8Config(smooth=False, activations="static", ranges="minmax")
    rounded, nearest = int8.plan(model, config, samples), int8.plan(model, config, samples, refine=False)
    assert rounded.layers == nearest.layers
    assert {"seen", "scores", "labels", "up0", "down0", "conv0"} <= set(rounded.layers)
    ours, theirs = (weight_error(model, plan, samples) for plan in (rounded, nearest))
    assert all(ours[name] <= theirs[name] * 1.001 for name in ours)
    assert sum(ours[name] < 0.9 * theirs[name] for name in ours) >= len(ours) / 2
    before = outputs_of(model, samples)
    for name, found in decibels(before, outputs_of(int8.apply(model, rounded, TARGETS["cpu"]), samples)).items():
        assert found > 20, name


@SEEDS
def test_smoothing_changes_no_output_and_lets_each_lose_less(seed):
    model, samples = model_of(seed), samples_of(seed)
    before = outputs_of(model, samples)
    smoothed, plain = (
        int8.plan(model, Int8Config(smooth=on, activations="static", ranges="minmax"), samples) for on in (True, False)
    )
    divisors = int8.divisors(smoothed)
    assert divisors
    assert not int8.divisors(plain)
    assert min(decibels(before, outputs_of(smooth.apply(model, divisors), samples)).values()) > 100
    ours, theirs = (
        decibels(before, outputs_of(int8.apply(model, plan, TARGETS["cpu"]), samples)) for plan in (smoothed, plain)
    )
    assert ours["label"] > theirs["label"] + 3  # what large channels hide in the tokens
    assert ours["score"] > theirs["score"] - 1


@SEEDS
def test_fp8_takes_the_layers_of_both_branches(seed):
    model, samples = model_of(seed), samples_of(seed)
    plan = int8.plan(model, Int8Config(smooth=False, activations="static"), samples)
    before = outputs_of(model, samples)
    rounded, chosen = fp8.apply(model, plan, ANY, samples)
    nearest, _ = fp8.apply(model, plan, ANY)
    assert set(chosen.layers) == set(plan.layers)
    assert not chosen.left
    ours, theirs = (decibels(before, outputs_of(made, samples, as_written=True)) for made in (rounded, nearest))
    assert min(ours.values()) > 20  # 3 bits of mantissa: some 31 dB for one rounding
    assert all(ours[name] > theirs[name] - 1 for name in ours)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("seed", range(2))
def test_the_report_has_the_sqnr_of_every_output(seed, tmp_path):
    """Counted anew on the samples of the validation split."""
    onnx.save(model_of(seed), tmp_path / "model.onnx")
    samples = [{name: x[0] for name, x in sample.items()} for sample in samples_of(seed)]
    splits = {name: Split(samples[i::3]) for i, name in enumerate(("train", "val", "test"))}
    bundle = compress(
        tmp_path / "model.onnx", tmp_path / "out", data=Dataset("both", (), splits, 0), steps=[Int8Config()],
        samples=16, keep_slower=True, accept=True,
    )  # fmt: skip
    for split, found in (
        ("val", bundle.manifest.steps[-1].report.outputs), ("test", bundle.manifest.measurements[-1].outputs)
    ):  # fmt: skip
        # As one batch, as it was scored: ranges that are found for each input are of all of it.
        batch = {name: np.stack([sample[name] for sample in splits[split].samples]) for name in ("image", "tokens")}
        before, after = (outputs_of(onnx.load(bundle.graph(target)), [batch]) for target in ("", "cpu"))
        assert found == {name: pytest.approx(value, abs=0.05) for name, value in decibels(before, after).items()}
    assert bundle.manifest.steps[-1].report.sqnr == min(bundle.manifest.steps[-1].report.outputs.values())
