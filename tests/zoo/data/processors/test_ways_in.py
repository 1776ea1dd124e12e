"""The same thing gives the same arrays whichever way it comes in: to fit and eval, to predict, to a Runtime."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.data.sample_files import parsed_row, samples_of

IMAGE = InputSpec(shape=("batch", 3, 8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), resize=9)
TABLE = TableSpec(width=2, columns=("a", "b"), mean=(1.0, 2.0), std=(2.0, 8.0), missing=(3.0, 4.0))
TEXT = TextSpec(vocabulary=4, pad=0, max_length=8, mask="mask")
TWO = ArraysSpec(inputs=(TensorSpec(name="x", shape=("n", 2)), TensorSpec(name="k", shape=("n",), dtype="int64")))
PAIR = MappingSpec(fields={"photo": IMAGE, "row": TableSpec(width=2, columns=("a", "b"), mean=(1.0, 2.0), name="row")})


def images(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    data = (folder / "p.png").read_bytes()
    ways = [
        folder / "p.png",
        str(folder / "p.png"),
        data,
        Image.open(io.BytesIO(data)),
        Image.fromarray(pixels),
        pixels,
    ]
    return ways, [folder / "p.png", str(folder / "p.png")]


def texts(folder):
    (folder / "t.txt").write_text("one two", "utf8")
    ids = np.int64([1, 2])
    ways = ["one two", folder / "t.txt", b"one two", ids, ids.astype(np.float32), {"input_ids": ids}]
    (folder / "t.csv").write_text("text,label\none two,x\n")
    return ways, ["one two", folder / "t.txt", folder / "t.csv"]


def rows(folder):
    x = np.float32([5, 6])
    (folder / "r.csv").write_text("label,b,a\nyes,6,5\n")
    (folder / "r.json").write_text(json.dumps({"b": 6, "a": 5}))
    (folder / "r.jsonl").write_text(json.dumps({"a": "5", "b": 6, "c": "?"}) + "\n")
    np.savez(folder / "r.npz", x=x[None])
    ways = [
        x,
        x.astype(np.float64),
        np.int64([5, 6]),
        [5, 6],
        (5.0, "6"),
        {"a": 5, "b": 6},
        {"b": "6", "a": 5.0},
        {"vector": x},
    ]
    return ways, [folder / name for name in ("r.csv", "r.json", "r.jsonl", "r.npz")]


def arrays(folder):
    x, k = np.float32([1, 2]), np.int64(3)
    np.savez(folder / "a.npz", x=x[None], k=k[None])
    (folder / "a.json").write_text(json.dumps({"k": 3, "x": [1.0, 2.0]}))
    ways = [{"x": x, "k": k}, {"x": [1, 2], "k": 3}, {"k": np.int8(3), "x": x.astype(np.float64)}]
    return ways, [folder / "a.npz", folder / "a.json"]


def pairs(folder):
    photos, _ = images(folder)
    ways = [{"photo": photo, "row": row} for photo in photos for row in ([5, 6], {"a": 5, "b": 6}, np.float32([5, 6]))]
    (folder / "m.json").write_text(json.dumps({"photo": "p.png", "row": {"a": 5, "b": 6}}))
    (folder / "m.jsonl").write_text(json.dumps({"photo": "p.png", "row": [5, 6]}) + "\n")
    np.savez(folder / "m.npz", photo=np.asarray(photos[-1])[None], row=np.float32([[5, 6]]))
    return ways, [folder / name for name in ("m.json", "m.jsonl", "m.npz")]


CASES = {
    "image": (IMAGE, images),
    "text": (TEXT, texts),
    "table": (TABLE, rows),
    "arrays": (TWO, arrays),
    "mapping": (PAIR, pairs),
}


def test_each_processor_that_ships_is_held_here():
    ships = {name for name, entry in default_registry().entries("processor").items() if entry.plugin == "processors"}
    assert ships == set(CASES)


@pytest.fixture
def opened(tmp_path):
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "one": 1, "two": 2, "[UNK]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    return lambda config: open_config(config, {"tokenizer.json": tmp_path / "tokenizer.json"})


@pytest.mark.parametrize("name", CASES)
def test_the_arrays_are_the_same(name, opened, tmp_path):
    config, make = CASES[name]
    processor = opened(config)
    ways, files = make(tmp_path)
    wanted = processor([ways[0]])

    def check(made, way):
        assert list(made) == list(wanted), way
        for tensor, x in wanted.items():
            assert made[tensor].dtype == x.dtype, way
            np.testing.assert_array_equal(made[tensor], x, err_msg=f"{name} by {way!r:.60}")

    for way in ways:
        check(processor([way]), way)  # fit, calibration, eval
        check(processor.batch([way]), way)  # Runtime.predict, of several
        ((made, _),) = Batches(Split([way], np.zeros(1, np.int64)), processor)
        check(made, way)
        check(processor.batch(wanted) if name not in ("table",) else wanted, "arrays that are ready")
    for file in files:
        (given,) = samples_of(file, processor)  # predict
        check(processor([given.sample]), file)
    # A batch of texts has texts alone, or token ids alone.
    together = processor([way for way in ways if name != "text" or isinstance(way, str | bytes | Path)])
    for tensor in processor.inputs:
        for row in together[tensor.name]:
            np.testing.assert_array_equal(row, wanted[tensor.name][0])


def test_a_row_of_the_command_line_is_the_row(opened):
    processor = opened(TABLE)
    for text in ("a=5,b=6", "5,6", '{"b": 6, "a": 5}'):
        np.testing.assert_array_equal(processor([parsed_row(text, processor)])["vector"], processor([[5, 6]])["vector"])
