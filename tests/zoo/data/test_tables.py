"""Tables: columns found or named, texts or numbers, rows that lack a value, files that are none."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from feeds import pairs
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data, with_columns
from pocketzoo.zoo.data.tables import LABEL, TAGS, TEXT, WORDS, Columns, choose, find_column, read_table
from pocketzoo.zoo.data.target_kinds import IGNORED, classes

ROWS = [("fast model", "good"), ("small, on edge", "bad")]


def write(path, names, rows):
    """Write a table by the library of its format."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n\n" for row in rows))
    else:
        with path.open("w", encoding="utf8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([names, *rows])
    return path


@pytest.fixture(params=[".csv", ".tsv", ".jsonl", ".parquet"])
def suffix(request):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return request.param


@pytest.mark.parametrize("names", [("text", "label"), ("Sentence", "Class"), ("content", "target")])
def test_columns_are_found_by_name(names, suffix, tmp_path):
    assert pairs(load_data(write(tmp_path / f"a{suffix}", names, ROWS))) == ROWS


def test_columns_may_be_named(suffix, tmp_path):
    rows = [(i, f"how was it {i}?", "text that is not meant", "ab"[i % 2]) for i in range(10)]
    path = write(tmp_path / f"a{suffix}", ("id", "what & why?", "text", "stars=1"), rows)
    wanted = sorted((row[1], row[3]) for row in rows)
    reference = with_columns(str(path), "what & why?", "stars=1")
    assert pairs(load_data(reference)) == wanted
    assert pairs(read_table(path, Columns(text="what & why?", label="stars=1"))) == wanted
    assert pairs(load_data(with_columns(str(path), "what & why?", None))) == [(text, "") for text, _ in wanted]
    assert with_columns(str(path), None, None) == str(path)


def test_a_column_that_is_not_there_is_named_with_the_nearest(suffix, tmp_path, refused):
    path = write(tmp_path / f"a{suffix}", ("review", "stars"), ROWS)
    with refused(DataError, "no column 'reviews'", hint="did you mean 'review'"):
        load_data(f"{path}?text=reviews")
    with refused(DataError, "no column of texts among: review, stars", hint="--text-column"):
        load_data(path)
    with refused(DataError, "both text and label"):
        load_data(f"{path}?text=stars&label=stars")
    with refused(DataError, "names a column for 'texts'", hint="'text'"):
        load_data(f"{path}?texts=review")


def test_columns_are_for_tables(tmp_path, refused, photos):
    folder = photos(tmp_path / "photos", {"a": 5, "b": 5})
    with refused(DataError, "is not a table", hint=".csv"):
        load_data(f"{folder}?text=a")


def test_a_question_mark_may_be_part_of_a_name(tmp_path):
    path = write(tmp_path / "why?.csv", ("text", "label"), ROWS)
    assert pairs(load_data(path)) == ROWS
    assert pairs(load_data(f"{path}?text=text&label=label")) == ROWS


def test_a_table_of_numbers_is_vectors(suffix, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rows = [(float(a), float(b), "uv"[i % 2], float(c)) for i, (a, b, c) in enumerate(x)]
    data = load_data(write(tmp_path / f"a{suffix}", ("a", "b", "label", "c"), rows))
    assert data.labels == ("u", "v")
    for name in SPLITS:
        split = data.split(name)
        assert (split.samples.dtype, split.samples.shape[1]) == (np.float32, 3)
        for sample, target in zip(split.samples, split.targets, strict=True):
            (row,) = np.flatnonzero((x == sample).all(1))
            assert target == row % 2


def test_targets_may_be_numbers(suffix, tmp_path):
    rows = [(float(i), 2.0 * i) for i in range(10)]
    data = load_data(write(tmp_path / f"a{suffix}", ("x", "target"), rows), targets="numbers")
    assert data.numeric
    for name in SPLITS:
        np.testing.assert_array_equal(data.split(name).targets, 2 * data.split(name).samples)


def test_rows_without_a_value_are_named_or_left_out_and_counted(suffix, tmp_path, refused):
    rows = [*[(f"text {i}", "ab"[i % 2]) for i in range(10)], ("", "a"), ("b", "")]
    path = write(tmp_path / f"a{suffix}", ("text", "label"), rows)
    first, second = {
        ".csv": ("line 12", "line 13"),
        ".tsv": ("line 12", "line 13"),
        ".jsonl": ("line 21", "line 23"),
    }.get(suffix, ("row 11", "row 12"))
    with refused(DataError, f"{first} of {path} lacks its text", hint="--skip-bad"):
        load_data(path)
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == sorted(rows[:10])
    assert skipped.names == {f"{first} of {path}", f"{second} of {path}"}


@pytest.mark.parametrize("value", ["n/a", "", "nan", "inf"])
def test_a_number_that_is_none(value, tmp_path, refused):
    path = write(tmp_path / "a.csv", ("x", "label"), [("1", "a"), (value, "b")])
    with refused(DataError, f"line 3 of {path} has no number in x"):
        load_data(path)


def test_lines_that_are_no_json_are_named_or_left_out(tmp_path, refused):
    path = write(tmp_path / "a.jsonl", ("text", "label"), ROWS)
    path.write_text(path.read_text() + "{\n[1]\n")
    with refused(DataError, f"line 5 of {path} is not a row"):
        load_data(path)
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == ROWS
    assert len(skipped.names) == 2


def test_lines_of_text_have_no_classes(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    assert pairs(load_data(tmp_path / "a.txt")) == [("one", ""), ("two", "")]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"{t},{c}\n" for t, c in [("x", "a"), ("y", "b")]), "utf-8-sig"
    )
    assert pairs(load_data(tmp_path / "a.csv")) == [("x", "a"), ("y", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "has no"), ("a.csv", b"text,label\n", "has no rows"), ("a.txt", b"\n\n", "has no rows"),
        ("a.csv", b"x,label\na,b\n", "no column of texts among: x, label"),
        ("a.csv", b"text,label\nfast,good\nslow\n", "line 3"), ("a.csv", b"text,label\nfast,\n", "line 2"),
        ("a.jsonl", b"{", "line 1"), ("a.jsonl", b"[1, 2]\n", "it is not an object"),
        ("a.jsonl", b'{"text": 3}\n', "line 1"), ("a.csv", b"text\n\xff\xfe\n", "line 2"),
        ("a.parquet", b"PAR1", "cannot read"), ("a.parquet", b"", "cannot read"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read(name, content, message, tmp_path, refused):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with refused(DataError, message, str(tmp_path / name)):
        load_data(tmp_path / name)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip), min_size=1))
