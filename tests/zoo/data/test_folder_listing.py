"""What is left out of a folder of samples is named: hidden entries, other files, nested samples, links to nowhere."""

from __future__ import annotations

import os

import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.folder_listing import is_hidden
from pocketzoo.zoo.data.image_folders import read_folder
from pocketzoo.zoo.data.tagged_words import read_conll

SUFFIXES = (".png", ".jpg")
HIDDEN_FOLDERS = [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trash-1000", "#recycle", "$RECYCLE.BIN",
                  "System Volume Information", "lost+found", "__pycache__"]  # fmt: skip
HIDDEN_FILES = [".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", ".hidden.png", "~$notes.png"]


class Heard(list):
    def say(self, text):
        self.append(text)

    def track(self, items, label, total=None):
        yield from items


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def classes(root, count=6):
    return touch(root, *(f"{c}/{i}.png" for c in "ab" for i in range(count)))


def count(data):
    return sum(len(data.split(name)) for name in SPLITS)


@pytest.mark.parametrize("name", HIDDEN_FOLDERS)
@pytest.mark.parametrize("where", ["", "a/"])
def test_hidden_folders_are_no_classes_and_have_no_samples(name, where, tmp_path):
    classes(tmp_path)
    touch(tmp_path, f"{where}{name}/x.png", f"{where}{name}/a/x.png")
    heard = Heard()
    data = read_folder(tmp_path, 0, SUFFIXES, progress=heard)
    assert (data.labels, count(data)) == (("a", "b"), 12)
    assert heard == [f"{tmp_path}: left out 1 hidden or system entry, such as {tmp_path / where / name}"]


@pytest.mark.parametrize("name", HIDDEN_FILES)
@pytest.mark.parametrize("where", ["", "a/"])
def test_hidden_files_are_no_samples(name, where, tmp_path):
    classes(tmp_path)
    touch(tmp_path, f"{where}{name}")
    heard = Heard()
    assert count(read_folder(tmp_path, 0, SUFFIXES, progress=heard)) == 12
    assert heard == [f"{tmp_path}: left out 1 hidden or system entry, such as {tmp_path / where / name}"]


@pytest.mark.parametrize("name", HIDDEN_FOLDERS)
def test_hidden_folders_are_no_splits(name, tmp_path):
    for split in ("train", "val", "test"):
        classes(tmp_path / split, 2)
        touch(tmp_path / split, f"{name}/x.png")
    touch(tmp_path, f"{name}/x.png")
    data = read_folder(tmp_path, 0, SUFFIXES)
    assert (data.labels, [len(data.split(split)) for split in SPLITS]) == (("a", "b"), [4, 4, 4])


def test_ordinary_names_are_not_hidden():
    assert not any(map(is_hidden, ["a", "a.b", "caf\xe9", "_x", "@home", "#1", "thumbs", "Icon", "recycled", "x~"]))


def test_files_that_are_not_read_are_counted_and_said(tmp_path):
    classes(tmp_path)
    touch(tmp_path, "a/1.bmp", "a/2.BMP", "b/3.heic", "README", "loose.png")
    heard = Heard()
    assert count(read_folder(tmp_path, 0, SUFFIXES, progress=heard)) == 12
    (said,) = heard
    assert "did not read 5 files" in said
    assert "2 of .bmp" in said
    assert "1 of .heic" in said


def test_nested_samples_are_counted_and_said(tmp_path):
    classes(tmp_path)
    touch(tmp_path, "a/more/1.png", "a/more/deep/2.png", "a/more/notes.txt", "a/x.png/3.png")
    heard = Heard()
    assert count(read_folder(tmp_path, 0, SUFFIXES, progress=heard)) == 12
    assert len(heard) == 1
    assert "did not read 3 samples" in heard[0]


def test_a_class_without_samples_says_what_it_has(tmp_path, refused):
    classes(tmp_path)
    touch(tmp_path, "c/more/1.png", "c/1.bmp")
    with refused(DataError, f"{tmp_path}/c has no samples", hint="1 lie in folders inside of it") as caught:
        read_folder(tmp_path, 0, SUFFIXES)
    assert "1.bmp" in caught.value.hint


