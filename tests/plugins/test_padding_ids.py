"""The padding's id, wherever a repository says it is: a text with that id in it is read as the library reads it.

Or it is refused, by name. The oracle is the library's model on one text at a time, which needs no padding at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hubmodels import SENTENCE, TEXT_FAMILIES, WORDS, opened, write_headed
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedTokenizerFast

from pocketzoo.core.errors import DataError, UnsupportedModelError
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
PADS: dict[str, Any] = {
    "first": 0, "unknown": 1, "start": 2, "end": 3, "a word": WORDS.index("model"), "absent": None, "negative": -1,
    "after the vocabulary": len(WORDS) + 5, "the end of several": 3,
}  # fmt: skip
FAMILIES = ("bert", "distilbert", "roberta", "electra", "albert", "mpnet", "gpt2", "llama", "qwen2")
SAYS = (
    "the model is small",
    "the model is small [SEP] it reads texts",
    "the model [SEP] [SEP]",
    "zebra the model zebra zebra is small",
    "[PAD] the [PAD] fast model [PAD]",
    "[SEP]",
    "model model model",
    "[CLS] [UNK] a model",
    SENTENCE,
)
CASES = [(f, t, pad) for f in FAMILIES for t in ("sequence", "token") for pad in PADS]
QUICK = [case for i, case in enumerate(CASES) if i % 7 == 0 or case[:2] == ("llama", "sequence")]


def repository(folder: Path, config: dict[str, Any]) -> Repository:
    """What is known of a folder's files."""
    files = {path.name: path for path in folder.iterdir()}
    return Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files, sizes=dict.fromkeys(files, 1),
                      digests=dict.fromkeys(files, "0" * 64))  # fmt: skip


def outcomes(family: str, task: str, pad: str, folder: Path) -> dict[str, int]:
    """How many texts were answered as the library does, and how many refused; {} of a repository that is refused."""
    write_headed(folder, family, task)
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": PADS[pad]}
    if pad == "the end of several":
        config["eos_token_id"] = [3, 5]
    elif pad == "end":
        config["eos_token_id"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    try:
        spec, _, module = opened(repository(folder, config), folder)
    except UnsupportedModelError as error:
        assert "its config.json sets 'pad_token_id' to " in error.message, error.message  # noqa: PT017
        return {}
    kind = AutoModelForTokenClassification if task == "token" else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder).eval()
    names = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names)
    encoder = TextEncoder(spec.input, {"tokenizer.json": folder / "tokenizer.json"})
    counts = {"equal": 0, "refused": 0}
    longest, _ = encoder.masked(["the " * 20])
    for text in SAYS:
        if "[PAD]" in text and PADS[pad] != 0:
            continue  # a word of two brackets, which a repository has to name to make it a token
        try:
            ids, _ = encoder.masked([text])
        except DataError as error:
            assert error.message.startswith("the text '"), error.message  # noqa: PT017
            assert spec.input.pad in theirs([text])["input_ids"][0]
            counts["refused"] += 1
            continue
        said = theirs([text], return_tensors="pt")
        assert ids.tolist() == said["input_ids"].tolist()
        padded = np.full((1, longest.shape[1]), spec.input.pad)
        padded[0, : ids.shape[1]] = ids
        with torch.no_grad():
            wanted = model(input_ids=said["input_ids"], attention_mask=said["attention_mask"]).logits
            alone, beside = (module(torch.from_numpy(each)) for each in (ids, padded))
        torch.testing.assert_close(alone, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(beside[:, : wanted.shape[1]] if task == "token" else beside, wanted,
                                   rtol=1e-4, atol=1e-5)  # fmt: skip
        counts["equal"] += 1
    assert counts["equal"] >= 3
    return counts


@pytest.mark.parametrize(("family", "task", "pad"), QUICK)
def test_a_text_with_the_paddings_id_is_read_as_the_library_does_or_refused(family, task, pad, tmp_path):
    counts = outcomes(family, task, pad, tmp_path)
    if (family, task) == ("llama", "sequence") and counts:
        assert not counts["refused"], "its classifier reads the last token that is not the config's padding"


@pytest.mark.slow
def test_every_padding_of_every_family(tmp_path):
    assert set(FAMILIES) <= set(TEXT_FAMILIES)
    counts = [outcomes(*case, tmp_path / str(i)) for i, case in enumerate(CASES)]
    assert sum(each.get("equal", 0) for each in counts) > 700