def test_any_text_comes_back_as_it_was(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    write(path, ("text",), [(text,) for text in texts])
    assert [text for text, _ in pairs(load_data(path))] == sorted(texts)


# -- which columns, and what is said of rows


@pytest.mark.parametrize(
    ("names", "usual", "asked", "wanted"),
    [
        (["label", "text"], TEXT, None, "text"),
        (["question", "sentence"], TEXT, None, "sentence"),  # the better name, wherever it stands
        (["TEXT", "text"], TEXT, None, "TEXT"),
        (["document", "content"], TEXT, None, "content"),
        (["intent", "category", "target", "class"], LABEL, None, "class"),
        (["intent", "category"], LABEL, None, "category"),
        (["texts", "labels"], TEXT, None, None),
        (["text", "tokens"], WORDS, None, "tokens"),
        (["label", "ner_tags"], TAGS, None, "ner_tags"),
        (["a", "b"], LABEL, "b", "b"),
        ([], LABEL, None, None),
    ],
)
def test_a_column_is_found_by_the_best_of_its_names(names, usual, asked, wanted):
    assert find_column("t", names, usual, asked) == wanted


def test_what_is_chosen_and_what_is_said(refused):
    def rows(*values):
        return [dict(zip("ab", row, strict=False)) for row in values]

    def chosen(*values, text=None, label=None, skipped=None, names=("a", "b")):
        return choose("t", names, rows(*values), Columns(text=text, label=label), skipped)

    table = chosen(("1", "2.5"), (3, 4))
    assert (np.asarray(table.samples).tolist(), table.targets) == ([[1.0, 2.5], [3.0, 4.0]], None)
    assert table.samples.dtype == np.float32
    table = chosen(("one", 7), ("two", 0), text="a", label="b")
    assert (table.samples, table.targets) == (["one", "two"], [7, 0])
    skipped = Skipped()
    table = chosen(("x", "y"), (" ", "y"), ("z", ""), ("w", None), (5, "y"), text="a", label="b", skipped=skipped)
    assert (table.samples, table.targets) == (["x"], ["y"])
    assert skipped.names == {f"row {i} of t" for i in (2, 3, 4, 5)}
    for call, message, hint in [
        (lambda: chosen(("x", "y"), text="a", label="a"), "the column 'a' of t cannot be both text and label",
         "name two columns"),
        (chosen, "t has no rows", "give a header and one sample per row"),
        (lambda: chosen(("x", "y")), "t has no column of texts among: a, b",
         "name it with --text-column, or call it 'text'; a table of numbers has no other columns"),
        (lambda: chosen(("1", "y")), "t has no column of texts among: a, b", "name it with --text-column"),
        (lambda: chosen(("y",), names=("a",), label="a"), "t has no column of texts among: a", "--text-column"),
        (lambda: chosen(("1", "2"), ("3", "x")), "row 2 of t has no number in b: 'x'",
         "fix or remove it, or use --skip-bad"),
        (lambda: chosen(("x", "y"), (None, "y"), text="a"), "row 2 of t lacks its a", "fix or remove it"),
        (lambda: chosen(("x", ""), text="a", label="b"), "row 1 of t lacks its b", "fix or remove it"),
        (lambda: chosen(("", "y"), text="a", skipped=Skipped()), "t has no readable rows", "fix the file"),
    ]:  # fmt: skip
        with refused(DataError, hint=hint) as caught:
            call()
        assert caught.value.message == message


def test_targets_are_numbered_in_the_order_of_their_names():
    labels, targets = classes("t", ["b", 10, "a", 9, "b"])
    assert (labels, targets.tolist(), targets.dtype) == (("10", "9", "a", "b"), [3, 0, 2, 1, 3], np.int64)
    labels, targets = classes("t", ["1", 2.5], "numbers")
    assert (labels, targets.tolist()) == ((), [[1.0], [2.5]])
    assert classes("t", None, "numbers") == classes("t", None) == ((), None)


def test_lines_of_json_may_differ_in_their_columns(tmp_path, refused):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"t{i}"}) for i in range(99)]
    path.write_text("\n".join([*lines, json.dumps({"text": "t99", "label": "x"})]))
    with refused(DataError, f"line 1 of {path} lacks its label"):
        load_data(path)
    path.write_text("\n".join([*lines, json.dumps({"text": "t99"}), json.dumps({"text": "t100", "label": "x"})]))
    with refused(DataError, f"line 1 of {path} lacks its label"):
        load_data(path)
    path.write_text('{"text": "a"}\n\n3\n{"text": "b"}\n{\n')
    skipped = Skipped()
    assert len(pairs(load_data(path, skipped=skipped))) == 2
    assert skipped.names == {f"line 3 of {path}", f"line 5 of {path}"}
    with refused(DataError, hint="fix or remove it, or use --skip-bad") as caught:
        load_data(path)
    assert caught.value.message == f"line 3 of {path} is not a row: it is not an object"


