"""Each setting of generation_config.json: the library's own tokens without it, or it is named as ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hubmodels import write_headed
from transformers import AutoModelForCausalLM, GenerationConfig

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers import generation
from pocketzoo.zoo.catalog.specs import Repository

VALUES: dict[str, list[object]] = {
    "repetition_penalty": [1.0, 1.5], "no_repeat_ngram_size": [0, 2], "encoder_repetition_penalty": [1.0],
    "bad_words_ids": [[[5]]], "min_length": [0, 12], "min_new_tokens": [0, 8], "forced_eos_token_id": [3],
    "suppress_tokens": [[5, 6, 7]], "begin_suppress_tokens": [[5, 6, 7]], "num_beams": [1, 3], "do_sample": [False],
    "sequence_bias": [[[[5], 9.0]]], "temperature": [0.3], "top_k": [1], "top_p": [0.2], "min_p": [0.9],
    "typical_p": [0.2], "epsilon_cutoff": [0.3], "eta_cutoff": [0.3], "max_length": [7], "length_penalty": [3.0],
    "early_stopping": [True], "use_cache": [False, True], "output_scores": [True], "return_dict_in_generate": [False],
    "cache_implementation": ["dynamic"], "diversity_penalty": [0.5], "pad_token_id": [0, 5], "bos_token_id": [4],
    "renormalize_logits": [False, True], "token_healing": [False], "exponential_decay_length_penalty": [[2, 5.0]],
    "eos_token_id": [3, 5, [3, 5], [7], -1],
}  # fmt: skip
CASES = [(name, value) for name, values in VALUES.items() for value in values]


def facts(folder: Path) -> Repository:
    files = {path.name: path for path in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text())
    return Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files)


def spec_of(folder: Path, *, answers: bool = False):
    repository = facts(folder)
    return generation.generation_spec(repository, repository.config, answers=answers, learned=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_headed(folder, "llama", "language")
    return folder, AutoModelForCausalLM.from_pretrained(folder).eval()


def greedy(model, ids: list[int], ends: tuple[int, ...], most: int) -> list[int]:
    """Greedy search by its definition."""
    row = list(ids)
    while len(row) < len(ids) + most and not (len(row) > len(ids) and row[-1] in ends):
        with torch.no_grad():
            row.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
    return row


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_setting_leaves_the_tokens_alone_or_is_named(name, value, written, tmp_path):
    folder, model = written
    (tmp_path / generation.FILE).write_text(json.dumps({"eos_token_id": 3, name: value}))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    spec = spec_of(tmp_path)
    assert set(spec.not_followed) <= {name}
    theirs = GenerationConfig.from_pretrained(tmp_path)
    theirs.max_new_tokens, theirs.pad_token_id = 10, 0
    for start in ([2, 5, 6], [2, 9], [2, 4, 12, 7]):
        if spec.not_followed:
            return
        given = model.generate(torch.tensor([start]), generation_config=theirs)[0].tolist()
        assert given == greedy(model, start, spec.end, 10), (name, value)


def test_every_setting_of_the_installed_library_is_known():
    known = {**generation.FOLLOWED, **generation.CHANGES, **generation.HARMLESS}
    assert set(GenerationConfig().to_dict()) <= set(known)
    assert not set(generation.CHANGES) & set(generation.HARMLESS)
    assert not set(generation.FOLLOWED) & {*generation.CHANGES, *generation.HARMLESS}


@pytest.mark.parametrize("name", [*generation.CHANGES, "unheard_of"])
def test_what_would_change_tokens_is_named(name, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / generation.FILE).write_text(json.dumps({name: 7, "temperature": 0.5}))
    assert spec_of(tmp_path).not_followed == (name,)
    for harmless in generation.CHANGES.get(name, (None,)):
        (tmp_path / generation.FILE).write_text(json.dumps({name: harmless}))
        assert spec_of(tmp_path).not_followed == ()


def test_a_file_of_its_own_stands_for_all_of_it_as_in_the_library(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3, "decoder_start_token_id": 0}))
    assert spec_of(tmp_path).end == (3,)
    assert spec_of(tmp_path, answers=True).start == (0,)
    (tmp_path / generation.FILE).write_text("{}")
    assert spec_of(tmp_path).end == ()
    (tmp_path / generation.FILE).write_text(json.dumps({"bos_token_id": 4, "decoder_start_token_id": None}))
    assert spec_of(tmp_path, answers=True).start == (4,)


@pytest.mark.parametrize(("table", "message"), [
    ({"eos_token_id": "3"}, "sets 'eos_token_id' to '3'"),
    ({"eos_token_id": [3, None]}, "sets 'eos_token_id' to [3, None]"),
    ({"decoder_start_token_id": [0]}, "sets 'decoder_start_token_id' to [0]"),
    ({"eos_token_id": 3}, "sets 'decoder_start_token_id' to None, and its answers have to begin with a token"),
    ([3], "generation_config.json of acme/tiny is not a table"),
])  # fmt: skip
def test_tokens_that_are_no_numbers_are_refused_by_name(table, message, tmp_path, refused):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / generation.FILE).write_text(json.dumps(table))
    with refused(UnsupportedModelError, message, hint="choose another"):
        spec_of(tmp_path, answers=True)
