"""Every family's own head against the library's own logits, on tiny models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hubmodels import TEXT_FAMILIES, VISION_FAMILIES, opened, write_headed, write_model, write_sentence_transformer
from safetensors.torch import load_file, save_file

import pocketzoo
from pocketzoo.compress.configs import Int8Config, LowRankConfig
from pocketzoo.core.errors import DataError, HeadMismatchError, UnsafeFileError, UnsupportedModelError
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.plugins import transformers as plugin
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.hub.shard_index import INDEX
from pocketzoo.zoo.hub.weights import read_safetensors
from pocketzoo.zoo.models.build import build, example, load_module, load_pretrained
from pocketzoo.zoo.models.heads import build_head
from pocketzoo.zoo.models.provenance import provenance
from pocketzoo.zoo.models.pull import pull
from pocketzoo.zoo.models.resolver import Resolver

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
DECODERS = ("gpt2", "llama", "qwen2")
CASES = [
    *((family, "sequence") for family in TEXT_FAMILIES),
    *((family, "token") for family in TEXT_FAMILIES),
    *((family, "image") for family in VISION_FAMILIES),
    *((family, "language") for family in DECODERS),
]
TASKS = {
    "sequence": "*-classification",
    "image": "*-classification",
    "token": "token-classification",
    "language": "text-generation",
}


def repository(folder: Path, **config: object) -> Repository:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    read = {**json.loads(files["config.json"].read_text()), **config}
    sizes, digests = {k: p.stat().st_size for k, p in files.items()}, dict.fromkeys(files, "0" * 64)
    return Repository(repo_id="acme/tiny", commit="0" * 40, config=read, files=files, sizes=sizes, digests=digests)


def wanted(model, spec, x):
    """The library's logits; of texts those of their tokens, since nobody reads what stands behind their end."""
    if spec.input.layout == "NCHW":
        return model(pixel_values=x).logits
    ids = x.clamp(max=model.config.vocab_size - 1)  # the padding of some is the first id after them
    return model(input_ids=ids, attention_mask=(x != spec.input.pad).long()).logits


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_head_gives_the_librarys_own_logits(family, task, tmp_path):
    model = write_headed(tmp_path, family, task)
    spec, head, module = opened(repository(tmp_path), tmp_path)
    assert (head.task, spec.head, head.backbone) == (TASKS[task], head.name, spec.name)
    if task == "language":
        assert (head.outputs, head.labels) == (spec.input.vocabulary, None)
    else:
        assert head.labels() == tuple(f"kind {i}" for i in range(5))
    for batch in (1, 4):
        x = example(spec.input, batch)
        with torch.no_grad():
            given, right = module(x), wanted(model, spec, x)
        assert given.shape == right.shape
        real = x != spec.input.pad if given.ndim == 3 else slice(None)
        torch.testing.assert_close(given[real], right[real], atol=1e-5, rtol=1e-5)
        assert right.std() > 0.01, "no test of zeros"


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        ({"id2label": {"0": "a", "1": "a"}}, ("LABEL_0", "LABEL_1")),
        ({"id2label": {"0": "a", "2": "c"}}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_are_the_repositorys_or_numbers(config, labels, tmp_path):
    write_headed(tmp_path, "bert", "sequence")
    assert plugin.head_of(repository(tmp_path, **config)).labels() == labels


def test_one_output_is_a_number(tmp_path):
    """As rerankers have it."""
    model = write_headed(tmp_path, "bert", "sequence", labels=1)
    spec, head, module = opened(repository(tmp_path), tmp_path)
    assert (head.task, head.labels, head.outputs) == ("regression", None, 1)
    x = example(spec.input, 3)
    with torch.no_grad():
        torch.testing.assert_close(module(x), wanted(model, spec, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("said", "labels", "task", "loss"), [
    ("multi_label_classification", 4, "multi-label-classification", "binary_cross_entropy_with_logits"),
    ("multi_label_classification", 1, "multi-label-classification", "binary_cross_entropy_with_logits"),
    ("single_label_classification", 4, "*-classification", "cross_entropy"),
    ("single_label_classification", 1, "*-classification", "cross_entropy"),
    ("regression", 4, "regression", "mse_loss"),
    (None, 4, "*-classification", "cross_entropy"),
    (None, 1, "regression", "mse_loss"),
])  # fmt: skip
@pytest.mark.parametrize(("family", "kind"), [("bert", "sequence"), ("vit", "image")])
def test_what_a_classifier_says_of_its_problem_is_followed(family, kind, said, labels, task, loss, tmp_path):
    model = write_headed(tmp_path, family, kind, labels=labels)
    facts = repository(tmp_path, problem_type=said)
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    assert (head.task, head.loss, head.outputs) == (task, loss, labels)
    assert (head.labels is None) is (task == "regression")
    state = read_safetensors(tmp_path / "model.safetensors")
    module, reader = spec.build().eval(), build_head(head, spec.features, head.outputs).eval()
    module.load_state_dict(spec.weights.convert(dict(state)))
    reader.load_state_dict(head.weights.convert(dict(state)))
    x = example(spec.input, 2)
    with torch.no_grad():
        torch.testing.assert_close(reader(module(x)), wanted(model, spec, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("said", ["ranking", "", 3])
def test_a_problem_of_another_kind_is_refused_by_name(said, tmp_path, refused):
    write_headed(tmp_path, "bert", "sequence")
    with refused(UnsupportedModelError, f"its config.json sets 'problem_type' to {said!r}"):
        plugin.head_of(repository(tmp_path, problem_type=said))


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertModel", "", None])
def test_other_architectures_have_no_head(architecture, tmp_path):
    write_model(tmp_path, "bert")
    assert plugin.head_of(repository(tmp_path, architectures=[architecture] if architecture else None)) is None


def test_a_sentence_transformer_that_does_more_than_pooling_is_refused_by_name(tmp_path, refused):
    """Its layer left out, it would be another model."""
    write_sentence_transformer(tmp_path)
    assert plugin.head_of(repository(tmp_path)).task == "feature-extraction"
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"idx": 3, "type": "sentence_transformers.models.LSTM"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with refused(UnsupportedModelError, "its modules.json names 'LSTM'"):
        plugin.head_of(repository(tmp_path))


def with_dense(folder: Path, **settings: object) -> None:
    """A repository of sentence-transformers with a linear layer after its pooling, as its library writes one."""
    write_sentence_transformer(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    modules = [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(kinds.items())]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    table = {"in_features": 32, "out_features": 12, "bias": True,
             "activation_function": "torch.nn.modules.activation.Tanh"} | settings  # fmt: skip
    (folder / "2_Dense" / "config.json").write_text(json.dumps(table))
    layer = torch.nn.Linear(32, 12)
    save_file(layer.state_dict(prefix="linear."), folder / "2_Dense" / "model.safetensors")


ACTIVATIONS = {"activation.Tanh": torch.nn.Tanh, "activation.ReLU": torch.nn.ReLU, "activation.GELU": torch.nn.GELU,
               "activation.SiLU": torch.nn.SiLU, "activation.Sigmoid": torch.nn.Sigmoid,
               "activation.ELU": torch.nn.ELU, "activation.Hardswish": torch.nn.Hardswish,
               "linear.Identity": torch.nn.Identity}  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_linear_layer_after_the_pooling_is_followed(activation, bias, tmp_path):
    with_dense(tmp_path, activation_function=f"torch.nn.modules.{activation}", bias=bias)
    facts = repository(tmp_path)
    assert {"2_Dense/config.json", "2_Dense/model.safetensors"} <= set(plugin.wants(facts))
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    assert head.outputs == 12
    assert head.weights.file.filename == "2_Dense/model.safetensors"
    assert not any(name.endswith(".safetensors") for name in spec.files)
    state = load_file(tmp_path / "2_Dense" / "model.safetensors")
    reader = build_head(head, spec.features, head.outputs)
    reader.load_state_dict(head.weights.convert(dict(state)))
    features = torch.randn(3, 5, 32)
    features[1, 2:] = 0
    pooled = torch.stack([row[: 2 if i == 1 else 5].mean(0) for i, row in enumerate(features)])
    projected = pooled @ state["linear.weight"].T + (state["linear.bias"] if bias else 0)
    wanted = torch.nn.functional.normalize(ACTIVATIONS[activation]()(projected), dim=-1)
    torch.testing.assert_close(reader(features), wanted)


@pytest.mark.parametrize(("settings", "message"), [
    ({"activation_function": "os.system"}, "'activation_function' to 'os.system'"),
    ({"activation_function": "torch.nn.modules.activation.Softmax"}, "'activation_function'"),
    ({"use_residual": True}, "'use_residual' to True"),
    ({"module_input_name": "token_embeddings"}, "'module_input_name'"),
    ({"in_features": 33}, "'in_features' to 33, and pooling makes 32 numbers"),
    ({"in_features": None}, "lacks 'in_features'"),
    ({"unheard_of": 1}, "'unheard_of'"),
])  # fmt: skip
def test_a_linear_layer_of_another_kind_is_refused_by_name(settings, message, tmp_path, refused):
    with_dense(tmp_path, **settings)
    with refused(UnsupportedModelError, message):
        plugin.head_of(repository(tmp_path))


@pytest.mark.parametrize(("settings", "message"), [
    ({"out_features": 13}, "has linear.weight of (12, 32), where 2_Dense/config.json says (13, 32)"),
    ({"file": "pytorch_model.bin"}, "it has no 2_Dense/model.safetensors, and other formats can run code"),
])  # fmt: skip
def test_weights_of_a_linear_layer_that_do_not_fit_are_refused(settings, message, tmp_path, refused):
    with_dense(tmp_path, **{k: v for k, v in settings.items() if k != "file"})
    path = tmp_path / "2_Dense" / "model.safetensors"
    if "file" in settings:
        path = path.rename(path.with_name(settings["file"]))
    with refused(UnsupportedModelError, message):
        plugin.head_of(repository(tmp_path)).weights.convert(load_file(path))


def test_a_head_whose_weights_are_missing_is_refused(tmp_path, refused):
    write_headed(tmp_path, "bert", "sequence")
    head = plugin.head_of(repository(tmp_path))
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    with refused(UnsupportedModelError, "the weights lack classifier.weight", hint="--head linear"):
        head.weights.convert(state)


# -- from the Hub to a bundle, and on


@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return hub


def fresh() -> Registry:
    return Registry(create_manager(points=[]))


def token_ids(count: int) -> Dataset:
    ids = np.random.default_rng(0).integers(4, 20, (count, 12))
    ids[::2, 7:] = 0
    return Dataset("ids", (), {name: Split(ids) for name in ("train", "val", "test")})


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(("family", "task"), [("bert", "token"), ("gpt2", "language")])
def test_a_model_of_tokens_goes_through_the_zoo(family, task, online, tmp_path, refused):
    """Opened, exported, read back, compressed and measured; what cannot be done with it is said."""
    model = write_headed(tmp_path / "m", family, task)
    online.state.add_folder("acme/tiny", tmp_path / "m")
    registry = fresh()
    bundle = pocketzoo.open_model("hf://acme/tiny", registry=registry)
    assert bundle.manifest.task == TASKS[task].replace("*", "text" if task == "sequence" else "image")
    x = example(bundle.manifest.input, 3)
    with torch.no_grad():
        given = load_module(bundle, fresh())(x)
        real = x != bundle.manifest.input.pad  # which may be an id after the vocabulary
        right = model(input_ids=x.where(real, 0), attention_mask=real.long()).logits
    torch.testing.assert_close(given[real], right[real], atol=1e-5, rtol=1e-5)
    data = token_ids(24)
    steps = [LowRankConfig(energy=1.0), Int8Config()]
    smaller = pocketzoo.compress(bundle.path, tmp_path / "int8", data=data, steps=steps, samples=16,
                                 keep_slower=True, registry=registry)  # fmt: skip
    first, _, int8 = smaller.manifest.measurements
    assert first.agreement == 1.0
    assert 0.5 < int8.agreement <= 1.0
    assert (int8.accuracy, smaller.manifest.task) == (None, TASKS[task])
    assert read_bundle(smaller.path).manifest.model.outputs == bundle.manifest.model.outputs
    if task == "language":
        with refused(DataError, "a language model writes texts", hint="pocketzoo generate"):
            pocketzoo.predict(bundle.path, ["the model is small"], registry=registry)
        assert evaluate(bundle.path, data=data, registry=registry)["perplexity"] > 1.0
        return
    with refused(DataError, "has no targets for token-classification"):
        evaluate(bundle.path, data=data, registry=registry)


@pytest.mark.slow
def test_a_classifier_of_texts_predicts_its_labels(online, tmp_path):
    write_headed(tmp_path / "m", "roberta", "sequence")
    online.state.add_folder("acme/tiny", tmp_path / "m")
    (found,) = pocketzoo.predict("hf://acme/tiny", ["the model is small"], top=1, registry=fresh())
    assert found.top[0][0] in {f"kind {i}" for i in range(5)}


def test_fit_refuses_a_repositorys_own_head(online, tmp_path, refused):
    write_headed(tmp_path / "m", "bert", "token")
    online.state.add_folder("acme/tiny", tmp_path / "m")
    with refused(HeadMismatchError, "is already trained for its own classes", hint="--head token-classifier"):
        pocketzoo.fit("hf://acme/tiny", tmp_path / "x", head="hf://acme/tiny#head", data="nowhere", registry=fresh())


# -- weights in shards


def test_shards_are_pulled_pinned_and_read(online, tmp_path):
    model = write_headed(tmp_path / "m", "llama", "language", max_shard_size="12KB")
    shards = sorted(p.name for p in (tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 1
    online.state.add_folder("acme/tiny", tmp_path / "m")
    (found,) = pull(["hf://acme/tiny"], registry=fresh())
    assert {f.path for f in found.files} == {"config.json", "generation_config.json", "tokenizer.json", INDEX, *shards}
    resolver = Resolver(fresh())
    entry = resolver.entry("backbone", "hf://acme/tiny")
    assert set(provenance(entry)["shards"]) == set(shards)
    assert not any("safetensors" in name for name in entry.spec.files)
    ref = ModelRef(backbone=entry.name, head=entry.spec.head, outputs=20)
    module = build(ref, resolver)
    load_pretrained(module, ref, resolver)
    x = example(entry.spec.input, 2)
    with torch.no_grad():
        given, right = module(x), model(input_ids=x, attention_mask=(x != 0).long()).logits
    torch.testing.assert_close(given[x != 0], right[x != 0], atol=1e-5, rtol=1e-5)


def test_an_index_that_climbs_out_is_refused_before_a_tensor_is_read(online, tmp_path, refused):
    write_headed(tmp_path / "m", "bert", "sequence", max_shard_size="12KB")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    index["weight_map"]["classifier.weight"] = "../../../canary.safetensors"
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    online.state.add_folder("acme/tiny", tmp_path / "m")
    with refused(UnsafeFileError, "outside the repository"):
        pull(["hf://acme/tiny"], registry=fresh())
