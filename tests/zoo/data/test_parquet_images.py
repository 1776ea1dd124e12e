"""Parquet files with images or named classes: as the saved folder of the same rows, whoever wrote them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketzoo.core.errors import DataError
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
datasets.disable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 5), number, np.uint8)).save(file, "png")
    return file.getvalue()


CELLS = [{"bytes": png(i), "path": None} for i in range(20)]
NAMES = ["cat" if i % 2 else "dog" for i in range(20)]
FEATURES = {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["dog", "cat"])}


def by_library(path: Path) -> Path:
    rows = {"photo": CELLS, "kind": NAMES}
    datasets.Dataset.from_dict(rows, features=datasets.Features(FEATURES)).to_parquet(str(path))
    return path


def by_hand(path: Path, photos: object) -> Path:
    from pyarrow import parquet

    parquet.write_table(pa.table({"photo": photos, "kind": NAMES}), path)
    return path


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ALONE = pa.struct([("bytes", pa.large_binary())])
WAYS = {
    "library": by_library,
    "structs": lambda path: by_hand(path, pa.array(CELLS, STRUCT)),
    "structs of bytes": lambda path: by_hand(path, pa.array([{"bytes": c["bytes"]} for c in CELLS], ALONE)),
    "bytes": lambda path: by_hand(path, pa.array([c["bytes"] for c in CELLS], pa.binary())),
    "large bytes": lambda path: by_hand(path, pa.array([c["bytes"] for c in CELLS], pa.large_binary())),
}


def seen(data) -> dict[int, str]:
    """Gray value of each image -> its label."""
    return {
        int(np.asarray(image).mean()): data.labels[label]
        for name in SPLITS
        for image, label in zip(data.split(name).samples, data.split(name).targets, strict=True)
    }


@pytest.mark.parametrize("way", WAYS)
def test_images_of_a_parquet_are_those_of_the_saved_folder(way, tmp_path):
    path = WAYS[way](tmp_path / "d.parquet")
    data = load_data(f"{path}?label=kind")
    assert data.labels == ("cat", "dog")
    assert seen(data) == dict(enumerate(NAMES))
    assert (data.read.text, data.read.labels, data.header) == ("photo", ("kind",), ("photo", "kind"))
    rows = {"photo": CELLS, "kind": NAMES}
    datasets.Dataset.from_dict(rows, features=datasets.Features(FEATURES)).save_to_disk(tmp_path / "saved")
    assert data.digest() == load_data(f"{tmp_path / 'saved'}?label=kind").digest()


def test_classes_of_texts_are_called_by_their_names(tmp_path, refused):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    labels = [i % 2 for i in range(20)]
    rows = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(20)], "label": labels}, features=features)
    rows.to_parquet(str(tmp_path / "d.parquet"))
    data = load_data(tmp_path / "d.parquet")
    assert data.labels == ("no", "yes")
    known = {
        t: data.labels[y] for n in SPLITS for s in [data.split(n)] for t, y in zip(s.samples, s.targets, strict=True)
    }
    assert known == {f"t{i}": ("no", "yes")[i % 2] for i in range(20)}


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("images", [True, False])
def test_a_row_without_a_class_is_named_or_skipped(images, saved, tmp_path, refused):
    features = {
        "label": FEATURES["kind"],
        **({"image": datasets.Image()} if images else {"text": datasets.Value("string")}),
    }
    rows = {
        "label": [i % 2 for i in range(20)],
        **({"image": CELLS} if images else {"text": [f"t{i}" for i in range(20)]}),
    }
    path = tmp_path / ("d" if saved else "d.parquet")

    def write(labels):
        made = datasets.Dataset.from_dict({**rows, "label": labels}, features=datasets.Features(features))
        made.save_to_disk(str(path)) if saved else made.to_parquet(str(path))

    write([-1 if i in (3, 8) else i % 2 for i in range(20)])
    with refused(DataError, "row 4 of", "lacks its label", str(path)):
        load_data(path)
    skipped = Skipped()
    data = load_data(path, skipped=skipped)
    assert [name.split(" of ")[0] for name in data.skipped] == ["row 4", "row 9"]
    assert sum(len(data.split(name)) for name in SPLITS) == 18
    path = tmp_path / ("e" if saved else "e.parquet")
    write([-1] * 20)  # of a competition, whose classes are secret
    assert load_data(path).split("train").targets is None


def test_a_damaged_image_is_skipped_by_its_name(tmp_path, refused):
    cells = [{**cell, "bytes": b"no image"} if i == 5 else cell for i, cell in enumerate(CELLS)]
    path = by_hand(tmp_path / "d.parquet", pa.array(cells, STRUCT))
    data = load_data(f"{path}?label=kind")
    (split,) = [s for s in map(data.split, SPLITS) for i in range(len(s)) if s.called(i).startswith("image 5 of")]
    row = next(i for i in range(len(split)) if split.called(i).startswith("image 5 of"))
    with refused(DataError, f"image 5 of {path}"):
        split.samples[row]


@pytest.mark.parametrize(
    "elsewhere", ["/etc/passwd", "photo.png", "../photo.png", "http://127.0.0.1:9/x.png", "hf://a/b"]
)
def test_nothing_but_the_file_is_read(elsewhere, tmp_path, refused):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "photo.png")
    cells = [{"bytes": None, "path": elsewhere}] * 20
    data = load_data(f"{by_hand(tmp_path / 'd.parquet', pa.array(cells, STRUCT))}?label=kind")
    with refused(DataError, "is not in the data set", elsewhere):
        data.split("train").samples[0]


def test_predict_answers_each_image_of_a_parquet(small, small_registry, tmp_path, refused):
    path = by_hand(tmp_path / "d.parquet", pa.array(CELLS, STRUCT))
    answers = predict(small.path, [path], registry=small_registry)
    assert [answer.place for answer in answers] == [f"row {i}" for i in range(1, 21)]
    for cell, answer in zip(CELLS, answers, strict=True):
        (tmp_path / "one.png").write_bytes(cell["bytes"])
        assert predict(small.path, [tmp_path / "one.png"], registry=small_registry)[0].answer == answer.answer
    cells = [{"bytes": None, "path": "photo.png"} if i == 4 else cell for i, cell in enumerate(CELLS)]
    with refused(DataError, "row 5 of", "cannot be dict"):
        predict(small.path, [by_hand(tmp_path / "e.parquet", pa.array(cells, STRUCT))], registry=small_registry)


def test_bytes_that_are_no_images_are_no_images(tmp_path, refused):
    path = by_hand(tmp_path / "d.parquet", pa.array([b"abc"] * 20, pa.binary()))
    with refused(DataError, "no column of texts among: photo, kind"):
        load_data(path)


def test_a_damaged_file_is_refused(tmp_path, refused):
    path = by_library(tmp_path / "d.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with refused(DataError, f"cannot read {path}"):
        load_data(path)
