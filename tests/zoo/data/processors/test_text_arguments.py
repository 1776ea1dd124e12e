"""Whether an argument is a text or a file: a file that cannot be read is never taken for a text."""

from __future__ import annotations

import os
import threading

import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.processors.text_arguments import looks_like_file, text_or_file

TEXTS = ["a good film", "great", "awful!", "great.", "hm...", "5 stars", "he said: no.", "", "x" * 300, "a\nb.txt",
         "fast and/or small", "no comma", "caf\xe9", "-", "a.b c", "version 2.0 is bad", "see e.g. this"]  # fmt: skip
FILES = ["missing.txt", "mising.md", "a/b", "./x", "../x y.txt", "~/x", "/tmp/nowhere", "data.csv", "t.csv?text=a",
         "my reviews.txt", " missing.txt ", "missing.txt\t", "C:\\x", "http://127.0.0.1/x", "*.txt", "photo.JPG",
         "x.unknown"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_itself(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text:
        assert text_or_file(text) == text
    assert not looks_like_file(text)


@pytest.mark.parametrize("name", FILES)
def test_what_looks_like_a_file_and_is_not_there_is_refused(name, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    with refused(DataError, f"there is no file {name}", hint="--row"):
        text_or_file(name)


def test_a_file_in_a_folder_that_is_there_is_meant(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").mkdir()
    with refused(DataError, "there is no file reviews/the best one"):
        text_or_file("reviews/the best one")


def test_what_is_there_and_cannot_be_read_is_refused(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with refused(DataError, "folder is a folder"):
        text_or_file("folder")
    (tmp_path / "link").symlink_to("nowhere")
    with refused(DataError, "link is a link to nowhere"):
        text_or_file("link")
    (tmp_path / "circle").symlink_to("circle")
    with refused(DataError, "cannot read circle"):
        text_or_file("circle")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_permission_is_refused(tmp_path, refused):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with refused(DataError, "cannot read"):
        text_or_file(tmp_path / "a")


def test_a_file_is_its_path_and_a_pipe_what_is_in_it(tmp_path):
    (tmp_path / "a b").write_text("x")
    assert text_or_file(str(tmp_path / "a b")) == tmp_path / "a b"
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("from a pipe\n"))
    writer.start()
    assert text_or_file(tmp_path / "pipe") == "from a pipe"
    writer.join()


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \r\n"])
def test_an_empty_text_is_refused_as_one(text, refused):
    with refused(DataError, f"{text!r} is an empty text"):
        text_or_file(text)
