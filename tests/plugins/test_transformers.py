"""Every family against the library's own model, on tiny models with random weights; and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hubmodels import TEXT_FAMILIES, VISION_FAMILIES, write_model, write_sentence_transformer
from safetensors.torch import load_file, save_file

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.plugins.transformers.modules import convert_state
from pocketzoo.zoo.catalog.specs import FeatureSpec, Repository
from pocketzoo.zoo.hub.weights import read_safetensors
from pocketzoo.zoo.models.build import example
from pocketzoo.zoo.models.export_graph import onnx_from_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
FAMILIES = [*TEXT_FAMILIES, *VISION_FAMILIES]


def repository(folder: Path, **changes: object) -> Repository:
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    config = json.loads(paths["config.json"].read_text()) if "config.json" in paths else {}
    values = {"sizes": {k: p.stat().st_size for k, p in paths.items()}, "config": config, "files": paths, **changes}
    return Repository(repo_id="acme/tiny", commit="0" * 40, **values)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Family -> its folder and the library's own model, each made once."""
    made = {}

    def write(family: str):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = folder, write_model(folder, family)
        return made[family]

    return write


def read_state(config, path: Path):
    return convert_state(config, read_safetensors(path))


def backbone(folder: Path):
    facts = repository(folder)
    spec = plugin.backbone(facts)
    module = spec.build()
    module.load_state_dict(read_state(facts.config, folder / "model.safetensors"))
    return spec, module.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_library(family, written):
    folder, model = written(family)
    assert plugin.refuses(repository(folder)) == ""
    spec, module = backbone(folder)
    for batch in (1, 2, 5):
        x = example(spec.input, batch)
        with torch.no_grad():
            given = module(x)
            if family in TEXT_FAMILIES:
                mask = (x != spec.input.pad).long()
                ids = x.clamp(max=model.config.vocab_size - 1)  # the padding of some is the first id after them
                wanted = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[:, :, None]
            else:
                wanted = model(pixel_values=x).last_hidden_state
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
        fixed = [(g, s) for g, s in zip(given.shape, spec.features.shape, strict=True) if isinstance(s, int)]
        assert all(g == s for g, s in fixed)
        assert len(fixed) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "mpnet", "llama", "vit", "convnext"])
