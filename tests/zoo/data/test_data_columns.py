"""Columns of a table that a model was fitted to, and where samples stand: in errors, and where they are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from told import Told

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.catalog.processor_configs import DataColumns
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.image_processor import ImageProcessor

REVIEW = DataColumns(text="review", labels=("stars",))


def table(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", "utf8")
    return path


def samples(data) -> set[str]:
    return {sample for name in SPLITS for sample in data.split(name).samples}


@pytest.mark.parametrize(
    ("header", "query", "read"),
    [
        ("text,review,label,stars", "", ("review", "stars")),
        ("text,review,label,stars", "?text=text", ("text", "stars")),
        ("text,review,label,stars", "?label=label", ("review", "label")),
        ("a,review,b,stars", "", ("review", "stars")),
        ("text,a,label,b", "", ("text", "label")),
        ("text,review,a,b", "", ("review", None)),
        ("text,Review,label,Stars", "", ("text", "label")),  # another column, as far as anybody knows
    ],
)
def test_the_columns_of_a_model_are_read_unless_others_are_named(header, query, read, tmp_path):
    rows = [f"a{i},b{i},c{i % 2},d{i % 2}" for i in range(10)]
    path = table(tmp_path / "d.csv", header, rows)
    heard = Told()
    data = load_data(f"{path}{query}", fitted=REVIEW, progress=heard)
    text, label = read
    names = header.split(",")
    letter = "ab"[names.index(text)]
    assert samples(data) == {f"{letter}{i}" for i in range(10)}
    assert data.read == DataColumns(text=text, labels=() if label is None else (label,))
    assert data.labels == (() if label is None else ("c0", "c1") if names.index(label) == 2 else ("d0", "d1"))
    assert data.header == tuple(names)
    said = " ".join(heard.said)
    assert ("'review', which the model was fitted to" in said) == ("review" not in names)
    assert ("'stars', which the model was fitted to" in said) == ("stars" not in names and label is not None)


def test_several_label_columns_are_all_there_or_an_error_says_which_is_not(tmp_path, refused):
    fitted = DataColumns(labels=("p", "q"))
    rows = [f"{i},{i % 2},{i % 3 == 0:d}" for i in range(10)]
    data = load_data(table(tmp_path / "a.csv", "x,q,p", rows), fitted=fitted, targets="flags")
    assert data.labels == ("p", "q")
    assert data.columns == ("x",)
    with refused(DataError, "no column 'p' of labels among: x, q, r", hint="p, q"):
        load_data(table(tmp_path / "b.csv", "x,q,r", rows), fitted=fitted, targets="flags")


PLACES = [  # a table, how it is read, and what its error says
    ("a.csv", "x,p,q\n1,0,1\n2,1,2\n3,0,0\n", {"targets": "flags"}, "?label=p,q", "line 3 of", "neither 0 nor 1 in q"),
    ("a.csv", "x,p,q\n1,0,1\n2,1,\n3,0,0\n", {"targets": "flags"}, "?label=p,q", "line 3 of", "lacks its q"),
    ("a.csv", "a,label\n1,x\n2,y\n\"1,5\",x\n", {}, "", "line 4 of", "has no number in a: '1,5'"),
    ("a.csv", 'a,label\n"1,5",x\n2,y\n', {}, "", "line 2 of", "has no number in a: '1,5'"),
    ("a.csv", "a,label\nmany,x\n2,y\nmore,z\n", {}, "", "no column of texts", "a, label"),
    ("a.csv", "text,label\na,1\nb,one\nc,2\n", {"targets": "numbers"}, "", "line 3 of", "no number in label: 'one'"),
    ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n{"text": "c", "label": 0}\n', {}, "",
     "line 2 of", "the label True, true or false, and others are not"),
    ("a.jsonl", '{"x": 1, "label": [1, 2]}\n{"x": 2, "label": [1]}\n', {"targets": "arrays"}, "", "line 2 of",
     "other targets than the first: [1]"),
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O", "O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n',
     {"targets": "tags"}, "", "line 2 of", "2 words and 1 tags"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "how", "query", "place", "says"), PLACES)
def test_each_error_of_a_table_has_its_file_and_line(name, text, how, query, place, says, tmp_path, refused):
    path = tmp_path / name
    path.write_text(text)
    with refused(DataError, place, says, str(path)):
        load_data(f"{path}{query}", **how)


def test_a_number_with_a_comma_is_shown_with_its_line(tmp_path, refused):
    path = table(tmp_path / "a.csv", "a;label", ["1,5;x", "2,5;y", "3;y"])
    with refused(DataError, hint="'a' has '1,5' in line 2; write numbers with a point"):
        load_data(path)


def test_what_a_processor_refuses_is_named_by_its_line(tmp_path, refused):
    """Where the reader could not know: no tokenizer is there when a table is read."""

    class Words(ImageProcessor):
        text = object()

        def __call__(self, given):
            if bad := [each for each in given if "bad" in each]:
                raise DataError(f"{bad[0]} is no word", "write words")
            return {"image": np.zeros((len(given), 1, 8, 8), np.float32)}

    processor = Words(InputSpec(shape=("n", 1, 8, 8), mean=(), std=(), resize=8))
    rows = [f"{'bad' if i in (3, 7) else 'good'}{i},{i % 2}" for i in range(30)]
    path = table(tmp_path / "d.csv", "text,label", rows)
    data = load_data(path)
    assert {data.split(name).called(i) for name in SPLITS for i in range(len(data.split(name)))} == {
        f"line {i + 2} of {path}" for i in range(30)
    }
    ((split, row),) = [(n, s.called(i)) for n in SPLITS for s in [data.split(n)] for i in range(len(s))
                       if s.samples[i] == "bad3"]  # fmt: skip
    with refused(DataError, f"{row}: bad3 is no word" if split != "train" else "is no word"):
        list(Batches(data.split(split), processor))
    skipped = Skipped()
    for name in SPLITS:
        for x, y in Batches(data.split(name), processor, skipped=skipped):
            assert len(x["image"]) == len(y)
    assert skipped.listed() == [f"line 5 of {path}", f"line 9 of {path}"]


def test_what_readers_skip_is_noted_in_the_data(tmp_path):
    path = table(tmp_path / "d.csv", "text,label", [*(f"t{i},{i % 2}" for i in range(12)), "a,", "b,0,1", ",1"])
    skipped = Skipped({"another"})
    told = Told()
    data = load_data(path, skipped=skipped, progress=told)
    assert told.said == ["skipped 4 that cannot be read, the first is another"]
    bad = [f"line {i} of {path}" for i in (14, 15, 16)]
    assert data.skipped == ("another", *bad)
    assert set(skipped.names) == {"another", *bad}
    assert load_data(table(tmp_path / "e.csv", "text,label", ["a,0", "b,1"] * 5)).skipped == ()


def test_names_are_listed_in_the_order_of_their_numbers():
    assert Skipped({"line 10 of b", "line 9 of b", "line 10 of a", "a", "9"}).listed() == [
        "9", "a", "line 9 of b", "line 10 of a", "line 10 of b"
    ]  # fmt: skip


def test_splits_keep_the_places_of_their_samples(tmp_path):
    rows = [json.dumps({"text": f"t{i}", "label": i % 2}) for i in range(20)]
    (tmp_path / "d.jsonl").write_text("\n\n".join(rows))
    data = load_data(tmp_path / "d.jsonl")
    for name in SPLITS:
        split = data.split(name)
        for i, sample in enumerate(split.samples):
            assert split.called(i) == f"line {2 * int(sample[1:]) + 1} of {tmp_path / 'd.jsonl'}"
