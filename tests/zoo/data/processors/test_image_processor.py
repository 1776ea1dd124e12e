"""Images: the same array whichever way a file came in, and what is refused."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.npz_files import read_npz
from pocketzoo.zoo.data.processors.image_preprocessing import prepare
from pocketzoo.zoo.data.processors.image_processor import ImageProcessor, resized

SPEC = InputSpec(shape=("batch", 3, 16, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), resize=20)
READS = ImageProcessor(SPEC)


def pixels(height: int = 33, width: int = 47, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(path, image: Image.Image, **options) -> bytes:
    image.save(path, **options)
    return path.read_bytes()


def images() -> dict[str, tuple[Image.Image, dict]]:
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    palette = Image.fromarray(pixels()).quantize(16)
    return {
        "rgb.png": (Image.fromarray(pixels()), {}),
        "grey.png": (Image.fromarray(pixels(channels=1)), {}),
        "turned.jpg": (Image.fromarray(pixels()), {"exif": turned}),
        "alpha.png": (Image.fromarray(pixels(channels=4)), {}),
        "palette.png": (palette, {"transparency": 3}),
        "deep.png": (Image.fromarray(pixels(channels=1).astype(np.uint16) * 257), {}),
        "small.webp": (Image.fromarray(pixels(5, 7)), {}),
    }


@pytest.mark.parametrize("name", images())
def test_a_file_gives_one_array_whichever_way_it_came_in(name, tmp_path):
    image, options = images()[name]
    path = tmp_path / name
    data = saved(path, image, **options)
    wanted = prepare(path, SPEC)
    with Image.open(path) as opened, Image.open(BytesIO(data)) as loaded:
        loaded.load()
        for way in (path, str(path), data, opened, loaded):
            assert np.array_equal(READS([way])["image"], wanted[None]), type(way)
            assert np.array_equal(READS.batch(way)["image"], wanted[None]), type(way)
    assert np.array_equal(READS.batch([path, data])["image"], np.stack([wanted, wanted]))


def test_pixels_are_an_image_or_several():
    one, several = pixels(), np.stack([pixels(), pixels()[::-1]])
    wanted = prepare(one, SPEC)
    for way in (one, [one], one[None]):
        assert np.array_equal(READS.batch(way)["image"], wanted[None])
    assert np.array_equal(READS.batch(several)["image"], READS(list(several))["image"])
    assert READS.batch(several)["image"].shape == (2, 3, 16, 12)
    grey = pixels(channels=1)
    assert np.array_equal(READS.batch(grey)["image"], READS([np.stack([grey] * 3, -1)])["image"])


def test_arrays_that_fit_pass_without_a_copy():
    ready = READS.random(3)["image"]
    assert READS.batch(ready)["image"] is ready
    assert READS.batch({"image": ready})["image"] is ready
    assert np.array_equal(READS.batch(list(ready))["image"], ready)
    assert np.array_equal(READS(list(ready))["image"], ready)
    assert np.array_equal(READS([{"image": row} for row in ready])["image"], ready)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((1, 3, 16, 13), np.float32), ["(1, 3, 16, 13)", "('batch', 3, 16, 12)"]),
        (np.zeros((3, 16, 12), np.float32), ["one sample alone needs a batch axis"]),
        (np.zeros((1, 3, 16, 12)), ["float64", "float32"]),
        (np.zeros((0, 3, 16, 12), np.float32), ["empty"]),
        (np.full((1, 3, 16, 12), np.nan, np.float32), ["non-finite"]),
        (np.full((1, 3, 16, 12), 255, np.float32), ["ranges from 255 to 255"]),
        ({"picture": np.zeros((1, 3, 16, 12), np.float32)}, ["a sample cannot be dict"]),
        ([], ["empty"]),
        (7, ["int"]),
        (["gone.png"], ["there is no image gone.png"]),
        (b"no image", ["these bytes", "not a PNG, JPEG or WebP"]),
        (np.zeros((2, 3, 4, 5, 6), np.uint8), ["(2, 3, 4, 5, 6)"]),
    ],
)
def test_what_cannot_be_read_is_named(given, says, refused):
    with refused(DataError, *says):
        READS.batch(given)


def test_a_sample_of_another_shape_or_type_is_refused_by_what_it_has(refused):
    with refused(DataError, "3 x 16 x 13", "3 x 16 x 12"):
        READS([np.zeros((3, 16, 13), np.float32)])
    with refused(DataError, "an array of float64"):
        READS([np.zeros((3, 16, 12))])


def test_an_image_of_another_format_is_refused_unread(tmp_path, refused):
    Image.fromarray(pixels()).save(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image, refused(DataError, "cannot be GIF"):
        READS([image])


def test_a_damaged_image_is_refused_however_it_comes(tmp_path, refused):
    path = tmp_path / "a.png"
    data = saved(path, Image.fromarray(pixels()))[:-200]
    path.write_bytes(data)
    with Image.open(path) as image:
        for way in (path, data, image):
            with refused(DataError, "cannot read the image"):
                READS([way])


def test_random_images_are_normalized_pixels():
    x = READS.random(64)["image"]
    assert (x.shape, x.dtype) == ((64, 3, 16, 12), np.float32)
    for channel, (mean, std) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        restored = x[:, channel] * std + mean
        assert -1e-6 <= restored.min() < 0.02
        assert 0.98 < restored.max() <= 1 + 1e-6
    assert np.array_equal(READS.random(64)["image"], x)


def test_resized_keeps_the_proportion_of_what_is_cut_away():
    other = resized(SPEC, (32, 24))
    assert (other.size, other.resize) == ((3, 32, 24), 40)
    assert resized(InputSpec(shape=("batch", 4), mean=(), std=(), resize=0), (3, 3)) is None


UINT8 = [(6, 8, 8), (6, 8, 8, 1), (6, 8, 8, 3), (6, 10, 12), (6, 10, 12, 1), (6, 10, 12, 3)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", UINT8)
def test_pixels_mean_the_same_in_a_file_in_a_batch_and_alone(shape, channels, tmp_path):
    spec = InputSpec(shape=("batch", channels, 8, 8), mean=(0.5,) * channels, std=(0.2,) * channels, resize=8)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    processor = ImageProcessor(spec)
    batch = processor.batch(pixels)["image"]
    assert batch.shape == (6, channels, 8, 8)
    np.savez(tmp_path / "d.npz", x=pixels, y=np.arange(6.0))
    split = read_npz(tmp_path / "d.npz", 0, "numbers").split("train")
    rows = split.targets[:, 0].astype(int)
    np.testing.assert_array_equal(processor(list(split.samples))["image"], batch[rows])
    for i in range(6):
        np.testing.assert_array_equal(processor.batch(pixels[i])["image"], batch[i : i + 1])
        np.testing.assert_array_equal(processor([pixels[i]])["image"], batch[i : i + 1])
