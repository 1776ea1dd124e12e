"""Images to arrays, against arithmetic: constants stay constant, pixels are copied where nothing is resized."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from foreignimages import FOREIGN
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from pocketzoo.core.errors import DataError, MissingDependencyError
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.image_preprocessing import prepare, read_image

MEANS = {1: (0.286,), 3: (0.485, 0.456, 0.406)}
STDS = {1: (0.353,), 3: (0.229, 0.224, 0.225)}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
CHANNELS = st.sampled_from([1, 3])
SIDES = st.integers(1, 70)


def spec(channels: int = 3, size: int | tuple[int, int] = 16, resize: int | None = None, **more) -> InputSpec:
    height, width = (size, size) if isinstance(size, int) else size
    more = {"mean": MEANS[channels], "std": STDS[channels], **more}
    return InputSpec(shape=("batch", channels, height, width), resize=resize or max(height, width), **more)


def plain(channels: int = 3, size: int | tuple[int, int] = 16, **more) -> InputSpec:
    """Gives pixels as they are, 0-255."""
    more = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "value_range": (0.0, 255.0), **more}
    return spec(channels, size, **more)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def planes(pixels: np.ndarray) -> np.ndarray:
    """(H, W[, C]) to (C, H, W)."""
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


# -- values


@given(
    st.integers(0, 255),
    SIDES,
    SIDES,
    CHANNELS,
    st.integers(1, 40),
    st.integers(0, 20),
    st.sampled_from(INTERPOLATIONS),
    st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]),
)
def test_a_constant_image_is_constant(value, height, width, channels, size, more, interpolation, value_range):
    given = spec(channels, size, size + more, interpolation=interpolation, value_range=value_range)
    shape = (height, width) if channels == 1 else (height, width, 3)
    result = prepare(np.full(shape, value, np.uint8), given)
    low, high = value_range
    wanted = [(value / 255 * (high - low) + low - m) / s for m, s in zip(given.mean, given.std, strict=True)]
    np.testing.assert_allclose(
        result, np.broadcast_to(np.reshape(wanted, (-1, 1, 1)), given.size), rtol=1e-5, atol=1e-5
    )


@example(value=7, height=4, width=4, tall=4, wide=8)  # as high as the input, but not as wide
@given(value=st.integers(0, 255), height=SIDES, width=SIDES, tall=st.integers(1, 40), wide=st.integers(1, 40))
def test_a_constant_image_is_constant_for_an_input_that_is_no_square(value, height, width, tall, wide):
    """No black border, whatever the shape of image and input."""
    given = plain(1, (tall, wide), resize=min(tall, wide))
    assert np.unique(prepare(np.full((height, width), value, np.uint8), given)).tolist() == [value]


@given(SIDES, SIDES, CHANNELS, st.integers(1, 40), st.sampled_from(INTERPOLATIONS), st.integers(0, 9))
def test_the_result_is_what_a_model_reads(height, width, channels, size, interpolation, seed):
    result = prepare(noise(height, width, channels, seed), plain(channels, size, interpolation=interpolation))
    assert result.shape == (channels, size, size)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.min() >= 0
    assert result.max() <= 255


@given(CHANNELS, st.integers(1, 32), st.integers(0, 99))
def test_normalisation_is_exact_where_nothing_is_resized(channels, size, seed):
    pixels, given = noise(size, size, channels, seed), spec(channels, size)
    wanted = (planes(pixels) / 255 - np.reshape(given.mean, (-1, 1, 1))) / np.reshape(given.std, (-1, 1, 1))
    np.testing.assert_allclose(prepare(pixels, given), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.0, 3.0)])
def test_black_and_white_are_the_ends_of_the_range(value_range):
    given = plain(1, 2, value_range=value_range)
    result = prepare(np.array([[0, 255], [255, 0]], np.uint8), given)
    low, high = value_range
    np.testing.assert_allclose(result[0], [[low, high], [high, low]], rtol=1e-6)


def test_mean_and_std_are_per_channel():
    pixels = np.zeros((1, 1, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 255, 0, 51
    result = prepare(pixels, spec(3, 1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)))
    np.testing.assert_allclose(result.ravel(), [1.0, -1.0, 0.1], rtol=1e-6)


# -- geometry


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), CHANNELS)
def test_the_centre_is_cut_out(size, more_height, more_width, channels):
    """Where the shorter side is ``resize`` already, pixels are copied: from the middle."""
    height, width = size + more_height, size + more_width
    pixels = noise(height, width, channels)
    result = prepare(pixels, plain(channels, size, resize=min(height, width)))
    top, left = (height - size) // 2, (width - size) // 2
    assert np.array_equal(result, planes(pixels)[:, top : top + size, left : left + size])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), CHANNELS)
def test_enlarging_by_nearest_repeats_pixels(height, width, times, channels):
    pixels, side = noise(height, width, channels), min(height, width)
    result = prepare(pixels, plain(channels, side * times, interpolation="nearest"))
    large = np.repeat(np.repeat(planes(pixels), times, 1), times, 2)
    top, left = (large.shape[1] - side * times) // 2, (large.shape[2] - side * times) // 2
    assert np.array_equal(result, large[:, top : top + side * times, left : left + side * times])


@given(st.integers(8, 200), st.integers(8, 200), st.integers(8, 64))
def test_resizing_keeps_the_aspect(height, width, size):
    """A disc stays round: as wide as high, whatever the shape of the image."""
    radius = 0.45 * min(height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    disc = np.where((y - height / 2) ** 2 + (x - width / 2) ** 2 <= radius**2, 255, 0).astype(np.uint8)
    result = prepare(disc, plain(1, size))[0] / 255
    wide, high = result[size // 2].sum(), result[:, size // 2].sum()
    assert abs(wide - high) <= 2.0 + 2.5 * size / min(height, width)
    assert abs(high - 0.9 * size) <= 2.0 + 2.5 * size / min(height, width)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 30))
def test_a_mirrored_image_gives_a_mirrored_array(height, width, half):
    """For even margins on both sides, so that the center is one place."""
    size = 2 * half
    height, width = 2 * height + 2, 2 * width + 2
    pixels = noise(height, width)
    square = plain(3, size, resize=size)
    # Where the longer side comes out odd, the center is between two places.
    assume(round(width * size / min(height, width)) % 2 == 0 and round(height * size / min(height, width)) % 2 == 0)
    np.testing.assert_allclose(prepare(pixels[:, ::-1], square), prepare(pixels, square)[:, :, ::-1], atol=1.01)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 64), (64, 1), (2, 3), (3, 1000), (1000, 3), (1, 500)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_images_of_extreme_shapes(shape, channels, interpolation):
    result = prepare(noise(*shape, channels), plain(channels, 28, interpolation=interpolation))
    assert result.shape == (channels, 28, 28)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_single_pixel_fills_the_array(value):
    assert np.unique(prepare(np.full((1, 1), value, np.uint8), plain(1, 28))).tolist() == [value]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)])
def test_an_image_one_pixel_high_takes_little_memory(shape):
    """Only the center is wanted: enlarging all of it first would take 600 MB here, and 6 GB at 1 x 30,000."""
    code = (
        "import numpy as np, PIL.Image\n"
        "from pocketzoo.zoo.data.processors.image_preprocessing import prepare\n"
        "from pocketzoo.zoo.catalog.specs import InputSpec\n"
        "spec = InputSpec(shape=('batch', 3, 224, 224), mean=(0.,) * 3, std=(1.,) * 3, resize=224)\n"
        f"prepare(np.zeros((50, 60, 3), np.uint8), spec); image = np.zeros({(*shape, 3)}, np.uint8)\n"
        "status = lambda: dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "peak = lambda: int(status()['VmHWM'].split()[0])\n"  # getrusage would start with the peak of the parent
        "before = peak(); assert prepare(image, spec).shape == (3, 224, 224); print((peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100, "MB"


# -- files


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_gives_what_its_pixels_give(tmp_path, suffix, channels):
    pixels = noise(20, 30, channels)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)
    assert np.array_equal(prepare(path, spec(channels)), prepare(pixels, spec(channels)))


@pytest.mark.parametrize("quality", [90, 95])
def test_a_jpeg_is_close_to_its_pixels(tmp_path, quality):
    y, x = np.mgrid[:32, :48]
    smooth = np.stack([x * 5, y * 7, x + y], -1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "image.jpg", quality=quality)
    np.testing.assert_allclose(prepare(tmp_path / "image.jpg", plain()), prepare(smooth, plain()), atol=12)


# How an image that is shown as A is stored, by EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_image_is_read_as_it_is_shown(tmp_path, orientation, suffix):
    shown = noise(20, 30)
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](shown)))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    image.save(path, exif=exif, lossless=True)
    assert np.array_equal(prepare(path, spec()), prepare(shown, spec()))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, orientation):
    image = Image.fromarray(noise(8, 8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    assert np.array_equal(prepare(tmp_path / "image.png", spec()), prepare(noise(8, 8), spec()))


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601, as Pillow rounds it."""
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)


