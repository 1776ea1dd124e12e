"""Texts as windows: which ids, which targets, and what is no text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hubmodels import WORDS

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import GenerationSpec, TextSpec
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.data.token_windows import as_windows

SPEC = TextSpec(vocabulary=len(WORDS), pad=0, max_length=6)
LONG = " ".join(WORDS[4:14])


def windows(samples, files: dict[str, Path], end: int | None = 1, size: int = 4, spec: TextSpec = SPEC) -> Split:
    ends = GenerationSpec(end=() if end is None else (end,))
    data = Dataset("texts", (), dict.fromkeys(SPLITS, Split(samples)), 0)
    return as_windows(data, spec, ends, files, size).split("test")


def test_texts_are_joined_and_cut_and_each_target_is_the_next_id(files):
    """Longer than the model expects is no matter: nothing is cut off."""
    split = windows([LONG, WORDS[4]], files)
    stream = [2, *range(4, 14), 3, 1, 2, 4, 3, 1]
    known = len(stream) - 1
    assert split.samples.shape == (4, 4)
    assert split.samples.ravel().tolist() == [*stream[:-1], *[0] * (16 - known)]
    assert split.targets.ravel().tolist() == [*stream[1:], *[IGNORED] * (16 - known)]


def test_a_window_is_no_longer_than_the_model_or_the_texts(files):
    assert windows([LONG] * 3, files, size=50).samples.shape[1] == SPEC.max_length
    assert windows([WORDS[4]], files, size=50).samples.shape == (1, 3)


def test_an_end_is_not_written_twice(files):
    assert windows([WORDS[4]], files, end=3).samples.tolist() == [[2, 4]]
    assert windows([WORDS[4]], files, end=None).samples.tolist() == [[2, 4]]


def test_behind_an_end_that_is_the_padding_nothing_is_learned(files):
    split = windows([WORDS[4], WORDS[5]], files, end=0, size=10)
    assert split.samples.tolist() == [[2, 4, 3, 0, 2, 5][:6], [3, *[0] * 5]]
    assert split.targets.tolist() == [[4, 3, 0, IGNORED, 5, 3], [0, *[IGNORED] * 5]]


def test_rows_of_ids_are_texts_too(files):
    rows = np.array([[2, 4, 3, 0, 0], [2, 5, 6, 7, 3]], np.float32)  # as an .npz gives them
    split = windows(rows, files)
    assert split.samples.ravel()[:8].tolist() == [2, 4, 3, 1, 2, 5, 6, 7]
    assert split.samples.dtype == np.int64


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([[0.5, 1.0]]), "is trained on texts"),
        (np.array([[5, len(WORDS)]]), "is trained on texts"),
        (np.zeros((2, 3, 3), np.uint8), "is trained on texts"),
        ([Path("a.png")], "is trained on texts"),
        (np.zeros((1, 2)), "the train split of texts has 1 tokens, too few to predict a next one"),
    ],
)
def test_what_is_no_text_is_refused(samples, message, files, refused):
    with refused(DataError, message):
        windows(samples, files)


def test_of_several_ends_the_first_is_written(files):
    data = Dataset("texts", (), dict.fromkeys(SPLITS, Split([WORDS[4]])), 0)
    split = as_windows(data, SPEC, GenerationSpec(end=(1, 5)), files, 4).split("test")
    assert split.targets.tolist() == [[4, 3, 1]]
