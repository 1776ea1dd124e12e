"""How a reference to data is read: its columns, and what is no data set."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.batches import from_arrays
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


@pytest.mark.parametrize("seed", [-1, -7])
def test_a_seed_is_no_less_than_zero(seed, table, refused):
    with refused(DataError, f"the seed cannot be {seed}", hint="at least 0"):
        load_data(f"{table}?text=words", seed=seed)


def test_what_is_no_data_set_is_said_by_what_it_is(tmp_path, monkeypatch, refused, registry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.xml").write_text("")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "pocketzoo.json").write_text("{}")
    hint = "give a folder of images or other samples, an .npz with x and y, a table, or a registered name"
    for name, message in [("a.xml", "a.xml is not a data set"), ("bundle", "bundle is a bundle, not a data set")]:
        with refused(DataError, hint=hint) as caught:
            load_data(name, registry=registry)
        assert caught.value.message == message
    for name in ("b.xml", "no/where"):
        with refused(DataError, f"there is no data set at {name}", hint="check the path"):
            load_data(name, registry=registry)


def test_the_seed_and_what_targets_are_reach_every_reader(tmp_path):
    import numpy as np

    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"w{i},{i}\n" for i in range(20)))
    np.savez(tmp_path / "t.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(20))
    for c in "ab":
        (tmp_path / "images" / c).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "images" / c / f"{i}.png").touch()
    for name in ("t.csv", "t.npz", "images"):
        one, same, other = (load_data(tmp_path / name, seed=seed) for seed in (5, 5, 6))
        assert (one.seed, other.seed, load_data(tmp_path / name).seed) == (5, 6, 0)
        assert one.digest() == same.digest() != other.digest()
        assert not one.numeric
        if name != "images":
            assert load_data(tmp_path / name, targets="numbers").numeric


def test_rows_that_cannot_be_read_are_noted(table):
    from pocketzoo.zoo.data.batches import Skipped

    table.write_text(ROWS + ",good\n")
    skipped = Skipped()
    load_data(with_columns(str(table), "words", "stars"), skipped=skipped)
    assert skipped.names == {f"line 22 of {table}"}


TARGETS = {
    "classes": np.arange(20) % 2,
    "numbers": np.arange(40, dtype=np.float32).reshape(20, 2),
    "flags": np.arange(40).reshape(20, 2) % 2,
}


@pytest.mark.parametrize("data", TARGETS)
@pytest.mark.parametrize("kind", ["numbers", "flags"])
def test_targets_of_another_kind_are_left_out(kind, data):
    """The number of a class is not a number to be met."""
    labels = () if data == "numbers" else ("a", "b")
    whole = from_arrays("d", labels, np.zeros((20, 1, 8, 8), np.float32), TARGETS[data])
    loaded = load_data(whole, targets=kind)
    assert len(loaded.split("train")) == len(whole.split("train"))
    assert (loaded.split("train").targets is not None) == (kind == data)


def test_mappings_in_memory_are_samples(refused):
    samples = [{"x": np.full(3, i, np.float32)} for i in range(10)]
    dataset = load_data(iter(samples), seed=1)
    assert sum(len(dataset.split(name)) for name in ("train", "val", "test")) == 10
    assert dataset.split("train").targets is None
    with refused(DataError, "there are no samples"):
        load_data([])
    with refused(DataError, "sample 2 is a ndarray"):
        load_data([samples[0], samples[0]["x"]])
