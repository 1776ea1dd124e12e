"""Each kind of image gives one array whichever way it comes: a table of kinds x ways, through a fitted model too."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import pocketzoo
from pocketzoo.core.errors import DataError
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.npz_files import read_npz
from pocketzoo.zoo.data.processors.image_processor import ImageProcessor
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.sample_files import samples_of

HEIGHT, WIDTH = 14, 19
GENERATOR = np.random.default_rng(0)
COLOR = GENERATOR.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GRAY = GENERATOR.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
DEEP = GENERATOR.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
BITS = GRAY > 127
ALPHA = GENERATOR.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
FEW = Image.fromarray(COLOR).quantize(16)


@dataclass(frozen=True)
class Kind:
    """An image, how it is saved, and the arrays that programs read of it besides 8 bits of red, green, blue."""

    image: Image.Image
    suffix: str = "png"
    options: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


def turned(orientation: int, suffix: str) -> Kind:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Kind(Image.fromarray(COLOR), suffix, {"exif": exif})


KINDS = {
    "color": Kind(Image.fromarray(COLOR), arrays=(COLOR, np.asfortranarray(COLOR))),
    "gray": Kind(Image.fromarray(GRAY), arrays=(GRAY, GRAY[..., None])),
    "16 bits": Kind(Image.fromarray(DEEP), arrays=(DEEP, DEEP[..., None], DEEP.astype(">u2"))),
    "16 bits, one of them clear": Kind(Image.fromarray(DEEP), options={"transparency": 7}, arrays=(DEEP,)),
    "1 bit": Kind(Image.fromarray(BITS), arrays=(BITS, BITS[..., None])),
    "palette": Kind(FEW),
    "palette, one clear": Kind(FEW, options={"transparency": 3}),
    "palette, some half clear": Kind(FEW, options={"transparency": bytes(range(0, 256, 16))}),
    "palette of grays": Kind(Image.fromarray(GRAY).convert("RGB").quantize(8)),
    "color and alpha": Kind(Image.fromarray(np.dstack([COLOR, ALPHA]))),
    "gray and alpha": Kind(Image.fromarray(np.dstack([GRAY[..., None], ALPHA]), "LA")),
    "color, one clear": Kind(Image.fromarray(COLOR), options={"transparency": (1, 2, 3)}),
    "gray, one clear": Kind(Image.fromarray(GRAY), options={"transparency": 5}, arrays=(GRAY,)),
    "inks": Kind(Image.fromarray(COLOR).convert("CMYK"), "jpg"),
    "gray jpeg": Kind(Image.fromarray(GRAY), "jpg"),
    "jpeg": Kind(Image.fromarray(COLOR), "jpg"),
    "progressive jpeg": Kind(Image.fromarray(COLOR), "jpg", {"progressive": True}),
    "webp": Kind(Image.fromarray(COLOR), "webp"),
    "webp with alpha": Kind(Image.fromarray(np.dstack([COLOR, ALPHA])), "webp", {"lossless": True}),
    "webp that moves": Kind(
        Image.fromarray(COLOR), "webp", {"save_all": True, "append_images": [Image.fromarray(COLOR[::-1])]}
    ),
    "png that moves": Kind(
        Image.fromarray(COLOR), "png", {"save_all": True, "append_images": [Image.fromarray(COLOR[::-1])]}
    ),
    **{f"turned {way} in {suffix}": turned(way, suffix) for way in range(1, 9) for suffix in ("png", "jpg", "webp")},
    "gray, turned": Kind(Image.fromarray(GRAY), options=turned(6, "png").options),
    "16 bits, turned": Kind(Image.fromarray(DEEP), options=turned(8, "png").options),
    "palette, turned": Kind(FEW, options={**turned(5, "png").options, "transparency": 3}),
}
WAYS = ("path", "str", "bytes", "bytearray", "memoryview", "opened", "loaded", "copied", "cell", "pixels", "own arrays")


def ways_of(name: str, folder: Path) -> tuple[Path, dict[str, list[Any]]]:
    kind = KINDS[name]
    path = folder / f"image.{kind.suffix}"
    kind.image.save(path, **kind.options)
    data = path.read_bytes()
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    # As any program would have it in 8 bits; of 16 bits Pillow itself would make white.
    pixels = [] if shown.mode.startswith("I") else [np.asarray(shown.convert("RGBA").convert("RGB"))]
    upright = kind.arrays if "exif" not in kind.options else ()
    return path, {
        "path": [path],
        "str": [str(path)],
        "bytes": [data],
        "bytearray": [bytearray(data)],
        "memoryview": [memoryview(data)],
        "opened": [Image.open(io.BytesIO(data))],
        "loaded": [loaded],
        "copied": [loaded.copy(), shown],
        "cell": [{"bytes": data, "path": None}, {"bytes": data, "path": "elsewhere.png"}],
        "pixels": pixels if kind.image.mode != "CMYK" else [np.asarray(loaded.convert("RGB"))],
        "own arrays": list(upright),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_image_gives_one_array(name, channels, tmp_path):
    spec = InputSpec(shape=("n", channels, 8, 8), mean=(0.4,) * channels, std=(0.2,) * channels, resize=9)
    processor = ImageProcessor(spec)
    path, ways = ways_of(name, tmp_path)
    assert set(ways) == set(WAYS)
    wanted = processor([path])["image"]
    assert wanted.std() > 0.2  # so that a wrong one would be another
    for way, samples in ways.items():
        for sample in samples:
            for made in (processor([sample]), processor.batch(sample), processor.batch([sample])):
                np.testing.assert_array_equal(made["image"], wanted, err_msg=f"{name} by {way}")
    everything = [sample for samples in ways.values() for sample in samples]
    assert (processor.batch(everything)["image"] == wanted).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_are_the_one_that_is_shown(orientation, tmp_path):
    """The oracle of the table above: against the pixels, not against another way in."""
    path, _ = ways_of(f"turned {orientation} in png", tmp_path)
    flips = {2: COLOR[:, ::-1], 3: COLOR[::-1, ::-1], 4: COLOR[::-1], 5: COLOR.transpose(1, 0, 2)}
    quarter = {6: np.rot90(COLOR, -1), 7: COLOR[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(COLOR, 1)}
    shown = np.ascontiguousarray({1: COLOR, **flips, **quarter}[orientation])
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    np.testing.assert_array_equal(processor([path])["image"], processor([shown])["image"])


def test_colors_of_sixteen_bits_are_their_upper_eight_as_pillow_reads_them():
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    deep = COLOR.astype(np.uint16) * 256 + GENERATOR.integers(0, 256, COLOR.shape, np.uint16)
    np.testing.assert_array_equal(processor([deep])["image"], processor([COLOR])["image"])


READ = [  # shape of a batch -> how many images it is
    ((9, 11), 1),
    ((9, 11, 1), 1),
    ((9, 11, 3), 1),
    ((1, 11, 3), 1),
    ((5, 9, 11), 5),
    ((1, 9, 11), 1),
    ((2, 9, 11), 2),
    ((5, 9, 11, 1), 5),
    ((3, 9, 11, 1), 3),
    ((5, 9, 3, 1), 5),
    ((5, 9, 11, 3), 5),
    ((1, 9, 11, 3), 1),
]
REFUSED = [
    ((3, 9, 11), "several gray"),
    ((3, 9, 3), "several gray"),
    ((9, 3, 3), "several gray"),
    ((3, 3, 3), "several gray"),
    ((5, 3, 9, 11), "channels last"),
    ((1, 3, 9, 11), "channels last"),
    ((1, 1, 9, 11), "channels last"),
    ((5, 9, 11, 4), "channels last"),
    ((5, 9, 11, 2), "channels last"),
    ((5, 3, 11, 3), "first or last"),
    ((11,), "not images"),
    ((2, 2, 9, 11, 3), "not images"),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("shape", "count"), READ, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_layouts_that_are_one_thing(shape, count, channels, dtype):
    spec = InputSpec(shape=("n", channels, 8, 8), mean=(0.4,) * channels, std=(0.2,) * channels, resize=9)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    made = ImageProcessor(spec).batch(pixels)["image"]
    assert made.shape == (count, channels, 8, 8)
    if count > 1:
        np.testing.assert_array_equal(made, ImageProcessor(spec)(list(pixels))["image"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("shape", "says"), REFUSED, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_layouts_that_may_be_two_things_are_refused(shape, says, channels, dtype, refused):
    spec = InputSpec(shape=("n", channels, 8, 8), mean=(0.4,) * channels, std=(0.2,) * channels, resize=9)
    with refused(DataError, says):
        ImageProcessor(spec).batch(np.zeros(shape, dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint32, np.float16, np.float64, complex])
@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 3)])
def test_values_without_a_known_range_are_refused(dtype, shape, refused):
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    with refused(DataError, str(np.dtype(dtype))):
        processor([np.zeros(shape, dtype)])


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size, refused):
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    with refused(DataError, f"{size[0]} x {size[1]} pixels"):
        processor([Image.new("RGB", size)])


def test_an_open_file_is_no_batch_of_its_lines(refused):
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    with refused(DataError, "a batch cannot be BytesIO"):
        processor.batch(io.BytesIO(b"one\ntwo\n"))


FLOATS = np.random.default_rng(0).random((6, 3, 8, 8), np.float32)
RANGES = {"normalized": (FLOATS * 4 - 2, ""), "of 0 to 1": (FLOATS, ""), "of 0 to 255": (FLOATS * 255, "ranges from"),
          "with NaN": (np.where(FLOATS > 0.99, np.nan, FLOATS), "finite"),
          "with infinity": (np.where(FLOATS > 0.99, np.inf, FLOATS), "finite")}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_float_arrays_are_taken_or_refused_alike_by_whatever_way(name, tmp_path, refused):
    x, says = RANGES[name]
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    np.savez(tmp_path / "x.npz", x=x)
    split = Split(x, np.zeros(6, np.int64))
    ways = {
        "call": lambda: processor(list(x))["image"],
        "mappings": lambda: processor([{"image": each} for each in x])["image"],
        "batch": lambda: processor.batch(x)["image"],
        "list": lambda: processor.batch(list(x))["image"],
        "named": lambda: processor.batch({"image": x})["image"],
        "split": lambda: np.concatenate([made["image"] for made, _ in Batches(split, processor)]),
        "npz": lambda: processor([each.sample for each in samples_of(tmp_path / "x.npz", processor)])["image"],
    }
    for way, make in ways.items():
        if says:
            with refused(DataError, says):
                make()
        else:
            np.testing.assert_array_equal(make(), x, err_msg=way)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_pillow_image_whose_values_have_no_known_range_is_refused(mode, refused):
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    with refused(DataError):
        processor([Image.new(mode, (9, 9))])


# -- through a fitted model: data sets, predict and a Runtime


def saved_rows(datasets: Any, folder: Path, files: list[Path], labels: list[str]) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(set(labels)))})
    rows = datasets.Dataset.from_dict({"image": [str(file) for file in files], "label": labels}, features=features)
    rows.save_to_disk(folder)
    return rows


@pytest.mark.parametrize(
    "name", ["16 bits", "1 bit", "palette, one clear", "color and alpha", "inks", "turned 6 in jpg", "gray, turned"]
)
def test_a_fitted_model_reads_one_thing(name, small, small_registry, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    processor = processor_of(small, small_registry)
    path, ways = ways_of(name, tmp_path)
    labels = list(small.manifest.labels)
    folder = tmp_path / "folder"
    files = []
    for label in labels[:3]:
        (folder / label).mkdir(parents=True)
        for i in range(5):
            files.append(folder / label / f"{i}{path.suffix}")
            files[-1].write_bytes(path.read_bytes())
    rows = saved_rows(datasets, tmp_path / "saved", files, [file.parent.name for file in files])
    with pocketzoo.load_runtime(small.path, registry=small_registry) as runtime:
        wanted, answer = runtime.predict(path), runtime.answer_rows(path)
        for way, samples in ways.items():
            for sample in samples:
                np.testing.assert_array_equal(runtime.predict(sample), wanted, err_msg=f"{name} by {way}")
                assert runtime.answer_rows(sample) == answer
        np.testing.assert_array_equal(runtime.predict(rows[0]["image"]), wanted)
    for given in (path, str(path)):
        (predicted,) = predict(small.path, [given], registry=small_registry)
        assert predicted.answer == answer[0]
    inputs = processor([path])
    for source in (folder, tmp_path / "saved"):
        data = load_data(source, reads=small.manifest.processor, registry=small_registry)
        for split in SPLITS:
            for x, _ in Batches(data.split(split), processor):
                for tensor, array in x.items():
                    np.testing.assert_array_equal(array, np.broadcast_to(inputs[tensor], array.shape))
    scores = [
        evaluate(small.path, data=each, registry=small_registry)["accuracy"] for each in (folder, tmp_path / "saved")
    ]
    samples = [sample for samples in ways.values() for sample in samples[:1]]
    for several in (samples, samples[::-1]):
        split = Split(several[:3], np.array([labels.index(label) for label in labels[:3]]))
        memory = Dataset("memory", small.manifest.labels, dict.fromkeys(SPLITS, split))
        scores.append(evaluate(small.path, data=memory, registry=small_registry)["accuracy"])
    assert set(scores) == {scores[0]}


@pytest.mark.parametrize("kind", ["gray", "16 bits", "1 bit", "color"])
def test_arrays_of_an_npz_are_the_image(kind, tmp_path):
    path, _ = ways_of(kind, tmp_path)
    processor = ImageProcessor(InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9))
    for array in KINDS[kind].arrays:
        np.savez(tmp_path / "d.npz", x=np.stack([array] * 5))
        data = read_npz(tmp_path / "d.npz", 0)
        for split in SPLITS:
            for x, _ in Batches(data.split(split), processor):
                assert (x["image"] == processor([path])["image"]).all()
