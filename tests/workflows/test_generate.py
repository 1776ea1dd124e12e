"""Tokens of the graphs against ``generate`` of transformers, greedy and by beams, on tiny random models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from artifactgraphs import start
from hubmodels import WORDS, write_headed
from told import Told

from pocketzoo.core.errors import DataError, RecipeError, UnsupportedModelError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.workflows.generate import generate
from pocketzoo.zoo.artifacts.drivers import artifact_of, end_of
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
from pocketzoo.zoo.bundles.bundle import read_bundle, updating
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.tasks.token_search import beam_search, greedy

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
FAMILIES = ("gpt2", pytest.param("llama", marks=pytest.mark.slow), pytest.param("t5", marks=pytest.mark.slow))
PROMPTS = ([4, 5, 6], [9, 10, 11, 12, 13, 14, 15], [7])
ENDS = ((), (3,), (5, 8, 14, 17), tuple(range(4, 20, 2)))  # of random models, few or many texts end
BEAMS = [
    {"num_beams": 2},
    {"num_beams": 3, "length_penalty": 0.0},
    {"num_beams": 3, "early_stopping": True},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 3, "length_penalty": -1.5},
]


def facts_of(folder: Path) -> Repository:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return Repository(
        repo_id="acme/tiny",
        commit="0" * 40,
        config=json.loads(files["config.json"].read_text()),
        sizes={name: p.stat().st_size for name, p in files.items()},
        files=files,
        digests={name: sha256(p.read_bytes()).hexdigest() for name, p in files.items()},
    )


@pytest.fixture(scope="module", params=FAMILIES)
def language(request, language_bundles, registry, tmp_path_factory):
    """A bundle, the library's own model with the same weights, and a registry."""
    family = request.param
    model = write_headed(tmp_path_factory.mktemp(family), family, "answer" if family == "t5" else "language")
    return read_bundle(language_bundles[family]), model, registry


def wanted(model, ids: list[int], **settings: object) -> list[int]:
    """What the library writes."""
    given = torch.tensor([ids])
    ends = list(settings.pop("end")) or None
    model.generation_config.eos_token_id = ends
    with torch.no_grad():
        out = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=10,
                             pad_token_id=0, eos_token_id=ends, **settings)[0].tolist()  # fmt: skip
    return out[1:] if model.config.is_encoder_decoder else out[len(ids) :]


@pytest.mark.parametrize("end", ENDS)
def test_greedy_tokens_are_those_of_the_library(language, end):
    bundle, model, _ = language
    with end_of(artifact_of(bundle), "generation").open(start) as writer:
        for ids in PROMPTS:
            assert greedy(writer, np.array([ids]), longest=10, end=end) == wanted(model, ids, end=end)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("settings", BEAMS)
def test_tokens_of_beams_are_those_of_the_library(language, settings, end):
    bundle, model, _ = language
    rest = {name: value for name, value in settings.items() if name != "num_beams"}
    with end_of(artifact_of(bundle), "generation").open(start) as writer:
        for ids in PROMPTS:
            found = beam_search(writer, np.array([ids]), beams=settings["num_beams"], longest=10, end=end, **rest)
            right = wanted(model, ids, end=end, **settings)
            assert found == right[: len(found)]
            assert set(right[len(found) :]) <= {0}  # the library fills up with padding


def test_one_graph_reads_the_text_and_each_token_after_it(language):
    """The whole text at once, or token by token: the same logits."""
    bundle, _, _ = language
    if bundle.manifest.generation.start:
        pytest.skip("an answer begins with one token")
    ids = np.array([PROMPTS[1]])
    with end_of(artifact_of(bundle), "generation").open(start) as writer:
        whole = writer.begin(ids)
        writer.begin(ids[:, :1])
        for i in range(1, ids.shape[1]):
            last = writer.add(ids[:, i : i + 1])
    np.testing.assert_allclose(last, whole, atol=1e-5)


def test_texts_go_in_and_come_out(language):
    bundle, model, registry = language
    text = " ".join(WORDS[4:8])
    (written,) = generate(bundle.path, [text], max_new_tokens=5, registry=registry)
    end = bundle.manifest.generation.end
    assert list(written.ids) == wanted(model, [2, 4, 5, 6, 7, 3], end=end)[: len(written.ids)]
    answers = bool(bundle.manifest.generation.start)
    assert (text in written.text) != answers  # a text is continued, and an answer stands alone


def test_a_bundle_with_its_graphs_needs_no_torch(language):
    bundle, _, _ = language
    code = (
        "import sys; from pocketzoo.workflows.generate import generate; "
        f"generate({str(bundle.path)!r}, [{WORDS[4]!r}], max_new_tokens=3, beams=2); "
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_files_say_which_graph_they_are(language):
    bundle, _, _ = language
    others = {"decoder", "encoder"} if bundle.manifest.generation.start else {"decoder"}
    assert set(bundle.graphs("")) == {"model"} | others
    assert set(bundle.encodings()) == {""}
    assert bundle.manifest.driver == "generate"


@pytest.mark.engine
def test_its_graphs_become_engines(language, tmp_path):
    """NVIDIA's parser and builder take them, the empty past of the first pass included."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    bundle, _, registry = language
    for part, graph in bundle.graphs("").items():
        save_engine(
            graph, tmp_path / part, registry.get("target", "tensorrt-rtx"), options=EngineOptions(others=(0, 2, 8))
        )
        assert (tmp_path / part).stat().st_size > 100_000


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [({"beams": 0}, RecipeError, "beams cannot be 0"), ({"max_new_tokens": -1}, RecipeError, "max_new_tokens")],
)
def test_settings_that_cannot_be(settings, error, text):
    with pytest.raises(error, match=text):
        generate("nowhere", ["a"], **settings)


def test_what_writes_no_text_is_refused(fitted, registry):
    with pytest.raises(UnsupportedModelError, match="is for image-classification and cannot generate text"):
        generate(fitted.path, ["a"], registry=registry)


def test_a_model_of_few_positions_stops_there(language, tmp_path):
    bundle, _, registry = language
    settings = replace(bundle.manifest.generation, end=(), positions=40, not_followed=("repetition_penalty",))
    with updating(bundle, tmp_path / "copy") as draft:
        draft.manifest = replace(bundle.manifest, generation=settings)
    many, heard = " ".join(WORDS[4] for _ in range(30)), Told()
    (written,) = generate(tmp_path / "copy", [many], max_new_tokens=50, registry=registry, progress=heard)
    assert len(written.ids) == 40 - 32
    assert any("generating at most 8 tokens" in line for line in heard.said)
    assert any("ignored generation settings of the repository: repetition_penalty" in line for line in heard.said)
    with pytest.raises(DataError, match=f"the text has 40 tokens, the context length of {bundle.manifest.name} is 40"):
        generate(tmp_path / "copy", [f"{many} {many}"], registry=registry)


@pytest.mark.parametrize("family", FAMILIES)
def test_how_it_writes_is_what_the_repository_says(tmp_path, family):
    write_headed(tmp_path, family, "answer" if family == "t5" else "language")
    place = tmp_path / "generation_config.json"
    changes = {"eos_token_id": [5, 6], "repetition_penalty": 1.3, "num_beams": 4}
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))
    settings = plugin.backbone(facts_of(tmp_path)).generation
    assert settings.end == (5, 6)
    assert settings.start == ((0,) if family == "t5" else ())
    assert settings.not_followed == ("repetition_penalty", "num_beams")
    place.unlink()
    plain = plugin.backbone(facts_of(tmp_path)).generation
    assert (plain.end, plain.not_followed) == ((0,) if family == "gpt2" else (3,), ())
