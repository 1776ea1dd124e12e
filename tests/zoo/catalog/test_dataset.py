"""The digest of a data set: it changes with the content of every sample, however a sample is given."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split


def of(samples):
    return Dataset("d", ("a", "b"), {name: Split(samples, np.zeros(len(samples), np.int64)) for name in SPLITS})


@pytest.mark.parametrize("given", [str, lambda path: path, lambda path: {"image": str(path), "text": "x"}])
def test_files_count_by_content_whatever_names_them(tmp_path, given):
    path = tmp_path / "0.png"
    path.write_bytes(b"one")
    before = of([given(path)]).digest()
    assert of([given(path)]).digest() == before
    path.write_bytes(b"two")
    assert of([given(path)]).digest() != before


def test_a_text_that_names_a_file_is_that_file(tmp_path):
    for name in "01":
        (tmp_path / name).write_bytes(b"same")
    digests = {of([kind(tmp_path / name)]).digest() for name in "01" for kind in (str, lambda path: path)}
    assert len(digests) == 1


@pytest.mark.parametrize("text", ["", "a text", "\0", "x" * 10000, "/", "no/such/file", "\ud800"])
def test_other_texts_are_texts(text):
    assert of([text]).digest() != of([text + "."]).digest()


def test_what_nothing_is_known_of_is_refused(refused, tmp_path):
    with (tmp_path / "x").open("wb") as file, refused(DataError, "cannot be told apart", hint="give paths"):
        of([file]).digest()
