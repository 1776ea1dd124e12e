"""The contact sheet: every class in turn, originals as they are, augmented ones below them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.train.contact_sheet import ACROSS, GAP, SIDE, TIMES, preview
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.batches import from_arrays


@pytest.fixture(scope="module")
def plain() -> Dataset:
    """Three classes of pictures, each of one grey."""
    greys, y = np.array([40, 120, 200], np.uint8), np.arange(30) % 3
    return from_arrays("plain", ("dark", "grey", "light"), greys[y][:, None, None].repeat(9, 1).repeat(12, 2), y)


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def middles(sheet: np.ndarray, left: int, count: int) -> list[int]:
    return [int(sheet[GAP + SIDE // 2, left + SIDE // 2 + i * (SIDE + GAP), 0]) for i in range(count)]


def test_classes_stand_in_turn(plain, tmp_path, registry):
    width, height = preview(plain, tmp_path / "s.png", samples=5, registry=registry)
    sheet = read(tmp_path / "s.png")
    assert sheet.shape == (height, width, 3)
    assert width == GAP + 5 * (SIDE + GAP)
    assert middles(sheet, GAP, 5) == [40, 120, 200, 40, 120]


def test_augmented_ones_stand_below_and_the_same_for_a_seed(plain, tmp_path, registry):
    training = {"augment": "rotate:20,color:0.3", "mix": "mixup:1"}
    sizes = [preview(plain, tmp_path / f"{i}.png", training=training, seed=7, registry=registry) for i in range(2)]
    one, two = (read(tmp_path / f"{i}.png") for i in range(2))
    assert np.array_equal(one, two)
    bare = preview(plain, tmp_path / "bare.png", seed=7, registry=registry)
    assert sizes[0][1] > (TIMES + 1) * bare[1] * 0.9
    preview(plain, tmp_path / "other.png", training=training, seed=8, registry=registry)
    assert not np.array_equal(read(tmp_path / "other.png"), one)


def test_more_than_a_row_goes_on_below(plain, tmp_path, registry):
    one = preview(plain, tmp_path / "s.png", samples=ACROSS, registry=registry)
    two = preview(plain, tmp_path / "s.png", samples=ACROSS + 1, registry=registry)
    assert two[0] == one[0]
    assert two[1] > 1.9 * one[1]


def test_what_is_no_picture_is_refused(tmp_path, registry, refused):
    split = Split(["one", "two"], np.array([0, 1]))
    texts = Dataset("texts", ("a", "b"), {"train": split, "val": split, "test": split})
    with refused(DataError, "texts"):
        preview(texts, tmp_path / "s.png", registry=registry)
    with refused(RecipeError, "augment has no 'rotat'"):
        preview(texts, tmp_path / "s.png", training={"augment": "rotat:3"}, registry=registry)
    assert list(tmp_path.iterdir()) == []