def test_a_table_is_divided_by_its_seed(tmp_path):
    path = write(tmp_path / "reviews.csv", ("text", "label"), [(f"t{i}", "ab"[i % 2]) for i in range(20)])
    data = {seed: read_table(path, seed=seed) for seed in (0, 1)}
    assert (data[1].name, data[1].seed, read_table(path).seed) == ("reviews", 1, 0)
    assert data[0].split("train").samples != data[1].split("train").samples
    assert read_table(path).split("train").samples == data[0].split("train").samples
    assert not data[0].numeric


WORDS_OF_TAGS = [("EU rejects German call", "B-ORG O B-MISC O"), ("Peter Blackburn", "B-PER I-PER")]


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": words, "label": tags} for words, tags in WORDS_OF_TAGS],
        [{"tokens": words.split(), "ner_tags": tags.split()} for words, tags in WORDS_OF_TAGS],
        [{"words": words, "tags": tags.split(), "text": "-"} for words, tags in WORDS_OF_TAGS],
    ],
)
def test_words_and_tags_stand_in_lists_or_with_spaces_between(rows):
    table = choose("t", list(rows[0]), rows, Columns(), None, targets="tags")
    assert list(table.samples) == [words for words, _ in WORDS_OF_TAGS]
    labels, targets = classes("t", table.targets, "tags", table.labels)
    assert labels == ("B-MISC", "B-ORG", "B-PER", "I-PER", "O")
    assert targets.tolist() == [[1, 4, 0, 4], [2, 3, IGNORED, IGNORED]]


def test_numbers_of_tags_are_labels_in_the_order_of_numbers():
    labels, targets = classes("t", [[10, 9], [0, 10]], "tags", ("tags",))
    assert (labels, targets.tolist()) == (("0", "9", "10"), [[2, 1], [0, 2]])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"words": "a b", "tags": "O"}, "row 1 of t has 2 words and 1 tags"),
        ({"words": ["a", "b"], "tags": ["O", "O", "O"]}, "row 1 of t has 2 words and 3 tags"),
        ({"words": "a", "tags": 0.5}, "row 1 of t has no tag for each word: 0.5"),
        ({"words": ["a", 1], "tags": "O O"}, "row 1 of t lacks its words"),
        ({"words": "a", "tags": ""}, "row 1 of t lacks its tags"),
    ],
)
def test_a_row_without_a_tag_for_each_word_is_named_or_left_out(row, why, refused):
    with refused(DataError, hint="--skip-bad") as caught:
        choose("t", ["words", "tags"], [row], Columns(), None, targets="tags")
    assert caught.value.message == why
    skipped = Skipped()
    table = choose("t", ["words", "tags"], [row, {"words": "c", "tags": "O"}], Columns(), skipped, targets="tags")
    assert (list(table.samples), skipped.names) == (["c"], {"row 1 of t"})
