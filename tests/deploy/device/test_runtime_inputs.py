"""What a model of texts or of numbers can be given. Images are in test_runtime.py, through a whole runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.deploy.device.runtime_inputs import InputReader
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import FileEntry, Manifest, ModelRef
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

tokenizers = pytest.importorskip("tokenizers")
WORDS = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "the", "cat", "sat", "on", "a", "mat"])}


def bundle(folder: Path, *, tokenizer: bool = True) -> Bundle:
    name = "backbone.tokenizer.json"
    if tokenizer:
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, "[UNK]"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        made.save(str(folder / name))
    manifest = Manifest(
        name="reader",
        model=ModelRef(backbone="b", head="h", outputs=2),
        input=TextSpec(vocabulary=len(WORDS), pad=0, max_length=6),
        labels=("x", "y"),
        license="MIT",
        parameters=0,
        macs=0,
        files={name: FileEntry(sha256="", size=0)} if tokenizer else {},
    )
    return Bundle(folder, manifest)


@pytest.fixture
def reads(tmp_path) -> InputReader:
    return InputReader(bundle(tmp_path))


def test_texts_become_ids(reads, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat", "utf8")
    wanted = [[2, 3, 4], [6, 7, 0]]
    for batch in (["the cat sat", "a mat"], ("the cat sat", "a mat"), np.array(["the cat sat", "a mat"])):
        assert reads(batch).tolist() == wanted
    assert reads([tmp_path / "text.txt", "a mat"]).tolist() == wanted
    assert reads("the cat sat").tolist() == reads(tmp_path / "text.txt").tolist() == [[2, 3, 4]]
    assert reads("the cat sat on a mat the cat").tolist() == [[2, 3, 4, 5, 6, 7]], "cut at what the model expects"


def test_ids_pass_as_they_are(reads):
    ids = np.array([[2, 3, 4, 0]])
    assert reads(ids) is ids


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.array([2, 3]), ["(2,)", "('batch', 'length')"]),
        (np.zeros((0, 3), np.int64), ["(0, 3)"]),
        (np.zeros((1, 3), np.int32), ["int32", "int64"]),
        (np.zeros((1, 3)), ["float64", "int64"]),
        (np.zeros((1, 7), np.int64), ["7 tokens", "6"]),
        (np.array([[2, 8]]), ["from 2 to 8", "0 to 7"]),
        (np.array([[-1, 2]]), ["from -1 to 2"]),
        ([], ["empty"]),
        ([3], ["int"]),
        ([["the", "cat"]], ["list"]),
        (None, ["NoneType"]),
        (b"the cat", ["bytes"]),
        (Path("gone.txt"), ["cannot read the text gone.txt"]),
    ],
)
def test_what_cannot_be_read_is_named(given, says, reads, refused):
    with refused(DataError, *says):
        reads(given)


def test_without_a_tokenizer_there_are_only_ids(tmp_path, refused):
    reads = InputReader(bundle(tmp_path, tokenizer=False))
    assert reads(np.array([[2]])).tolist() == [[2]]
    with refused(DataError, "no tokenizer", hint="token ids"):
        reads("the cat")


def test_numbers_have_no_range(tmp_path):
    """Columns of a table are what they are; it is pixels that are scaled and normalized before they come."""
    texts = bundle(tmp_path)
    spec = InputSpec(shape=("batch", 2), mean=(0.0,), std=(1.0,), resize=0, name="vector")
    rows = np.array([[-3e4, 0.0], [7e5, 1e-9]], np.float32)
    assert InputReader(replace(texts, manifest=replace(texts.manifest, input=spec)))(rows) is rows