def test_it_exports_with_free_axes(family, written, tmp_path):
    """The exporter compares graph and module at three batch sizes, for texts of three lengths."""
    spec, module = backbone(written(family)[0])
    assert onnx_from_model(module, spec.input, tmp_path / "m.onnx") < 1e-4


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_padding_changes_nothing(family, written):
    """A text gives the same features alone and beside a longer one: no mask has to travel beside the ids."""
    spec, module = backbone(written(family)[0])
    generator = torch.Generator().manual_seed(1)
    short = torch.randint(4, spec.input.vocabulary, (1, 5), generator=generator)
    padded = torch.cat([short, torch.full((1, 6), spec.input.pad)], 1)
    with torch.no_grad():
        alone, beside = module(short), module(padded)
    torch.testing.assert_close(beside[:, :5], alone, atol=1e-5, rtol=1e-4)
    assert (beside[:, 5:] == 0).all()


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_of_a_model_with_a_head_are_read_without_it(prefix, written, tmp_path):
    folder, _ = written("bert")
    shutil.copytree(folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    state = {prefix + key: value for key, value in state.items()} | {"classifier.weight": torch.zeros(3, 32)}
    save_file(state, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    one, two = backbone(folder)[1].state_dict(), backbone(tmp_path / "copy")[1].state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_missing_weight_is_refused_and_not_made_up(written, tmp_path, refused):
    folder, _ = written("bert")
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with refused(UnsupportedModelError, "encoder.layer.1.output.dense.weight"):
        read_state(repository(folder).config, tmp_path / "model.safetensors")


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_under_another_name_is_refused_and_not_run(written, tmp_path, refused):
    canary = tmp_path / "canary"
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    with refused(UnsafeFileError, "model.safetensors is not a safetensors file"):
        read_state(repository(written("bert")[0]).config, tmp_path / "model.safetensors")
    assert not canary.exists()


@pytest.mark.parametrize("header", [2**63 - 1, 2**40, 200_000_000, 0])
def test_a_header_of_any_size_is_refused_at_once(header, tmp_path, refused, written):
    (tmp_path / "model.safetensors").write_bytes(header.to_bytes(8, "little") + b"{}" + bytes(1000))
    with refused(UnsafeFileError, "is not a safetensors file"):
        read_state(repository(written("bert")[0]).config, tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "without", "reason"),
    [
        ({"model_type": "unheard-of"}, (), "'unheard-of' is not supported"),
        ({"model_type": None}, (), "has no model_type"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, (), "requires custom code"),
        ({}, ("model.safetensors",), "no model.safetensors, and no shards"),
        ({}, ("tokenizer.json",), "no tokenizer.json"),
    ],
)
def test_reasons_to_refuse(config, without, reason, written):
    facts = repository(written("bert")[0])
    sizes = {path: size for path, size in facts.sizes.items() if path not in without}
    changed = Repository(repo_id="a/b", commit="0" * 40, sizes=sizes, config={**facts.config, **config})
    assert reason in plugin.refuses(changed)


def test_a_repository_with_pickles_alone_says_so(written):
    facts = repository(written("bert")[0])
    sizes = {"config.json": 1, "pytorch_model.bin": 1, "tokenizer.json": 1}
    changed = Repository(repo_id="a/b", commit="0" * 40, sizes=sizes, config=facts.config)
    assert "can run code" in plugin.refuses(changed)
    assert "pytorch_model.bin" not in plugin.wants(changed)


def test_a_config_without_sizes_is_refused(refused):
    with refused(UnsupportedModelError, "the config of a/b is not one of a bert"):
        plugin.backbone(Repository(repo_id="a/b", commit="0" * 40, config={"model_type": "bert"}))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_sentence_transformers_pool_as_they_say(mode, normalize, tmp_path):
    model = write_sentence_transformer(tmp_path / "st", mode, normalize=normalize)
    facts = repository(tmp_path / "st")
    spec, module = backbone(tmp_path / "st")
    assert spec.input.max_length == 24
    head = plugin.head_of(facts)
    assert spec.head == head.name == f"hf://acme/tiny@{'0' * 40}#head"
    x = example(spec.input, 4)
    mask = (x != spec.input.pad)[:, :, None]
    with torch.no_grad():
        hidden = model(input_ids=x, attention_mask=mask[:, :, 0].long()).last_hidden_state
        given = head.build(spec.features, 32)(module(x))
    if mode == "mean":
        wanted = (hidden * mask).sum(1) / mask.sum(1)
    else:
        wanted = hidden[:, 0] if mode == "cls" else hidden.masked_fill(~mask, -torch.inf).amax(1)
    if normalize:
        wanted = wanted / wanted.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("processor", [
    ({"size": {"height": 48, "width": 48}}, (48, 48, True)),
    ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, (40, 32, False)),
    ({"size": 32}, (32, 32, True)),
    ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, (40, 32, False)),
])  # fmt: skip
def test_what_the_processor_says_becomes_the_input(processor, written, tmp_path):
    changes, (resize, edge, stretch) = processor
    folder = tmp_path / "copy"
    shutil.copytree(written("vit")[0], folder)
    known = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**known, **changes}))
    spec = plugin.backbone(repository(folder)).input
    assert (spec.resize, spec.size, spec.stretch) == (resize, (3, edge, edge), stretch)
    assert (spec.mean, spec.std, spec.interpolation) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bicubic")


def test_an_embedding_of_the_last_token_is_that_of_the_last_word():
    from pocketzoo.plugins.head_modules import Embedding
    from pocketzoo.plugins.head_options import EmbeddingOptions

    features = FeatureSpec("sequence", ("batch", "sequence", 4))
    x = torch.randn(3, 6, 4)
    x[1, 4:], x[2, 1:] = 0, 0
    out = Embedding(features, 4, EmbeddingOptions(pool="last", normalize=False))(x)
    np.testing.assert_array_equal(out.numpy(), np.stack([x[0, 5], x[1, 3], x[2, 0]]))
