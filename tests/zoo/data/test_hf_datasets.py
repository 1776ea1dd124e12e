"""Data sets of the library ``datasets``: saved by it, and fetched by it from a Hub on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from feeds import arrays
from foreignimages import FOREIGN
from PIL import Image

from pocketzoo.core.errors import BadReferenceError, DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data

datasets, pa = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
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


def test_images_are_decoded_one_at_a_time(tmp_path):
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
    assert [x.shape for x, _ in arrays(Batches(data.split("train"), spec))] == [(6, 3, 4, 4)]
    assert data.digest() == load_data(tmp_path / "saved").digest() != load_data(tmp_path / "saved", seed=1).digest()


def saved_images(path: Path, rows: list[dict[str, object]], **more: object) -> None:
    """A data set whose column of images is as it is stored; ``more`` are columns with a feature and their values."""
    features = {"image": datasets.Image(), "label": datasets.Value("string")}
    columns = {"image": rows, "label": [f"kind {i % 2}" for i in range(len(rows))]}
    for name, (feature, values) in more.items():
        features[name], columns[name] = feature, values
    schema = datasets.Features(features).arrow_schema
    arrays = {field.name: pa.array(columns[field.name], field.type) for field in schema}
    datasets.Dataset(pa.table(arrays)).save_to_disk(path)  # of structs: of images it would read what they name
    file = path / "dataset_info.json"
    info = json.loads(file.read_text()) | {"features": datasets.Features(features).to_dict()}
    file.write_text(json.dumps(info))


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_an_image_of_another_format_is_refused_and_no_program_starts(kind, tmp_path, refused, ghostscript):
    rows = [{"bytes": FOREIGN[kind](), "path": "x.png"} for _ in range(4)]
    saved_images(tmp_path / "saved", rows)
    data = load_data(tmp_path / "saved")
    with refused(DataError, "cannot read the image 0", "PNG, JPEG or WebP", hint="without it"):
        list(data.split("train").samples)
    assert not ghostscript.exists()


@pytest.mark.parametrize("where", ["hf://datasets/other/secret/x.png", "http://127.0.0.1:9/x.png", None])
def test_an_image_that_lies_elsewhere_is_not_fetched(where, tmp_path, refused):
    saved_images(tmp_path / "saved", [{"bytes": None, "path": where}] * 4)
    with refused(DataError, "is not in the data set", where):
        list(load_data(tmp_path / "saved").split("train").samples)


def test_what_nobody_reads_is_not_decoded(tmp_path, ghostscript):
    """Neither beside images nor beside texts, however deep it lies."""
    eps = {"bytes": FOREIGN["EPS"](), "path": "x.png"}
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    more = {
        "thumbnail": (datasets.Image(), [eps] * 6),
        "pages": (datasets.List(datasets.Image()), [[eps]] * 6),
        "sound": (datasets.Audio(), [{"bytes": b"no sound", "path": "x.wav"}] * 6),
        "deep": ({"inside": datasets.Pdf()}, [{"inside": {"bytes": b"no pdf", "path": "x.pdf"}}] * 6),
        "text": (datasets.Value("string"), [f"text {i}" for i in range(6)]),
    }
    saved_images(tmp_path / "saved", [{"bytes": png.getvalue(), "path": "x.png"}] * 6, **more)
    images = load_data(tmp_path / "saved")
    assert [p.shape for name in SPLITS for p in images.split(name).samples] == [(4, 4, 3)] * 6
    texts = load_data(f"{tmp_path / 'saved'}?text=text")
    assert sorted(t for name in SPLITS for t in texts.split(name).samples) == [f"text {i}" for i in range(6)]
    assert not ghostscript.exists()


def test_a_damaged_one_is_named(tmp_path, refused):
    table().save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with refused(DataError, "cannot read the data set in", hint="save it again"):
        load_data(tmp_path / "saved")


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("hf://", "does not name a repository"),
        ("hf://a/b/c", "does not name a repository"),
        ("hf://owner/name@", "has no revision after the @"),
    ],
)
def test_a_reference_that_names_none(reference, what, refused):
    with refused(BadReferenceError, what):
        load_data(reference)


LOAD = """
import json, sys
from pocketzoo import load_data
data = load_data(sys.argv[1])
found = {name: [list(s.samples), s.targets.tolist()] for name, s in data.splits.items()}
print(json.dumps([data.name, data.labels, found]))
"""


@pytest.mark.slow
def test_one_of_the_hub_at_its_commit_also_offline(hub, tmp_path):
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    table(14).to_parquet(folder / "data" / "train-00000.parquet")
    table(6, 14).to_parquet(folder / "data" / "test-00000.parquet")
    commit = hub.state.add_folder("tester/reviews", folder, kind="datasets")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "POCKETZOO_"))}
    own |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "POCKETZOO_HOME": str(tmp_path / "home")}

    def run(reference, **more):
        line = [sys.executable, "-c", LOAD, reference]
        return subprocess.run(line, check=False, env=own | more, cwd=tmp_path, capture_output=True, text=True)

    def load(reference, **more):
        ended = run(reference, **more)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    name, labels, splits = load("hf://tester/reviews")
    assert labels == ["bad", "good"]
    assert splits["test"] == [TEXTS[14:], [1, 0] * 3]
    assert sorted(splits["train"][0] + splits["val"][0]) == sorted(TEXTS[:14])
    assert name == f"hf://tester/reviews@{commit}"
    hub.state.log.clear()
    assert load("hf://tester/reviews", HF_HUB_OFFLINE="1") == [name, labels, splits]
    assert hub.state.log == []
    ended = run("hf://tester/nothing")
    assert "DataError: cannot load the data set hf://tester/nothing" in ended.stderr
    assert "check its name" in ended.stderr
