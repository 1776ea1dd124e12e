"""predict on rows: of tables, of arrays, of the command line; one by one they are what the runtime answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pocketzoo
from pocketzoo.core.errors import DataError
from pocketzoo.workflows.predict import predict

COLUMNS = ("length", "width", "height")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(150, 3)) * (1, 10, 100) + (0, 5, 0)


@pytest.fixture(scope="module")
def table(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "boxes.csv"
    lines = [f"{a:.5f},{b:.5f},{c:.5f},{'big' if a > 0 else 'small'}" for a, b, c in rows]
    path.write_text("\n".join([",".join((*COLUMNS, "label")), *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def model(table, tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "boxes"
    return pocketzoo.fit("mlp", place, data=table, training={"missing": "mean", "epochs": 8})


def test_a_table_is_answered_row_by_row(model, table, tmp_path):
    """The answers are those to the rows one by one, whatever else stands in the table, and however it is stored."""
    answers = predict(model.path, [table], provider="cpu")
    assert [(a.file, a.place) for a in answers] == [(str(table), f"line {i}") for i in range(2, 152)]
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    with pocketzoo.load_runtime(model.path, provider="cpu") as runtime:
        for answer, cells in zip(answers[::17], lines[::17], strict=True):
            ((best, share), *_) = runtime.classify(dict(zip(COLUMNS, cells[:3], strict=True)))[0]
            assert answer.top[0] == (best, pytest.approx(share, abs=1e-5))
    right = np.mean([answer.top[0][0] == cells[3] for answer, cells in zip(answers, lines, strict=True)])
    assert right > 0.9
    bare = tmp_path / "bare.csv"  # columns turned, another among them, no labels
    bare.write_text("\n".join(["height,note,width,length", *(f"{c},n,{b},{a}" for a, b, c, _ in lines)]))
    assert [each.top for each in predict(model.path, [bare], provider="cpu")] == [each.top for each in answers]
    np.savez(tmp_path / "x.npz", x=np.float32([line[:3] for line in lines]))
    assert [each.top for each in predict(model.path, [tmp_path / "x.npz"], provider="cpu")] == [a.top for a in answers]


def test_the_command_line_takes_tables_and_rows(model, table, run, tmp_path):
    three = tmp_path / "three.csv"
    three.write_text("\n".join(table.read_text().splitlines()[:4]) + "\n")
    printed = json.loads(run("predict", model.path, three, "--json").stdout)
    assert [(row["file"], row["place"]) for row in printed] == [(str(three), f"line {i}") for i in (2, 3, 4)]
    assert all({each["label"] for each in row["top"]} == {"big", "small"} for row in printed)
    first = three.read_text().splitlines()[1].split(",")[:3]
    named = ",".join(f"{column}={cell}" for column, cell in zip(COLUMNS, first, strict=True))
    forms = [named, ",".join(first), json.dumps(dict(zip(COLUMNS, map(float, first), strict=True)))]
    (one, two, other) = json.loads(
        run("predict", model.path, "--row", forms[0], "--row", forms[1], "--row", forms[2], "--json").stdout
    )
    assert one["top"] == two["top"] == other["top"]
    assert one["top"][0]["probability"] == pytest.approx(printed[0]["top"][0]["probability"], abs=1e-5)
    said = run("predict", model.path, three, "--row", named, "--top", "1").stdout.splitlines()
    assert said[::2] == [f"{three}, line {i}" for i in (2, 3, 4)] + [named]
    gap = run("predict", model.path, "--row", "length=1,width=2", "--json")
    assert gap.exit_code == 0
    bad = run("predict", model.path, "--row", "lenght=1,width=2,height=3")
    assert (bad.exit_code, bad.stderr.splitlines()[:1]) == (1, ["error: the model reads no column 'lenght'"])
    assert "length" in bad.stderr
    assert run("predict", model.path).exit_code != 0


def test_the_row_that_is_wrong_is_named(model, tmp_path, refused):
    x = np.zeros((70, 3), np.float32)
    x[66, 1] = np.inf
    path = tmp_path / "x.json"
    path.write_text(json.dumps([[0, 0, 0]] * 3 + [[0, "tall", 0]]))
    with refused(DataError, f"row 4 of {path}: column 'width' has no number: 'tall'"):
        predict(model.path, [path])
    with refused(DataError, "no files are given", hint="--row"):
        predict(model.path)


def test_samples_in_memory(model, rows):
    answers = predict(model.path, rows=[dict(zip(COLUMNS, row, strict=True)) for row in rows[:3].tolist()])
    assert [(a.file, a.place) for a in answers] == [("row 1", ""), ("row 2", ""), ("row 3", "")]
