"""``--group-by``: what it takes, and what comes of it for each kind of data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from told import Told

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.grouping.group_by import GroupBy
from pocketzoo.zoo.data.load_data import load_data, with_columns


def sides(data, source):
    """The sources of the samples of each split, each of which is in one; ``source`` tells them of a sample."""
    found = [set(map(source, data.split(name).samples)) for name in SPLITS]
    assert sum(map(len, found)) == len(set().union(*found))
    for name in SPLITS:
        split = data.split(name)
        names = list(map(source, split.samples))
        assert all((split.groups.ids[i] == split.groups.ids[0]) == (n == names[0]) for i, n in enumerate(names))
    return found


def by(reference, text):
    return with_columns(str(reference), None, None, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foldr", "samples cannot be grouped by 'foldr'"),
        ("column", "samples cannot be grouped by 'column'"),
        ("folder=x", "samples cannot be grouped by 'folder=x'"),
        ("pattern=", "samples cannot be grouped by 'pattern='"),
        ("pattern=abc", "the pattern 'abc' has 0 groups"),
        ("pattern=(a)(b)", "the pattern '(a)(b)' has 2 groups"),
        ("pattern=(*", "'(*' is not a pattern"),
    ],
)
def test_what_says_nothing_is_refused(text, says, refused):
    with refused(DataError, says):
        GroupBy.parse(text)


@pytest.mark.parametrize(
    ("pattern", "path", "source"),
    [
        (r"(.+)_[0-9]+", "cats/tom_12.png", "cats/tom"),
        (r"/([a-z]+)_[0-9]+\.png$", "cats/tom_12.png", "tom"),
        ("(*)_*.png", "cats/tom_12.png", "tom"),
        ("(*)_*.png", "tom_12.png", "tom"),
        ("patient-(???)*", "a/patient-123-4.png", "123"),
    ],
)
def test_patterns_and_globs(pattern, path, source):
    twin = Path(path).parent / "other"
    groups = GroupBy.parse(f"pattern={pattern}").of_files([Path(path)], Path())
    assert GroupBy("pattern", pattern).regex().search(path)[1] == source
    assert groups.ids.tolist() == GroupBy("pattern", "(.*)").of_files([Path(source)], Path()).ids.tolist()
    with pytest.raises(DataError, match="does not match"):
        GroupBy("pattern", pattern).of_files([twin], Path())


def test_a_folder_for_each_source_in_class_folders(photos, tmp_path):
    for label in ("cat", "dog"):
        for source in range(6):
            photos(tmp_path / "pets" / label / f"day {source}", {"": 4})
    data = load_data(by(tmp_path / "pets", "folder"))
    assert data.labels == ("cat", "dog")
    assert sum(len(data.split(name)) for name in SPLITS) == 48
    assert sum(map(len, sides(data, lambda path: path.parent))) == 12
    for name in SPLITS:
        assert [data.labels[t] for t in data.split(name).targets] == [p.parts[-3] for p in data.split(name).samples]


def test_folders_of_samples_alone_are_sources_and_no_classes(photos, tmp_path):
    photos(tmp_path / "pets", {f"day {i}": 5 for i in range(6)})
    data = load_data(by(tmp_path / "pets", "folder"))
    assert data.labels == ()
    assert list(map(len, sides(data, lambda path: path.parent))) == [4, 1, 1]


def test_a_pattern_of_file_names(photos, tmp_path):
    photos(tmp_path / "pets", {"cat": 30, "dog": 30})
    data = load_data(by(tmp_path / "pets", "pattern=([a-z]+/[0-9]+)[0-9].png"))
    assert len(set().union(*sides(data, lambda path: path.as_posix()[:-5]))) == 6
    with pytest.raises(DataError, match="does not match"):
        load_data(by(tmp_path / "pets", "pattern=(x)"))


def test_a_divided_folder_says_which_sources_are_in_two_splits(photos, tmp_path):
    for split in ("train", "test"):
        photos(tmp_path / "pets" / split, {"cat": 50, "dog": 50})
    load_data(by(tmp_path / "pets", "pattern=([0-9]+)[0-9].png"), progress=(told := Told()))
    assert told.said[1:] == [  # val is cut from train, by source
        "4 sources of pets in both train and test: scores are too optimistic",
        "1 source of pets in both val and test: scores are too optimistic",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_of_a_table_is_the_source_and_no_input(tmp_path, suffix):
    rows = [{"a": i, "b": i % 7, "patient": f"p{i // 5}", "label": "xy"[i % 2]} for i in range(50)]
    path = tmp_path / f"t{suffix}"
    if suffix == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    data = load_data(by(path, "column=patient"))
    assert data.columns == ("a", "b")
    assert list(map(len, sides(data, lambda row: int(row[0]) // 5))) == [6, 2, 2]
    with pytest.raises(DataError, match="no column 'pationt'"):
        load_data(by(path, "column=pationt"))


def test_an_array_of_a_file_is_the_source_and_no_input(tmp_path):
    x = np.arange(80.0, dtype=np.float32).reshape(40, 2)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(40) % 2, day=np.arange(40) // 4)
    data = load_data(by(tmp_path / "x.npz", "column=day"))
    assert list(map(len, sides(data, lambda row: int(row[0]) // 8))) == [6, 2, 2]
    with pytest.raises(DataError, match="no array 'week'"):
        load_data(by(tmp_path / "x.npz", "column=week"))
    with pytest.raises(DataError, match="not a file"):
        load_data(by(tmp_path / "x.npz", "folder"))
    np.savez(tmp_path / "x.npz", x=x, day=np.zeros((2, 2)))
    with pytest.raises(DataError, match="day is of shape"):
        load_data(by(tmp_path / "x.npz", "column=day"))


def test_each_sample_for_itself_turns_the_search_off(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((9, 5)).repeat(4, 0))
    found, each = load_data(tmp_path / "x.npz"), load_data(by(tmp_path / "x.npz", "sample"))
    assert sum(found.split(name).groups.count for name in SPLITS) == 9
    assert sum(each.split(name).groups.count for name in SPLITS) == 36


def test_what_comes_divided_cannot_be_grouped(photos, tmp_path, refused):
    with refused(DataError, "digits comes divided"):
        load_data(by("digits", "sample"))
    with refused(DataError, "is a folder, and cannot be grouped by column x"):
        load_data(by(photos(tmp_path / "pets", {"cat": 5}), "column=x"))
