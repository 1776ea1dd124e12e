"""What predict is given: files of their own, rows of tables and arrays, JSON, rows of the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.data.sample_files import GivenSample, batches, parsed_row, samples_of

TABLE = TableSpec(width=2, columns=("near", "far"), mean=(1.0, 2.0), std=(2.0, 4.0))
FILLED = TableSpec(width=2, columns=("near", "far"), missing=(5.0, 6.0))
TWO = ArraysSpec(inputs=(TensorSpec(name="a", shape=("n", 3)), TensorSpec(name="b", shape=("n",), dtype="int64")))
IMAGE = InputSpec(shape=("batch", 1, 4, 4), mean=(0.5,), std=(0.5,), resize=4)
TEXT = TextSpec(vocabulary=9, pad=0, max_length=8)
PAIR = MappingSpec(fields={"photo": IMAGE, "row": TableSpec(width=2, columns=("near", "far"), name="row")})


@pytest.fixture
def opened(registry):
    return lambda config: open_config(config, {}, registry)


def called(samples):
    return [(sample.place, sample.sample) for sample in samples]


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.csv", "far,near\n20,10\n2.5,1\n", ["line 2", "line 3"]),
        ("a.csv", "id,far,label,near\nx,20,up,10\ny,2.5,,1\n", ["line 2", "line 3"]),
        ("a.csv", "near,far\r\n10,20\r\n\r\n1,2.5\r\n", ["line 2", "line 4"]),
        ("A.TSV", "near\tfar\n10\t20\n1\t2.5\n", ["line 2", "line 3"]),
        ("a.jsonl", '{"near": 10, "far": 20}\n{"far": 2.5, "near": 1, "label": "up"}\n', ["line 1", "line 2"]),
        ("a.json", '[{"near": 10, "far": 20}, {"far": 2.5, "near": 1, "label": "up"}]', ["row 1", "row 2"]),
        ("a.json", "[[10, 20], [1, 2.5]]", ["row 1", "row 2"]),
        ("a.json", '[{"vector": [10, 20]}, {"vector": [1, 2.5]}]', ["row 1", "row 2"]),
    ],
)
def test_rows_of_a_table_are_the_same_in_every_form(name, text, places, tmp_path, opened):
    processor = opened(TABLE)
    samples = samples_of(write(tmp_path / name, text), processor)
    assert [sample.place for sample in samples] == places
    made = processor([sample.sample for sample in samples])["vector"]
    np.testing.assert_array_equal(made, np.float32([[4.5, 4.5], [0, 0.125]]))


def test_one_object_is_one_row(tmp_path, opened):
    ((place, row),) = called(samples_of(write(tmp_path / "a.json", '{"near": 1, "far": 2}'), opened(TABLE)))
    assert (place, np.asarray(row).tolist()) == ("", [1.0, 2.0])


def test_rows_of_arrays(tmp_path, opened):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "x.npz", x=x, y=np.zeros(3, np.int64))
    assert [place for place, _ in called(samples_of(tmp_path / "x.npz", opened(TABLE)))] == ["row 1", "row 2", "row 3"]
    np.savez(tmp_path / "two.npz", a=np.ones((2, 3), np.float32), b=np.int64([4, 5]))
    samples = samples_of(tmp_path / "two.npz", opened(TWO))
    assert opened(TWO)([sample.sample for sample in samples])["b"].tolist() == [4, 5]
    text = json.dumps([{"a": [1, 2, 3], "b": 4}, {"a": [1.5, 2, 3], "b": 5}])
    from_json = samples_of(write(tmp_path / "two.json", text), opened(TWO))
    made = opened(TWO)([sample.sample for sample in from_json])
    assert (made["a"].tolist(), made["b"].tolist()) == ([[1, 2, 3], [1.5, 2, 3]], [4, 5])


def test_a_mapping_names_files_that_lie_beside_it(tmp_path, opened):
    Image.new("L", (4, 4), 255).save(tmp_path / "white.png")
    text = json.dumps({"photo": "white.png", "row": {"far": 2, "near": 1}})
    lines = f"{text}\n{json.dumps({'photo': 'white.png', 'row': [3, 4]})}\n"
    processor = opened(PAIR)
    for path, rows in (
        (write(tmp_path / "a.json", text), [[1, 2]]),
        (write(tmp_path / "a.jsonl", lines), [[1, 2], [3, 4]]),
    ):
        made = processor([sample.sample for sample in samples_of(path, processor)])
        assert made["row"].tolist() == rows
        assert (made["image"] == 1).all()


def test_what_is_a_sample_itself(tmp_path, opened):
    """A text may be JSON, and a plugin's own files may be called as tables are."""
    path = write(tmp_path / "a.json", '{"near": 1}')
    assert called(samples_of(path, opened(TEXT))) == [("", path)]
    assert called(samples_of("no comma", opened(TEXT))) == [("", "no comma")]
    series = write(tmp_path / "a.csv", "near,far\n1,2\n")
    assert called(samples_of(series, opened(TABLE), own={".csv"})) == [("", series)]
    texts = write(tmp_path / "t.csv", "text,label\none,a\ntwo,b\n")
    assert called(samples_of(texts, opened(TEXT))) == [("line 2", "one"), ("line 3", "two")]
    assert called(samples_of(f"{texts}?text=label", opened(TEXT)))[0] == ("line 2", "a")
    assert called(samples_of(tmp_path / "p.png", opened(IMAGE))) == [("", tmp_path / "p.png")]


