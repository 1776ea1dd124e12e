"""The contact sheet: every class in turn, originals as they are, augmented ones below them."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFont

from pocketzoo import hookimpl
from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.train.contact_sheet import ACROSS, GAP, LINE, SIDE, TIMES, preview
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import from_arrays


@pytest.fixture(scope="module")
def plain() -> Dataset:
    """Three classes of images, each of one grey."""
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


def test_what_is_no_image_is_refused(tmp_path, registry, refused):
    split = Split(["one", "two"], np.array([0, 1]))
    texts = Dataset("texts", ("a", "b"), {"train": split, "val": split, "test": split})
    with refused(DataError, "texts"):
        preview(texts, tmp_path / "s.png", registry=registry)
    with refused(RecipeError, "augment has no 'rotat'"):
        preview(texts, tmp_path / "s.png", training={"augment": "rotat:3"}, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_that_reads_no_images_is_refused(plain, tmp_path, registry, refused):
    numbers = replace(
        registry.get("backbone", "tinynet"),
        name="rows",
        input=InputSpec(shape=("batch", 4), mean=(), std=(), resize=0, layout="NC"),
    )
    plugin = ModuleType("rows")
    plugin.pocketzoo_backbones = hookimpl(lambda: [numbers])
    acme = Registry(create_manager(points=[], extra=[plugin]))
    with refused(DataError, "this backbone does not read images", hint="leave out the backbone"):
        preview(plain, tmp_path / "s.png", backbone="rows", registry=acme)
    assert list(tmp_path.iterdir()) == []


def ink(sheet: np.ndarray, top: int, left: int) -> tuple[int, int]:
    """How wide and high what is written below an image is."""
    band = (sheet[top : top + LINE, left : left + SIDE] < 250).any(-1)
    across, down = np.flatnonzero(band.any(0)), np.flatnonzero(band.any(1))
    return int(across[-1] - across[0]), int(down[-1] - down[0])


def test_a_class_stands_below_its_image_and_a_share_only_where_there_are_two(plain, tmp_path, registry):
    size = preview(plain, tmp_path / "s.png", samples=1, registry=registry)
    assert size == (GAP + SIDE + GAP, GAP + (SIDE + LINE + GAP) + GAP - GAP)
    font = ImageFont.load_default(13)
    left, top, right, bottom = font.getbbox("dark")
    width, height = ink(read(tmp_path / "s.png"), GAP + SIDE + 2, GAP)
    assert abs(width - (right - left)) <= 3
    assert abs(height - (bottom - top)) <= 3


def test_rows_and_bands_stand_below_one_another(plain, tmp_path, registry):
    """A row is an image, its line and a gap; a band ends with a gap of its own. Mixed ones have a line for each."""
    place, training = tmp_path / "s.png", {"mix": "mixup:1"}
    high = preview(plain, place, samples=ACROSS + 1, registry=registry)[1]
    assert high == GAP + 2 * (SIDE + LINE + 2 * GAP) - GAP
    mixed = preview(plain, place, samples=3, training=training, registry=registry)
    assert mixed[1] in [GAP + (TIMES + 1) * (SIDE + n * LINE + GAP) for n in (1, 2)]
    flipped = preview(plain, place, samples=3, training={"augment": "flip"}, registry=registry)
    assert flipped[1] == GAP + (TIMES + 1) * (SIDE + LINE + GAP)
    sheet, side = read(place), flipped[0] - 3 * (SIDE + GAP) - GAP
    assert side > 0, "what the rows are is written beside them"
    for row in range(TIMES + 1):
        top = row * (SIDE + LINE + GAP)
        assert middles(sheet[top:], GAP + side, 3) == [40, 120, 200]


@pytest.mark.parametrize(("name", "kind"), [("s.jpg", "JPEG"), ("s.JPEG", "JPEG"), ("s.png", "PNG"), ("s", "PNG")])
def test_the_name_says_which_kind_of_file_it_is(name, kind, plain, tmp_path, registry):
    preview(plain, tmp_path / name, samples=1, registry=registry)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