@pytest.mark.parametrize("where", ["", "a/"])
@pytest.mark.parametrize("name", ["z.png", "z"])
def test_a_link_to_nowhere_is_named_or_skipped(where, name, tmp_path, refused):
    classes(tmp_path)
    link = tmp_path / where / name
    link.symlink_to("/nowhere/z.png")
    with refused(DataError, f"{link} is a link to nowhere: /nowhere/z.png", hint="--skip-bad"):
        read_folder(tmp_path, 0, SUFFIXES)
    skipped = Skipped()
    assert count(read_folder(tmp_path, 0, SUFFIXES, skipped)) == 12
    assert skipped.names == {str(link)}


def test_a_link_to_itself_is_one_to_nowhere(tmp_path, refused):
    classes(tmp_path)
    (tmp_path / "a/z.png").symlink_to(tmp_path / "a/z.png")
    with refused(DataError, "is a link to nowhere"):
        read_folder(tmp_path, 0, SUFFIXES)


def test_what_is_no_file_is_not_read(tmp_path):
    classes(tmp_path)
    os.mkfifo(tmp_path / "a/pipe.png")
    heard = Heard()
    assert count(read_folder(tmp_path, 0, SUFFIXES, progress=heard)) == 12
    assert "did not read 1 file" in heard[0]


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "dev", "Testing")])
def test_splits_may_be_spelled_otherwise(names, tmp_path):
    for name in names:
        classes(tmp_path / name, 5)
    data = read_folder(tmp_path, 0, SUFFIXES)
    assert (data.labels, count(data)) == (("a", "b"), 10 * len(names))


def test_folders_alongside_splits_are_refused(tmp_path, refused):
    for name in ("train", "test", "unlabeled"):
        classes(tmp_path / name)
    with refused(DataError, "folders for test and train, and also 'unlabeled'"):
        read_folder(tmp_path, 0, SUFFIXES)


def test_two_folders_of_one_split_are_refused(tmp_path, refused):
    for name in ("train", "val", "valid"):
        classes(tmp_path / name)
    with refused(DataError, "two folders for val"):
        read_folder(tmp_path, 0, SUFFIXES)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.png" for c in ("car", "train", "test") for i in range(5)))
    assert read_folder(tmp_path, 0, SUFFIXES).labels == ("car", "test", "train")


def test_files_of_tagged_words_are_not_hidden_ones(tmp_path):
    (tmp_path / "._train.conll").write_bytes(b"\0\5\x16\7")
    (tmp_path / "train.conll").write_text("EU B-ORG\nx O\n\n")
    assert read_conll(tmp_path).labels == ("B-ORG", "O")


@pytest.mark.parametrize(("link", "target"), [("a/up", ".."), ("self", "."), ("a/self", "."), ("a/top", "../../data")])
def test_links_to_folders_that_they_lie_in_are_not_followed(link, target, tmp_path, refused):
    root = classes(tmp_path / "data")
    (root / link).symlink_to(target)
    with refused(DataError, f"{root / link} is a link to a folder that it lies in: {target}", hint="--skip-bad"):
        read_folder(root, 0, SUFFIXES)
    skipped, heard = Skipped(), Heard()
    data = read_folder(root, 0, SUFFIXES, skipped, heard)
    assert (data.labels, count(data), skipped.names, heard) == (("a", "b"), 12, {str(root / link)}, [])


def test_links_to_other_folders_are_classes(tmp_path):
    classes(tmp_path / "data")
    classes(tmp_path / "other")
    (tmp_path / "data" / "c").symlink_to("../other/a")
    assert read_folder(tmp_path / "data", 0, SUFFIXES).labels == ("a", "b", "c")


def test_a_folder_that_is_called_as_a_sample_is_said(tmp_path):
    (classes(tmp_path) / "a" / "x.png").mkdir()
    heard = Heard()
    assert count(read_folder(tmp_path, 0, SUFFIXES, progress=heard)) == 12
    assert heard == [f"{tmp_path}: did not read 1 file, such as {tmp_path / 'a' / 'x.png'} (1 of .png)"]


def test_labels_of_folders_lose_the_blanks_around_them_as_those_of_tables_do(tmp_path, refused):
    root = touch(tmp_path / "d", *(f"{c}/{i}.png" for c in (" a", "b ") for i in range(5)))
    assert read_folder(root, 0, SUFFIXES).labels == ("a", "b")
    touch(root, "a/0.png")
    with refused(DataError, "two class folders for 'a'"):
        read_folder(root, 0, SUFFIXES)
    root = touch(tmp_path / "e", *(f"{c}/{i}.png" for c in (" ", "b") for i in range(5)))
    with refused(DataError, "' ' is blank"):
        read_folder(root, 0, SUFFIXES)
