"""How a reference to data is read: its columns, and what is no data set."""

from __future__ import annotations

import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.load_data import load_data, with_columns

ROWS = "words,stars\n" + "".join(f"fast model {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text(ROWS)
    return path


@pytest.mark.parametrize(
    ("text", "label", "query"),
    [
        (None, None, ""),
        ("words", None, "?text=words"),
        (None, "a b", "?label=a+b"),
        ("words", "stars", "?text=words&label=stars"),
        ("", None, "?text="),
    ],
)
def test_columns_become_a_part_of_the_reference(text, label, query):
    assert with_columns("reviews.csv", text, label) == f"reviews.csv{query}"


def test_columns_are_read_from_the_reference(table):
    data = load_data(with_columns(str(table), "words", "stars"))
    assert (data.name, data.labels) == ("reviews", ("bad", "good"))
    assert sorted(len(data.split(name)) for name in ("train", "val", "test")) == [4, 4, 12]


@pytest.mark.parametrize(
    ("query", "message", "hint"),
    [
        ("labels=stars", "names a column for 'labels'", "did you mean 'label'?"),
        ("text=words&stars=x", "names a column for 'stars'", "label, text"),
    ],
)
def test_a_column_for_something_else_is_refused(query, message, hint, table, refused):
    with refused(DataError, message, hint=hint):
        load_data(f"{table}?{query}")


def test_a_file_whose_name_has_a_question_mark_is_that_file(tmp_path):
    path = tmp_path / "what?text=words.csv"
    path.write_text(ROWS.replace("words", "text").replace("stars", "label"))
    assert load_data(path).labels == ("bad", "good")


def test_what_has_no_columns_cannot_be_asked_for_some(tmp_path, refused):
    (tmp_path / "a.npz").write_bytes(b"")
    for name in ("a.npz", "folder"):
        with refused(DataError, f"{name} is not a table, and has no columns", hint=".csv"):
            load_data(f"{tmp_path / name}?text=words")
