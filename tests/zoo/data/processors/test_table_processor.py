"""Rows of tables: by the names of columns, in order, standardized, with what they lack."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.data.processors.table_processor import TableProcessor

NAMED = TableSpec(width=3, columns=("height", "width", "mass"), mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
FILLED = TableSpec(width=3, columns=NAMED.columns, mean=NAMED.mean, std=NAMED.std, missing=(1.0, 2.0, 11.0))
PLAIN = TableSpec(width=3)


@given(st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 3), min_size=1, max_size=6))
def test_a_row_is_the_same_however_it_is_given(rows):
    reads = TableProcessor(NAMED)
    x = np.array(rows, np.float32)
    wanted = (x - np.float32([1, 2, 3])) / np.float32([2, 4, 8])
    mappings = [dict(zip(NAMED.columns, row, strict=True)) for row in rows]
    shuffled = [dict(reversed(row.items())) for row in mappings]
    for arrays in (reads(x), reads(list(x)), reads(rows), reads(mappings), reads(shuffled), reads.batch(x),
                   reads.batch(mappings), reads.batch({"vector": x})):  # fmt: skip
        np.testing.assert_array_equal(arrays["vector"], wanted)
        assert arrays["vector"].dtype == np.float32
    np.testing.assert_array_equal(reads.batch(mappings[0])["vector"], wanted[:1])
    np.testing.assert_array_equal(reads.batch(rows[0])["vector"], wanted[:1])


def test_rows_without_standardization_pass_without_a_copy():
    x = np.ones((2, 3), np.float32)
    assert TableProcessor(PLAIN).batch(x)["vector"] is x


def test_what_a_row_lacks_is_said_by_name_or_filled_in(refused):
    for sample in (
        {"height": 1, "mass": 3},
        {"height": 1, "width": None, "mass": 3},
        [1, "", 3],
        np.float32([1, np.nan, 3]),
    ):
        with refused(DataError, "lacks its 'width'"):
            TableProcessor(NAMED)([sample])
        assert TableProcessor(FILLED)([sample])["vector"].tolist() == [[0, 0, 0]]
    assert TableProcessor(FILLED)([{}])["vector"].tolist() == [[0, 0, 1]]
    assert TableProcessor(FILLED).batch(np.full((1, 3), np.nan, np.float32))["vector"].tolist() == [[0, 0, 1]]
    with refused(DataError, "lacks its 'column 0'"):
        TableProcessor(PLAIN)([[None, 1, 2]])


@pytest.mark.parametrize(
    ("spec", "given", "says"),
    [
        (NAMED, {"hight": 1, "width": 2, "mass": 3}, ["no column 'hight'"]),
        (NAMED, {"height": "tall", "width": 2, "mass": 3}, ["column 'height' has no number: 'tall'"]),
        (NAMED, {"height": float("inf"), "width": 2, "mass": 3}, ["column 'height' is inf"]),
        (PLAIN, [{"height": 1}], ["have no names"]),
        (PLAIN, [[1, 2]], ["2 numbers", "3"]),
        (PLAIN, np.zeros((1, 4), np.float32), ["(1, 4)", "('batch', 3)"]),
        (PLAIN, np.zeros((1, 3)), ["float64"]),
        (PLAIN, np.zeros(3, np.float32), ["one sample alone needs a batch axis"]),
        (PLAIN, np.full((1, 3), np.inf, np.float32), ["non-finite"]),
        (PLAIN, np.zeros((0, 3), np.float32), ["empty"]),
        (PLAIN, ["a text"], ["str"]),
        (PLAIN, 7, ["int"]),
    ],
)
def test_what_cannot_be_read_is_named(spec, given, says, refused):
    with refused(DataError, *says):
        TableProcessor(spec).batch(given)


def dataset(columns: tuple[str, ...]) -> Dataset:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    return Dataset("d", (), {name: Split(rows, np.zeros(4, np.int64)) for name in SPLITS}, columns=columns)


def test_columns_of_a_data_set_are_put_in_order(refused):
    reads = TableProcessor(NAMED)
    data = reads.reads(dataset(("mass", "height", "width")))
    assert data.columns == NAMED.columns
    assert data.split("test").samples[0].tolist() == [1, 2, 0]
    assert data.split("test").targets.tolist() == [0] * 4
    assert reads.reads(data) is data
    nameless = dataset(())
    assert reads.reads(nameless) is nameless
    with refused(DataError, "no column 'mass'"):
        reads.reads(dataset(("height", "width", "weight")))
    lacking = TableProcessor(FILLED).reads(dataset(("height", "width", "weight")))
    assert TableProcessor(FILLED)(lacking.split("val").samples)["vector"][:, 2].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 0}, "0 columns"),
        ({"columns": ("a",)}, "columns has 1 values for 3"),
        ({"columns": ("a", "b", "a")}, "two columns have one name"),
        ({"std": (1.0, 0.0, 1.0)}, "std cannot be 0.0"),
        ({"mean": (1.0,)}, "mean has 1 values"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, says, refused):
    with refused(RecipeError, says):
        TableSpec(**{"width": 3, **changes})


@pytest.mark.parametrize("row", [[[1.0], 2.0], [[1, 2], [3]], [[[1]], [[1, 2]]]], ids=repr)
def test_a_row_with_lists_within_it_is_refused(row):
    with pytest.raises(DataError, match="a row has lists within it"):
        TableProcessor(TableSpec(width=2))([row])
