from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pocketzoo.compress.samples.images import ImageChange, ImageMaker, cut_out, cutmix, is_image, lit, mixup
from pocketzoo.zoo.catalog.specs import InputSpec

WHOLE = ImageChange(0.0, 0.0, 1.0, 1.0, False, 1.0, 1.0, 1.0)
SPEC = InputSpec(shape=("batch", 3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25), resize=16)


def images(count: int, side: int = 16, channels: int = 3, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [{"image": generator.normal(size=(1, channels, side, side)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("image", [None, SPEC])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_made_lies_within_the_reach_of_what_it_is_made_of(image, dtype):
    samples = [{"image": sample["image"].astype(dtype)} for sample in images(4)]
    make = ImageMaker.of(samples, np.arange(4), image)
    whole = np.concatenate([sample["image"] for sample in samples])
    low, high = whole.min((0, 2, 3)), whole.max((0, 2, 3))
    for number in range(40):
        made, source = make(np.random.default_rng(number))
        assert made["image"].shape == (1, 3, 16, 16)
        assert made["image"].dtype == dtype
        assert source in range(4)
        assert (made["image"].min((0, 2, 3)) >= low).all()
        assert (made["image"].max((0, 2, 3)) <= high).all()


def test_a_change_of_nothing_changes_nothing():
    image = images(1)[0]["image"][0]
    assert np.allclose(cut_out(image, WHOLE), image, atol=1e-6)
    black, white = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    assert np.allclose(lit(image, WHOLE, black, white), image, atol=1e-5)


def test_the_mirror_image_of_a_mirror_image_is_the_image():
    image = images(1)[0]["image"][0]
    mirrored = replace(WHOLE, mirrored=True)
    assert np.array_equal(cut_out(image, mirrored), cut_out(image, WHOLE)[:, :, ::-1])


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.2])
def test_a_ramp_that_is_cut_out_is_a_ramp_of_the_part(zoom):
    """Bilinear interpolation is exact on what is linear, away from the border."""
    ramp = np.tile(np.arange(32, dtype=np.float32), (1, 32, 1))
    start = (1 - zoom) / 2
    made = cut_out(ramp, replace(WHOLE, top=start, left=start, height=zoom, width=zoom))
    places = (start + (np.arange(32) + 0.5) / 32 * zoom) * 32 - 0.5
    inside = (places >= 0) & (places <= 31)
    assert np.allclose(made[0][:, inside], places[inside], atol=1e-4)


def test_brightness_and_contrast_and_saturation_are_what_they_are_called():
    image = images(1)[0]["image"][0]
    zero, one = np.zeros((3, 1, 1), np.float32), np.ones((3, 1, 1), np.float32)
    assert np.allclose(lit(image, replace(WHOLE, brightness=1.3), zero, one), 1.3 * image, atol=1e-5)
    assert lit(image, replace(WHOLE, contrast=0.5), zero, one).std() == pytest.approx(image.std() / 2, rel=1e-4)
    gray = lit(image, replace(WHOLE, saturation=0.0), zero, one)
    assert np.allclose(gray, image.mean(0, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("fraction", [0.5, 0.75, 0.9])
def test_a_mixture_takes_from_two_images_in_the_fractions_that_are_said(fraction):
    one, other = np.zeros((3, 40, 40), np.float32), np.ones((3, 40, 40), np.float32)
    assert np.allclose(mixup(one, other, fraction), 1 - fraction)
    put = cutmix(one, other, fraction, 0.3, 0.9)
    assert set(np.unique(put)) == {0.0, 1.0}
    assert put.mean() == pytest.approx(1 - fraction, abs=0.02)
    assert not one.any()


def flat(levels: list[float]) -> list[dict[str, np.ndarray]]:
    """Images of one level each: what is cut out of one and lit has one level as well."""
    return [{"image": np.full((1, 3, 16, 16), level, np.float32)} for level in levels]


def test_mixtures_are_of_two_sources_and_never_of_one():
    samples = flat([0.0, 0.2, 0.8, 1.0])
    spec = replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3)
    one_source = ImageMaker.of(samples, np.zeros(4, np.int64), spec)
    alone = [one_source(np.random.default_rng(i))[0]["image"] for i in range(60)]
    assert all(np.ptp(image) < 1e-5 for image in alone)  # nothing was put into another
    two = ImageMaker.of(samples, np.array([0, 0, 1, 1]), spec)
    made = [two(np.random.default_rng(i)) for i in range(60)]
    put = [(image["image"].round(3), source) for image, source in made if np.ptp(image["image"]) > 1e-2]
    assert put
    for image, source in put:
        levels, counts = np.unique(image, return_counts=True)
        assert len(levels) == 2
        dark = bool(counts[0] >= counts[1])  # sources 0 and 1 stay apart in any light that is drawn
        assert levels[0] <= 0.26
        assert levels[1] >= 0.56
        assert source == (0 if dark else 1)


def test_other_inputs_stay_those_of_the_image():
    samples = [
        {"image": sample["image"], "number": np.full((1, 2), i, np.float32)} for i, sample in enumerate(images(3))
    ]
    make = ImageMaker.of(samples, np.arange(3))
    for number in range(20):
        made, source = make(np.random.default_rng(number))
        assert np.array_equal(made["number"], samples[source]["number"])


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), True),
        (np.zeros((2, 1, 8, 9), np.float16), True),
        (np.zeros((2, 3, 8, 8), np.int64), False),
        (np.zeros((2, 3, 8, 7), np.float32), False),
        (np.zeros((2, 16, 8, 8), np.float32), False),
        (np.zeros((2, 3, 64), np.float32), False),
    ],
)
def test_images_are_floats_with_one_or_three_channels(x, wanted):
    assert is_image(x) is wanted
    assert (ImageMaker.of([{"x": x[:1]}], np.zeros(1, np.int64)) is not None) is wanted
