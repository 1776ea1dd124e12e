"""Data sets of the library ``datasets``: saved by it, and fetched by it from a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pocketzoo.errors import BadReferenceError, DataError
from pocketzoo.zoo.data import SPLITS, Batches
from pocketzoo.zoo.sources import load_data
from pocketzoo.zoo.specs import InputSpec

datasets = pytest.importorskip("datasets")
TEXTS = [f"text {i}" for i in range(20)]


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def table(count=20, start=0, **columns):
    rows = {"text": TEXTS[start : start + count], "label": [i % 2 for i in range(start, start + count)], **columns}
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    return datasets.Dataset.from_dict(
        rows, datasets.Features({**kinds, **{c: datasets.Value("string") for c in columns}})
    )


def everything(data):
    return {
        (sample, data.labels[target])
        for name in SPLITS
        for sample, target in zip(data.split(name).samples, data.split(name).targets, strict=True)
    }


WHOLE = {(text, ("good", "bad")[i % 2]) for i, text in enumerate(TEXTS)}


def test_a_saved_one_is_divided_and_keeps_its_labels(tmp_path):
    table().save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert (data.name, data.labels) == ("saved", ("bad", "good"))
    assert [len(data.split(name)) for name in SPLITS] == [12, 4, 4]
    assert everything(data) == WHOLE


@pytest.mark.parametrize("given", [("train", "test"), ("train", "validation"), ("train", "dev", "test")])
def test_splits_stay_as_they_are_and_a_missing_one_is_cut_from_train(given, tmp_path):
    parts = dict(zip(given, (table(10), table(6, 10), table(4, 16)), strict=False))
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    rows = sum(map(len, parts.values()))
    assert [len(data.split(name)) for name in SPLITS if data.split(name)]
    assert len(everything(data)) == rows == sum(len(data.split(name)) for name in SPLITS)
    for name, part in parts.items():
        split = "val" if name in ("validation", "dev") else name
        if split != "train":
            assert list(data.split(split).samples) == list(part["text"])


def test_a_test_split_whose_classes_are_secret_is_left_alone(tmp_path):
    secret = table(4, 16).map(lambda row: {"label": -1})
    datasets.DatasetDict(train=table(16), test=secret).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert everything(data) == {pair for pair in WHOLE if pair[0] in TEXTS[:16]}


def test_columns_may_be_named_and_a_missing_one_is_refused(tmp_path, refused):
    table(other=[f"other {i}" for i in range(20)]).save_to_disk(tmp_path / "saved")
    data = load_data(f"{tmp_path / 'saved'}?text=other")
    assert everything(data) == {(f"other {i}", ("good", "bad")[i % 2]) for i in range(20)}
    with refused(DataError, "no column 'othr'", hint="did you mean 'other'"):
        load_data(f"{tmp_path / 'saved'}?text=othr")


def test_pictures_are_decoded_one_at_a_time(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": list(pixels), "label": [i % 2 for i in range(10)]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert data.labels == ("cat", "dog")
    for name in SPLITS:
        for sample, target in zip(data.split(name).samples, data.split(name).targets, strict=True):
            (row,) = [i for i in range(10) if np.array_equal(pixels[i], sample)]
            assert target == row % 2
    spec = InputSpec(shape=("batch", 3, 4, 4), mean=(0.0,) * 3, std=(1.0,) * 3, resize=4)
    assert [x.shape for x, _ in Batches(data.split("train"), spec)] == [(6, 3, 4, 4)]
    assert data.digest() == load_data(tmp_path / "saved").digest() != load_data(tmp_path / "saved", seed=1).digest()


def test_a_damaged_one_is_named(tmp_path, refused):
    table().save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with refused(DataError, "cannot read the data set in", hint="save it again"):
        load_data(tmp_path / "saved")


@pytest.mark.parametrize("reference", ["hf://", "hf://a/b/c", "hf://owner/name@"])
def test_a_reference_that_names_none(reference, refused):
    with refused(BadReferenceError, "names no"):
        load_data(reference)


LOAD = """
import json, sys
from pocketzoo import load_data
from pocketzoo.errors import DataError
try:
    data = load_data(sys.argv[1])
    found = {name: [list(s.samples), s.targets.tolist()] for name, s in data.splits.items()}
    print(json.dumps([data.name, data.labels, found]))
except DataError as error:
    print(json.dumps([error.message, error.hint]))
"""


@pytest.mark.slow
def test_one_of_the_hub_at_its_commit_also_offline(hub, tmp_path):
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    table(14).to_parquet(folder / "data" / "train-00000.parquet")
    table(6, 14).to_parquet(folder / "data" / "test-00000.parquet")
    commit = hub.state.add_folder("tester/reviews", folder, kind="datasets")

    def load(reference, **more):
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), **more}
        environment["POCKETZOO_HOME"] = str(tmp_path / "home")
        line = [sys.executable, "-c", LOAD, reference]
        return json.loads(subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout)

    name, labels, splits = load("hf://tester/reviews")
    assert labels == ["bad", "good"]
    assert splits["test"] == [TEXTS[14:], [1, 0] * 3]
    assert sorted(splits["train"][0] + splits["val"][0]) == sorted(TEXTS[:14])
    assert name == f"hf://tester/reviews@{commit}"
    hub.state.log.clear()
    assert load("hf://tester/reviews", HF_HUB_OFFLINE="1") == [name, labels, splits]
    assert hub.state.log == []
    message, hint = load("hf://tester/nothing")
    assert "cannot load the data set hf://tester/nothing" in message
    assert "check its name" in hint