@pytest.mark.parametrize(
    ("config", "name", "text", "says", "hint"),
    [
        (TABLE, "a.csv", "near,fra\n1,2\n", "has no column 'far'", "did you mean 'fra'?; the model reads near, far"),
        (TABLE, "a.csv", "near,far\n1,2\n3,\n", "line 3 of {path} has no number in far: ''", "fix or remove it"),
        (TABLE, "a.csv", "near,far\n1,2\n3\n", "line 3 of {path} has 1 cells for 2 columns", ""),
        (TABLE, "a.csv", "near,far\n1,2\nx,4\n", "line 3 of {path} has no number in near: 'x'", ""),
        (TABLE, "a.csv", "near,far\n", "has no rows", ""),
        (TABLE, "a.json", '[{"near": 1, "far": 2}, {"near": 1}]', "row 2 of {path} has no number in far: None", ""),
        (TableSpec(width=2), "a.csv", "near,label\n1,\n", "has 1 columns, near; the model reads 2", "?label="),
        (TABLE, "a.json", "{", "cannot read {path}", "JSON"),
        (TABLE, "a.json", "[]", "has no samples", ""),
        (TWO, "a.json", '{"a": [[1], [2, 3]], "b": 1}', "'a' is not an array", ""),
        (TableSpec(width=3), "a.csv", "a,b,c,d\n1,2,3,4\n", "has 4 columns, a, b, c, d; the model reads 3", "?label="),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_place(config, name, text, says, hint, tmp_path, opened, refused):
    path = write(tmp_path / name, text)
    with refused(DataError, says.format(path=path), hint=hint):
        samples_of(path, opened(config))


def test_what_is_missing_may_be_where_something_stands_for_it(tmp_path, opened):
    path = write(tmp_path / "a.csv", "near,far\n1,\nNA,2\n")
    rows = [sample.sample for sample in samples_of(path, opened(FILLED))]
    assert opened(FILLED)(rows)["vector"].tolist() == [[1, 6], [5, 2]]
    np.savez(tmp_path / "a.npz", x=np.float32([[np.nan, 3]]))
    (sample,) = samples_of(tmp_path / "a.npz", opened(FILLED))
    assert opened(FILLED)([sample.sample])["vector"].tolist() == [[5, 3]]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2))
def test_a_row_of_the_command_line_in_every_form(registry, values):
    processor = open_config(TABLE, {}, registry)
    a, b = values
    wanted = processor([{"near": a, "far": b}])["vector"]
    forms = [
        f"near={a},far={b}",
        f" far = {b} , near={a}",
        f"{a},{b}",
        json.dumps({"near": a, "far": b}),
        json.dumps(values),
    ]
    for form in forms:
        np.testing.assert_array_equal(processor([parsed_row(form, processor)])["vector"], wanted)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("near=1,2", "'2' of 'near=1,2' is not COLUMN=NUMBER"),
        ("near=1,near=2", "two values for 'near'"),
        ('{"near": ', "is not JSON"),
        ("=1,far=2", "'=1'"),
    ],
)
def test_a_row_that_says_nothing_is_refused(text, says, opened, refused):
    with refused(DataError, says):
        parsed_row(text, opened(TABLE))


def test_rows_of_one_file_go_together():
    rows = [GivenSample("a", f"line {i}", i) for i in range(5)] + [GivenSample("b", "", 5), GivenSample("b", "", 6)]
    assert [[each.sample for each in batch] for batch in batches(rows, 2)] == [[0, 1], [2, 3], [4], [5], [6]]
    assert list(batches([], 2)) == []