def test_colour_to_grey_is_luma():
    pixels = noise(16, 16)
    assert np.array_equal(prepare(pixels, plain(1))[0], luma(pixels))


def test_grey_to_colour_repeats_the_channel(tmp_path):
    pixels = noise(16, 16, 1)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert np.array_equal(prepare(tmp_path / "grey.png", plain(3)), np.repeat(pixels[None], 3, 0))


COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)


def few_colours() -> np.ndarray:
    return COLOURS[np.random.default_rng(0).integers(0, 4, (16, 16))]


def save_palette(path: Path, **more) -> None:
    Image.fromarray(few_colours()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(path, **more)


@pytest.mark.parametrize("more", [{}, {"transparency": 0}, {"transparency": bytes([0, 128, 255, 255])}], ids=str)
def test_a_palette_is_looked_up(tmp_path, more):
    path = tmp_path / "palette.png"
    save_palette(path, **more)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert np.array_equal(prepare(path, plain()), planes(few_colours()))
    assert np.array_equal(prepare(path, plain(1))[0], luma(few_colours()))


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_left_out(tmp_path, alpha, channels):
    pixels = noise(16, 16)
    opacity = np.full((16, 16, 1), alpha, np.uint8)
    Image.fromarray(np.concatenate([pixels, opacity], -1)).save(tmp_path / "alpha.png")
    wanted = planes(pixels if channels == 3 else luma(pixels))
    assert np.array_equal(prepare(tmp_path / "alpha.png", plain(channels)), wanted)


def test_grey_with_alpha(tmp_path):
    pixels = noise(16, 16, 1)
    Image.fromarray(np.stack([pixels, np.full_like(pixels, 9)], -1), "LA").save(tmp_path / "la.png")
    assert np.array_equal(prepare(tmp_path / "la.png", plain(1))[0], pixels)


def test_one_bit_a_pixel(tmp_path):
    bits = noise(16, 16, 1) > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(prepare(tmp_path / "bits.png", plain(1))[0], bits * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_a_pixel_keep_their_range(tmp_path, channels):
    """Scanners and microscopes write these: half of the range is grey, not white."""
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    result = prepare(tmp_path / "deep.png", plain(channels))
    np.testing.assert_allclose(result, np.broadcast_to(deep / 257, (channels, 16, 16)), atol=1.01)


def test_four_inks(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "ink.jpg")
    assert (prepare(tmp_path / "ink.jpg", plain()) >= 250).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_read_image_gives_the_mode_of_the_channels(tmp_path, channels):
    Image.fromarray(noise(4, 6)).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png", channels)
    assert (image.mode, image.size) == ("L" if channels == 1 else "RGB", (6, 4))


def test_an_image_is_not_changed():
    pixels = noise(20, 30)
    before = pixels.copy()
    prepare(pixels, spec())
    assert np.array_equal(pixels, before)


# -- what is no image


@pytest.fixture(scope="module")
def good_files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    for suffix in ("png", "jpg", "webp"):
        Image.fromarray(noise(40, 40)).save(folder / f"x.{suffix}")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("keep", [0, 1, 4, 12, 40, 0.5, 0.9])
def test_a_file_cut_short_is_named(good_files, tmp_path, refused, suffix, keep):
    data, path = good_files[suffix], tmp_path / f"short{suffix}"
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with refused(DataError, f"cannot read the image {path}", hint="--skip-bad"):
        prepare(path, spec())


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 1000, b"not an image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"PK\3\4"],
    ids=repr,
)
def test_a_file_that_is_no_image_is_named(tmp_path, refused, data):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with refused(DataError, f"cannot read the image {path}", hint="remove it"):
        prepare(path, spec())


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_an_image_of_another_format_is_named_whatever_it_is_called(kind, tmp_path, refused, ghostscript):
    path = tmp_path / "x.png"
    path.write_bytes(FOREIGN[kind]())
    with refused(DataError, f"cannot read the image {path}: it is not a PNG, JPEG or WebP file", hint="remove it"):
        read_image(path, 3)
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", [k for k in FOREIGN if k.startswith("EPS")])
def test_pillow_alone_would_start_ghostscript(kind, tmp_path, ghostscript):
    """So the test above would notice."""
    path = tmp_path / "x.png"
    path.write_bytes(FOREIGN[kind]())
    with contextlib.suppress(OSError), Image.open(path) as image:  # the one here draws nothing
        image.load()
    assert ghostscript.exists()


def test_a_photo_with_a_second_image_in_it_is_a_jpeg(tmp_path):
    """As telephones write them: MPO."""
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 8), "red").save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert read_image(path, 3).getpixel((4, 4))[0] > 200


