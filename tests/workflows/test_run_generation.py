"""Recipes of models that write, on tiny ones: what is written in float and in int8, and where the graphs go."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec

import onnx
import pytest
import torch
from hubmodels import WORDS
from languages import SAYINGS, languages
from pocketzoo.compress.pipeline.generation_graphs import encode_parts
from told import Told

from pocketzoo.deploy.device.pack import pack
from pocketzoo.deploy.export import export
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.workflows.bench import bench
from pocketzoo.workflows.generate import generate
from pocketzoo.workflows.run import run
from pocketzoo.workflows.run_recipe import find_recipe, read_run_recipe
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.text_generator import GraphWriter, alike

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # transformers' own, while it builds a model
]
RECIPES = {"gpt2-generate": "gpt2", "t5-translate": "t5", "llama-lora": "llama"}
QUICK = [
    ("generate.prompts", json.dumps([*SAYINGS, *reversed(SAYINGS)])),
    ("generate.max_new_tokens", "8"),
    ("compress.keep_slower", "true"),  # so small a model is faster in float
    ("compress.samples", "8"),
    ("bench.seconds", "0"),
    ("bench.memory", "false"),
    ("export.to", '["onnx"]'),
]
LEARN = [("fit.epochs", "4"), ("fit.learning_rate", "0.02"), ("fit.training.window", "8")]
PROMPT = torch.tensor([[2, *map(WORDS.index, SAYINGS[0].split()), 3]])


@pytest.fixture(scope="module", params=RECIPES)
def ran(request, language_bundles, tmp_path_factory):
    """Of a recipe that was run: the family, tiny models, where it wrote, what it made and what it said."""
    folder, family = tmp_path_factory.mktemp("run"), RECIPES[request.param]
    learns = family == "llama"
    backbone = "hf://acme/llama" if learns else str(language_bundles[family])
    recipe = read_run_recipe(find_recipe(request.param), [*QUICK, *(LEARN if learns else ())], backbone=backbone)
    heard = Told()
    with languages(folder, (family,)) as small:
        made = run(
            recipe, folder / "out", data=small.texts if learns else None, registry=small.registry, progress=heard
        )
        yield family, small, folder / "out", made, heard.said


def library_writes(model: torch.nn.Module, longest: int, **settings: int) -> list[int]:
    with torch.no_grad():
        out = model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT), do_sample=False, max_new_tokens=longest,
                             pad_token_id=0, **settings)[0].tolist()  # fmt: skip
    return out[1:] if model.config.is_encoder_decoder else out[PROMPT.shape[1] :]


def test_in_float_it_writes_what_the_library_writes(ran):
    """Of the recipe that learns: with the same weights, adapters merged, head and embedding apart."""
    family, small, out, made, _ = ran
    model = small.models[family]
    if family == "llama":
        module = load_module(read_bundle(out / "fitted"), small.registry)
        model = type(model)(model.config).eval()
        model.base_model.load_state_dict(module.backbone.model.state_dict())
        model.lm_head.weight = torch.nn.Parameter(module.head.linear.weight.detach().clone())
    name, texts = made.written[0]
    assert name.endswith("fitted" if family == "llama" else family)
    right = library_writes(model, 8, num_beams=4 if family == "t5" else 1)
    assert list(texts[0].ids) == right[: len(texts[0].ids)]


def test_the_recipe_that_learns_did(ran):
    family, small, out, made, _ = ran
    if family != "llama":
        pytest.skip("it learns nothing")
    training = read_bundle(out / "fitted").manifest.provenance["training"]
    assert training["loss"][-1] < 0.8 * training["loss"][0]
    assert made.metrics["test_perplexity"] == pytest.approx(math.exp(-made.metrics["test_log_likelihood"]))
    scores = evaluate(out / "fitted", data=small.texts, registry=small.registry)
    assert scores["perplexity"] == pytest.approx(made.metrics["test_perplexity"], rel=1e-4)


def test_int8_writes_with_its_own_graphs(ran):
    """All layers of each, for each target in its encoding; how they write was measured, and said."""
    _, small, out, made, said = ran
    bundle = read_bundle(out / "small")
    floats, step = bundle.parts(), bundle.manifest.steps[-1]
    for target in ("cpu", "tensorrt-rtx"):
        assert set(bundle.parts(target)) == set(floats)
        for part, path in bundle.parts(target).items():
            graph = onnx.load(path).graph
            constants = {tensor.name for tensor in graph.initializer}
            # What is left of multiplications by a matrix that is a constant in floats.
            assert not [n.name for n in graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in constants]
            assert path.stat().st_size < floats[part].stat().st_size
        with (
            GraphWriter(floats, bundle.manifest.generation.start) as reference,
            GraphWriter(bundle.parts(target), bundle.manifest.generation.start) as writer,
        ):
            ids = [PROMPT.numpy()]
            assert alike(reference, reference, ids, ()).agreement == 1.0
            assert alike(reference, writer, ids, ()).agreement >= 0.7
        report = step.report.generation[target]
        assert report.bytes.after == sum(path.stat().st_size for path in bundle.parts(target).values())
        assert 0.7 <= report["agreement"] <= 1.0
        assert any(f"int8 for {target}, generation graphs" in line for line in said)
    assert "ms_a_token_after" in step.report.generation["cpu"]
    (written,) = generate(out / "small", [SAYINGS[0]], max_new_tokens=8, beams=4 if "encoder" in floats else 1,
                          registry=small.registry)  # fmt: skip
    assert written == made.written[1][1][0]


def test_other_targets_are_encoded_from_the_same_plan(ran, tmp_path):
    _, small, out, _, _ = ran
    bundle = read_bundle(out / "small")
    target = small.registry.get("target", "tensorrt")
    for part, path in encode_parts(bundle, target, Resolver(small.registry).compressors(bundle), tmp_path).items():
        assert path.read_bytes() == bundle.parts("tensorrt-rtx")[part].read_bytes()  # which reads the same encoding


def test_each_graph_is_exported(ran, tmp_path):
    _, small, out, made, said = ran
    bundle = read_bundle(out / "small")
    assert made.places["onnx"].read_bytes() == bundle.graph("cpu").read_bytes()
    for part, path in bundle.parts("cpu").items():
        assert (out / f"onnx.{part}.onnx").read_bytes() == path.read_bytes()
        assert any(f"its {part}, for generation" in line for line in said)
    heard = Told()
    export(out / "small", to="onnx", registry=small.registry, progress=heard)
    again = read_bundle(out / "small")
    assert set(again.manifest.files) == set(bundle.manifest.files)
    assert again.parts("cpu").keys() == bundle.parts("cpu").keys()


def test_packed_it_writes_the_same_with_nothing_else(ran, tmp_path):
    family, small, out, made, _ = ran
    packed = pack(out / "small", tmp_path / "packed", registry=small.registry)
    assert set(packed.parts("cpu")) == set(read_bundle(out / "small").parts("cpu"))
    assert not packed.parts()
    (written,) = generate(packed.path, [SAYINGS[0]], max_new_tokens=8, beams=4 if family == "t5" else 1,
                          registry=small.registry)  # fmt: skip
    assert written == made.written[1][1][0]


@pytest.mark.engine
def test_an_engine_is_built_of_each_graph(ran, tmp_path):
    family, small, out, _, _ = ran
    if family != "t5" or not find_spec("tensorrt_rtx"):
        pytest.skip("one model with two graphs is enough, where tensorrt_rtx is installed")
    export(out / "small", to="tensorrt-rtx", out=tmp_path / "x.engine", registry=small.registry)
    assert {p.name for p in tmp_path.iterdir()} == {"x.engine", "x.decoder.engine", "x.encoder.engine"}


def test_bench_measures_both_ways_of_running(ran, language_bundles):
    family, small, out, made, _ = ran
    assert {row.precision for row in made.rows} == {"float32", "int8"}
    reference = out / "fitted" if family == "llama" else language_bundles[family]
    rows = bench([reference, out / "small"], data=small.texts, seconds=0.0, memory=False, registry=small.registry)
    assert [(row.bundle, row.target) for row in rows][1:] == [("small", "cpu"), ("small", "tensorrt-rtx")]
    ends = [end for row in rows for end in row.ends]
    assert [end.end for end in ends] == ["generation"] * 3
    assert (ends[0].agreement, ends[0].same) == (1.0, 1.0)
    assert all(end.bytes < ends[0].bytes and end.milliseconds > 0 for end in ends[1:])
