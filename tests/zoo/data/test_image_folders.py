"""Folders as data sets, empty files for images: nothing is decoded here."""

from __future__ import annotations

import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.image_folders import read_folder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return root


def found(data) -> dict[str, list[tuple[str, str]]]:
    """By split: the name of each image, and its class."""
    return {
        name: sorted((p.name, data.labels[t]) for p, t in zip(s.samples, s.targets, strict=True))
        for name in SPLITS
        for s in [data.split(name)]
    }


def several(folder: str, count: int, first: int = 0) -> list[str]:
    return [f"{folder}/{i}.png" for i in range(first, first + count)]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_of_splits_keeps_them(tmp_path, val):
    names = [f"{split}/{c}/{split}{c}.png" for split in ("train", val, "test") for c in "ab"]
    data = read_folder(touch(tmp_path / "pets", *names), 7, SUFFIXES)
    assert (data.name, data.labels, data.seed) == ("pets", ("a", "b"), 7)
    for split, folder in (("train", "train"), ("val", val), ("test", "test")):
        assert found(data)[split] == [(f"{folder}a.png", "a"), (f"{folder}b.png", "b")]


def test_a_missing_split_is_cut_from_train(tmp_path):
    touch(tmp_path, *several("train/a", 10), *several("train/b", 10, 10), "test/a/x.png", "test/b/y.png")
    splits = found(read_folder(tmp_path, 0, SUFFIXES))
    assert splits["test"] == [("x.png", "a"), ("y.png", "b")]
    assert [len(splits[name]) for name in ("train", "val")] == [16, 4]
    assert not set(splits["train"]) & set(splits["val"])


def test_only_splits_make_a_folder_of_splits(tmp_path):
    touch(tmp_path, *several("train/a", 5), *several("other", 5), *several("train", 5, 5))
    data = read_folder(tmp_path, 0, SUFFIXES)
    assert data.labels == ("other", "train")
    assert sum(len(data.split(name)) for name in SPLITS) == 10


def test_images_alone_have_no_classes(tmp_path):
    names = [f"{i}.{end}" for i, end in enumerate(("png", "JPG", "jpeg", "webp", "txt", "gif"))]
    data = read_folder(touch(tmp_path / "x", *names), 1, SUFFIXES)
    assert (data.labels, data.name, data.seed) == ((), "x", 1)
    assert sorted(p.name for name in SPLITS for p in data.split(name).samples) == names[:4]
    assert data.split("train").targets is None


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        (["a.txt"], "{path} has no samples", "supported: .jpeg, .jpg, .png, .webp"),
        (["a/x.png", "b/"], "the class folder {path}/b has no samples", "add some or remove it; supported: .jpeg"),
        (["train/x.png"], "{path}/train has no class folders", "make one sub-folder per class"),
        (
            ["train/a/x.png", "train/b/x.png", "val/a/x.png", "val/c/x.png"],
            "{path}/val has different classes than train: ['b', 'c']",
            "give every split the same class folders",
        ),
    ],
)
def test_what_is_no_data_is_refused(tmp_path, refused, names, message, hint):
    touch(tmp_path, *names)
    with refused(DataError, hint=hint) as caught:
        read_folder(tmp_path, 0, SUFFIXES)
    assert caught.value.message == message.format(path=tmp_path)


def test_samples_are_the_files_that_are_read(tmp_path, refused):
    touch(tmp_path, "a/1.wav", "a/2.WAV", "a/3.png", "b/1.wav", "b/2.wav", "b/3.wav")
    data = read_folder(tmp_path, 0, {".wav"})
    assert sum(len(data.split(name)) for name in SPLITS) == 5
    with refused(DataError, "no samples", hint="no processor that is installed reads any"):
        read_folder(tmp_path, 0, ())