@given(st.sampled_from([".png", ".jpg", ".webp"]), st.data())
def test_damaged_bytes_give_an_image_or_a_named_error(good_files, tmp_path_factory, suffix, data):
    raw = bytearray(good_files[suffix])
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"x{suffix}"
    path.write_bytes(raw)
    try:
        result = prepare(path, spec())
    except DataError as error:
        result = error  # any other exception fails the test
    if isinstance(result, DataError):
        assert str(path) in result.message
    else:
        assert result.shape == (3, 16, 16)


def test_a_missing_file_is_named(tmp_path, refused):
    with refused(DataError, f"there is no image {tmp_path / 'x.png'}", hint="check the path"):
        prepare(tmp_path / "x.png", spec())


def test_a_folder_is_no_image(tmp_path, refused):
    with refused(DataError, str(tmp_path)):
        prepare(tmp_path, spec())


def test_a_bomb_is_refused(tmp_path, refused):
    """A file of some kilobytes that claims 40,000 x 40,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)))
    with refused(DataError, f"cannot read the image {path}"):
        prepare(path, spec())


@pytest.mark.parametrize(
    "shape", [(), (8,), (8, 8, 1), (8, 8, 2), (8, 8, 5), (3, 8, 8), (2, 8, 8, 3), (0, 8), (8, 0), (0, 0, 3)], ids=str
)
def test_pixels_of_another_shape_are_refused(refused, shape):
    """Pixels are (H, W) or (H, W, 3); Keras would give (H, W, 1), torch (3, H, W)."""
    with refused(DataError):
        prepare(np.zeros(shape, np.uint8), spec())


def test_without_pillow_the_extra_is_named(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with refused(MissingDependencyError, "'PIL.Image'", hint="pip install 'pocketzoo[data]'"):
        prepare(noise(8, 8), spec())
