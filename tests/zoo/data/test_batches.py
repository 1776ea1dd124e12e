"""Folders, .npz files and names to data sets; splits that are disjoint, complete, in shares, and the same each time."""

from __future__ import annotations

import gc
import os
import shutil
import time

import numpy as np
import pytest
from feeds import arrays
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pocketzoo
from pocketzoo.core.errors import DataError, UnknownNameError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import SHARES, Batches, Skipped, divide, from_arrays
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.image_preprocessing import prepare
from pocketzoo.zoo.tasks.class_targets import with_classes

SPEC = InputSpec(shape=("batch", 3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, resize=16)
FLOAT = InputSpec(shape=("batch", 2, 3, 4), mean=(0.0,) * 2, std=(1e-4,) * 2, resize=4)  # of a range that holds any
COUNTS = st.dictionaries(st.integers(0, 6), st.integers(1, 40), min_size=1, max_size=6)


@pytest.mark.parametrize("name", ["digits", "other"])
def test_a_bundle_that_is_called_as_a_data_set_does_not_hide_it(name, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "pocketzoo.json").write_text("{}")
    if name == "digits":
        assert load_data(name).name == "digits"
    else:
        with refused(DataError, "other is a bundle, not a data set"):
            load_data(name)
    with refused(DataError, "is a bundle, not a data set"):
        load_data(tmp_path / name)


def everything(data: Dataset) -> list:
    return [sample for name in SPLITS for sample in data.split(name).samples]


def names(split: Split) -> list[str]:
    return [path.name for path in split.samples]


# -- dividing


@given(COUNTS, st.integers(0, 2**32))
def test_splits_are_disjoint_and_complete(counts, seed):
    targets = np.repeat(list(counts), list(counts.values()))
    parts = divide(targets, len(targets), seed)
    assert tuple(parts) == SPLITS
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(targets)))


@given(COUNTS, st.integers(0, 99))
def test_every_class_is_in_the_same_shares(counts, seed):
    targets = np.random.default_rng(seed).permutation(np.repeat(list(counts), list(counts.values())))
    parts = divide(targets, len(targets), seed)
    for label, count in counts.items():
        for name, share in zip(SPLITS, SHARES, strict=True):
            assert abs(int((targets[parts[name]] == label).sum()) - share * count) < 1
        assert (targets[parts["train"]] == label).any(), "a class that is not learned cannot be answered"


@given(st.integers(1, 200), st.integers(0, 99))
def test_without_classes_it_is_the_shares_alone(count, seed):
    parts = divide(None, count, seed)
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert abs(len(parts[name]) - share * count) < 1
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))


@given(COUNTS, st.integers(0, 99))
def test_a_seed_decides_all(counts, seed):
    targets = np.repeat(list(counts), list(counts.values()))
    one, two = (divide(targets, len(targets), seed) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in SPLITS)


def test_seeds_differ():
    targets = np.repeat([0, 1], 50)
    parts = [divide(targets, 100, seed)["train"].tolist() for seed in range(5)]
    assert len({tuple(p) for p in parts}) == 5


def test_the_first_samples_of_a_split_are_of_all_classes():
    """So that a limit on the samples is fair."""
    targets = np.repeat(np.arange(4), 100)
    first = targets[divide(targets, 400, 0)["train"][:60]]
    assert np.bincount(first, minlength=4).min() >= 5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_small_class_is_learned_first(count):
    parts = divide(np.zeros(count, np.int64), count, 0)
    sizes = [len(parts[name]) for name in SPLITS]
    assert sizes[0] >= 1
    assert sum(sizes) == count
    assert count < 5 or min(sizes) == 1, "five are enough for every split"


# -- folders


def test_a_folder_a_class(photos, tmp_path):
    path = photos(tmp_path / "pets", {"dog": 10, "cat": 20, "owl": 5})
    data = load_data(path)
    assert (data.name, data.labels, data.seed) == ("pets", ("cat", "dog", "owl"), 0)
    assert {name: len(data.split(name)) for name in SPLITS} == {"train": 21, "val": 7, "test": 7}
    for name in SPLITS:
        split = data.split(name)
        assert [data.labels[t] for t in split.targets] == [p.parent.name for p in split.samples]
        assert split.targets.dtype == np.int64
    assert sorted(everything(data)) == sorted(path.rglob("*.png"))


def test_a_path_may_be_text(photos, tmp_path):
    path = photos(tmp_path / "pets", {"dog": 5, "cat": 5})
    assert load_data(str(path)).digest() == load_data(path).digest() == pocketzoo.load_data(path).digest()


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_folder_is_divided_the_same_way_every_time(photos, tmp_path, seed):
    path = photos(tmp_path / "pets", {"dog": 10, "cat": 10})
    one, two = load_data(path, seed=seed), load_data(path, seed=seed)
    assert all(one.split(n).samples == two.split(n).samples for n in SPLITS)
    assert one.seed == seed
    assert one.digest() == two.digest()


@pytest.mark.parametrize("seed", [-1, -(2**40), 2**31])
def test_a_seed_that_numpy_refuses_is_refused_by_name(photos, tmp_path, refused, seed):
    path = photos(tmp_path / "pets", {"dog": 5, "cat": 5})
    with refused(DataError, str(seed)):
        load_data(path, seed=seed)


def test_the_division_does_not_depend_on_the_file_system_order(photos, tmp_path):
    one = photos(tmp_path / "one", {"dog": 10, "cat": 10})
    other = tmp_path / "other"
    for path in sorted(one.rglob("*.png"), reverse=True):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name)
    for name in SPLITS:
        assert names(load_data(one).split(name)) == names(load_data(other).split(name))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG", "Jpg"])
def test_images_of_every_kind_are_found(photos, tmp_path, suffix):
    path = photos(tmp_path / "pets", {"dog": 5, "cat": 5}, suffix=suffix)
    assert len(everything(load_data(path))) == 10


def test_other_files_are_left_alone(photos, tmp_path):
    path = photos(tmp_path / "pets", {"dog": 5, "cat": 5})
    for name in ("notes.txt", "dog/Thumbs.db", "dog/list.csv", "README.md", "cat/x.png.bak"):
        (path / name).write_text("no image")
    assert len(everything(load_data(path))) == 10


def test_names_may_hold_any_character(photos, tmp_path):
    path = photos(tmp_path / "bílá a-b", {"çat & dog": 5, "日本 語": 5, "-x": 5})
    assert set(load_data(path).labels) == {"çat & dog", "日本 語", "-x"}


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_that_is_divided_already_stays_so(photos, tmp_path, val):
    path = tmp_path / "pets"
    counts = {"train": 6, val: 3, "test": 2}
    for name, count in counts.items():
        photos(path / name, {"cat": count, "dog": count})
    data = load_data(path)
    assert data.labels == ("cat", "dog")
    for name, folder in zip(SPLITS, counts, strict=True):
        assert {p.parent.parent.name for p in data.split(name).samples} == {folder}
        assert len(data.split(name)) == 2 * counts[folder]
        assert [data.labels[t] for t in data.split(name).targets] == [p.parent.name for p in data.split(name).samples]


@pytest.mark.parametrize("given", [("train",), ("train", "val"), ("train", "test")])
def test_a_missing_split_is_cut_from_train(photos, tmp_path, given):
    path = tmp_path / "pets"
    for name in given:
        photos(path / name, {"cat": 10, "dog": 10})
    data = load_data(path)
    found = everything(data)
    assert len(found) == len(set(found)) == 20 * len(given), "no sample is in two splits, none is lost"
    for name in SPLITS:
        whole = 20 if name in given else 4
        if name != "train":
            assert len(data.split(name)) == whole
        assert {p.parent.parent.name for p in data.split(name).samples} == {name if name in given else "train"}
    assert np.bincount(data.split("train").targets).tolist() == [len(data.split("train")) // 2] * 2


def test_splits_with_other_classes_are_refused(photos, tmp_path, refused):
    photos(tmp_path / "pets" / "train", {"cat": 5, "dog": 5})
    photos(tmp_path / "pets" / "test", {"cat": 5, "owl": 5})
    with refused(DataError, tmp_path / "pets" / "test", "['dog', 'owl']", hint="same class folders"):
        load_data(tmp_path / "pets")


def test_classes_that_are_called_train_and_test_only_by_half(photos, tmp_path):
    """A class may be called "train": the folder is divided only where all sub-folders are splits."""
    data = load_data(photos(tmp_path / "traffic", {"train": 5, "bus": 5}))
    assert data.labels == ("bus", "train")


def test_a_flat_folder_has_no_classes(photos, tmp_path):
    data = load_data(photos(tmp_path / "wild", {"": 10}))
    assert data.labels == ()
    assert {name: len(data.split(name)) for name in SPLITS} == {"train": 6, "val": 2, "test": 2}
    assert all(data.split(name).targets is None for name in SPLITS)
    assert len(set(everything(data))) == 10


def test_an_empty_class_folder_is_named(photos, tmp_path, refused):
    path = photos(tmp_path / "pets", {"cat": 5})
    (path / "dog").mkdir()
    with refused(DataError, path / "dog", "no samples", hint="remove it"):
        load_data(path)


def test_an_empty_folder_is_named(tmp_path, refused):
    with refused(DataError, tmp_path, "no samples", hint=".png"):
        load_data(tmp_path)


def test_a_train_folder_without_classes_is_named(photos, tmp_path, refused):
    photos(tmp_path / "pets" / "train", {"": 5})
    with refused(DataError, tmp_path / "pets" / "train", "no class folders", hint="sub-folder"):
        load_data(tmp_path / "pets")


@pytest.mark.parametrize("name", ["nothing/at/all", "nothing.npz", "/nothing", "pets.zip"])
def test_a_path_that_is_not_there_is_named(refused, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with refused(DataError, "there is no data set at", hint="check the path"):
        load_data(name)


@pytest.mark.parametrize("name", ["pets.xml", "pets", "pets.npy", "pets.zip"])
def test_a_file_of_another_kind_is_named(refused, tmp_path, name):
    (tmp_path / name).write_text("x")
    with refused(DataError, tmp_path / name, "is not a data set", hint=".npz"):
        load_data(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "hint"), [("digit", "'digits'"), ("clothes", "known"), ("fashionmnist", "'fashion-m")]
)
def test_an_unknown_name_gets_the_nearest(refused, registry, tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    with refused(UnknownNameError, repr(name), hint=hint):
        load_data(name, registry=registry)


def test_a_registered_name_is_loaded(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_data("digits", registry=registry).name == "digits"


def test_a_folder_of_that_name_comes_first(photos, registry, tmp_path, monkeypatch):
    photos(tmp_path / "digits", {"one": 5, "two": 5})
    monkeypatch.chdir(tmp_path)
    assert load_data("digits", registry=registry).labels == ("one", "two")


# -- .npz


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [(10, 8, 8), (10, 8, 8, 3), (10, 5, 9)])
def test_npz_of_pixels(tmp_path, shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = load_data(save(tmp_path / "pets.npz", x=x, y=np.arange(10) % 2))
    assert (data.name, data.labels) == ("pets", ("0", "1"))
    assert sorted(s.tobytes() for s in everything(data)) == sorted(s.tobytes() for s in x)
    batch, targets = next(iter(arrays(Batches(data.split("train"), SPEC))))
    assert batch.shape == (6, 3, 16, 16)
    assert np.array_equal(batch[0], prepare(data.split("train").samples[0], SPEC))
    assert np.array_equal(targets, data.split("train").targets)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_npz_of_arrays_that_are_ready(tmp_path, dtype):
    x = np.random.default_rng(0).normal(0, 9, (10, 2, 3, 4)).astype(dtype)
    data = load_data(save(tmp_path / "x.npz", x=x, y=np.arange(10) % 2))
    assert all(data.split(name).samples.dtype == np.float32 for name in SPLITS)
    batch, _ = next(iter(arrays(Batches(data.split("train"), FLOAT))))
    assert np.array_equal(batch, data.split("train").samples)
    assert sorted(s.tobytes() for s in everything(data)) == sorted(s.tobytes() for s in x.astype(np.float32))


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array([3, 7] * 5), ("3", "7")),
        (np.array([10, 9] * 5), ("9", "10")),
        (np.array(["dog", "cat"] * 5), ("cat", "dog")),
        (np.array([True, False] * 5), ("False", "True")),
        (np.array([1, 0] * 5, np.uint8), ("0", "1")),
    ],
)
def test_labels_of_npz(tmp_path, y, labels):
    x = np.zeros((10, 4, 4), np.uint8)
    x[:, 0, 0] = range(10)
    data = load_data(save(tmp_path / "x.npz", x=x, y=y))
    assert data.labels == labels
    for name in SPLITS:
        split = data.split(name)
        assert [labels[t] for t in split.targets] == [str(y[s[0, 0]]) for s in split.samples]


def test_npz_without_y_has_no_classes(tmp_path):
    data = load_data(save(tmp_path / "x.npz", x=np.zeros((10, 4, 4), np.uint8)))
    assert data.labels == ()
    assert all(data.split(name).targets is None for name in SPLITS)


def test_npz_may_be_compressed(tmp_path):
    x = np.arange(160, dtype=np.uint8).reshape(10, 4, 4)
    np.savez_compressed(tmp_path / "z.npz", x=x)
    assert sorted(s.tobytes() for s in everything(load_data(tmp_path / "z.npz"))) == sorted(s.tobytes() for s in x)


def test_npz_without_x_says_what_it_has(tmp_path, refused):
    with refused(DataError, "has no array 'x'", hint="it has: images, y"):
        load_data(save(tmp_path / "x.npz", images=np.zeros(3), y=np.zeros(3)))
    with refused(DataError, "has no array 'x'", hint="it has: nothing"):
        load_data(save(tmp_path / "empty.npz"))


@pytest.mark.parametrize("count", [0, 1, 9, 11])
def test_npz_with_another_number_of_classes(tmp_path, refused, count):
    with refused(DataError, "x has 10 samples", f"y has {count}", hint="one y per x"):
        load_data(save(tmp_path / "x.npz", x=np.zeros((10, 4, 4), np.uint8), y=np.zeros(count, int)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_npz_with_numbers_that_are_none(tmp_path, refused, bad):
    x = np.zeros((10, 2, 3, 4))
    x[3, 1, 2, 3] = bad
    with refused(DataError, "non-finite values", hint="remove"):
        load_data(save(tmp_path / "x.npz", x=x))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((0, 8, 8), np.uint8), None),
        (np.zeros((0, 8, 8), np.uint8), np.zeros(0, int)),
        (np.array(["a", "b"] * 5), None),
        (np.float32(3.0), None),
        (np.zeros((10, 8, 8), np.uint8), np.int64(3)),
        (np.zeros((10, 8, 8), np.uint8), np.eye(10)),
        (np.zeros((10, 8, 8), np.uint8), np.zeros((10, 1), int)),
        (np.zeros((10, 8, 8), np.uint8), np.full(10, np.nan)),
    ],
    ids=[
        "empty",
        "empty with y",
        "text",
        "number",
        "y is a number",
        "y is one-hot",
        "y is a column",
        "y is NaN",
    ],
)
def test_npz_that_cannot_be_used(tmp_path, refused, x, y):
    with refused(DataError, "x.npz"):
        load_data(save(tmp_path / "x.npz", x=x, **({} if y is None else {"y": y})))


@pytest.mark.parametrize("shape", [(10,), (10, 8), (10, 8, 8, 2), (10, 8, 8, 5), (10, 3, 8, 8, 8)], ids=str)
def test_npz_of_pixels_of_another_shape(tmp_path, refused, shape):
    with refused(DataError):
        data = load_data(save(tmp_path / "x.npz", x=np.zeros(shape, np.uint8)))
        list(Batches(data.split("train"), SPEC))


@pytest.mark.parametrize("shape", [(10,), (10, 4), (10, 3, 4), (10, 2, 4, 3), (10, 1, 2, 3, 4)], ids=str)
def test_npz_of_arrays_of_another_shape(tmp_path, refused, shape):
    with refused(DataError, "shape") as caught:
        list(Batches(load_data(save(tmp_path / "x.npz", x=np.zeros(shape))).split("train"), FLOAT))
    if len(shape) > 1:
        assert "the model reads 2 x 3 x 4" in caught.value.message
        assert "uint8 pixels" in caught.value.hint


def test_pickles_are_refused(tmp_path, refused):
    """Reading one could run anything."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    np.savez(tmp_path / "x.npz", x=np.array([Evil()], object))
    with refused(DataError, tmp_path / "x.npz", hint="numpy.savez"):
        load_data(tmp_path / "x.npz")
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_npz_cut_short(tmp_path, refused, keep):
    path = save(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8))
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with refused(DataError, path, hint="numpy.savez"):
        load_data(path)
    gc.collect()  # a file that was left open warns here


@given(st.data())
def test_a_byte_flipped_in_an_npz_is_noticed_or_harmless(tmp_path_factory, data):
    """The zip format has a checksum of every member; what it does not cover changes no value."""
    x = np.arange(160, dtype=np.uint8).reshape(10, 4, 4)
    path = save(tmp_path_factory.mktemp("flip") / "x.npz", x=x)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        found = everything(load_data(path))
    except DataError:
        return
    assert sorted(s.tobytes() for s in found) == sorted(s.tobytes() for s in x)


# -- batches


@given(st.integers(1, 40), st.integers(1, 15), st.none() | st.integers(1, 60))
def test_batches_cover_a_split_once_and_in_order(count, size, limit):
    samples = np.arange(count * 24, dtype=np.float32).reshape(count, 2, 3, 4)
    targets = np.arange(count)
    batches = Batches(Split(samples, targets), FLOAT, size, limit)
    wanted = min(count, limit or count)
    got = list(arrays(batches))
    assert len(got) == len(batches) == -(-wanted // size)
    assert batches.samples == wanted
    assert np.array_equal(np.concatenate([x for x, _ in got]), samples[:wanted])
    assert np.array_equal(np.concatenate([y for _, y in got]), targets[:wanted])
    assert all(len(x) == size for x, _ in got[:-1])


def test_batches_can_be_read_again():
    batches = Batches(Split(np.zeros((5, 2, 3, 4), np.float32)), FLOAT, 2)
    assert (
        [x.shape for x, _ in arrays(batches)]
        == [x.shape for x, _ in arrays(batches)]
        == [(2, 2, 3, 4), (2, 2, 3, 4), (1, 2, 3, 4)]
    )
    assert all(y is None for _, y in batches)


def test_an_empty_split_has_no_batches():
    batches = Batches(Split([]), SPEC)
    assert (list(batches), len(batches), batches.samples) == ([], 0, 0)


def test_batches_are_read_a_few_ahead_and_no_more(photos, tmp_path):
    """One for each core, while the first is used."""
    early = 2 * ((os.cpu_count() or 1) + 1)
    path = photos(tmp_path / "pets", {"": early + 4})
    files = sorted(path.iterdir())
    reader = iter(Batches(Split(files), SPEC, 2))
    next(reader)
    for file in files[early:]:
        file.unlink()
    for _ in range(2, early, 2):
        next(reader)
    with pytest.raises(DataError):
        next(reader)


@pytest.fixture
def partly_broken(photos, tmp_path):
    path = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    bad = [path / "cat" / "003.png", path / "dog" / "000.png", path / "dog" / "009.png"]
    for file in bad:
        file.write_bytes(b"not an image")
    return path, bad


def test_an_unreadable_image_stops_by_default(partly_broken, refused):
    path, _bad = partly_broken
    with refused(DataError, "cannot read the image", path, hint="--skip-bad"):
        for name in SPLITS:
            list(Batches(load_data(path).split(name), SPEC))


@pytest.mark.parametrize("size", [1, 3, 32])
def test_unreadable_images_can_be_left_out_and_are_counted(partly_broken, size):
    path, bad = partly_broken
    data, skipped = load_data(path), Skipped()
    kept = []
    for name in SPLITS:
        split = data.split(name)
        good = [(p, t) for p, t in zip(split.samples, split.targets, strict=True) if p not in bad]
        got = list(arrays(Batches(split, SPEC, size, skipped=skipped)))
        assert sum(len(x) for x, _ in got) == len(good)
        assert np.concatenate([y for _, y in got]).tolist() == [t for _, t in good]
        rows = [row for x, _ in got for row in x]
        assert all(np.array_equal(row, prepare(p, SPEC)) for row, (p, _) in zip(rows, good, strict=True))
        kept += rows
    assert len(kept) == 17
    assert sorted(skipped.names) == sorted(map(str, bad))


def test_arrays_are_never_skipped(refused):
    """What is left out is named by its file; an array has none, and is of the wrong shape as a whole."""
    skipped = Skipped()
    with refused(DataError, "a sample has shape"):
        list(Batches(Split(np.zeros((3, 9), np.float32)), FLOAT, skipped=skipped))
    assert not skipped.names


# -- digest


def test_the_digest_changes_with_the_data(photos, tmp_path):
    path = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    before = load_data(path).digest()
    assert before == load_data(path).digest()
    assert before != load_data(path, seed=1).digest(), "the splits are part of it"
    (path / "cat" / "000.png").rename(path / "dog" / "x.png")
    moved = load_data(path).digest()
    assert moved != before
    (path / "dog" / "x.png").unlink()
    assert load_data(path).digest() not in (before, moved)


def test_the_digest_does_not_depend_on_where_the_data_is(photos, tmp_path):
    one = photos(tmp_path / "a" / "pets", {"cat": 10, "dog": 10})
    shutil.copytree(one, tmp_path / "b" / "pets")
    assert load_data(one).digest() == load_data(tmp_path / "b" / "pets").digest()


def test_the_digest_is_of_what_files_hold_whatever_their_size_and_times(tmp_path):
    """As ``rsync -t`` leaves a repaired copy: another image of the same size, with the times of the old one."""

    def write(turned: bool) -> None:
        for number, label in enumerate("ab"):
            (tmp_path / "d" / label).mkdir(parents=True, exist_ok=True)
            for i in range(6):
                file = tmp_path / "d" / label / f"{i}.png"
                image = Image.fromarray(np.full((4, 4), 100 * (number != turned) + i, np.uint8))
                image.save(file, compress_level=0)
                os.utime(file, (1.7e9, 1.7e9))

    write(False)
    sizes = {file.stat().st_size for file in tmp_path.rglob("*.png")}
    before = load_data(tmp_path / "d").digest()
    time.sleep(0.02)  # more than the kernel's clock takes to tick
    write(True)
    assert {file.stat().st_size for file in tmp_path.rglob("*.png")} == sizes
    assert load_data(tmp_path / "d").digest() != before


@given(st.integers(0, 9), st.integers(0, 15))
def test_the_digest_of_arrays_sees_every_value(sample, place):
    x = np.zeros((10, 4, 4), np.uint8)
    before = from_arrays("x", ("a", "b"), x, np.arange(10) % 2).digest()
    x.reshape(10, 16)[sample, place] = 1
    assert from_arrays("x", ("a", "b"), x, np.arange(10) % 2).digest() != before


def test_the_digest_sees_labels_and_targets():
    x = np.arange(160, dtype=np.uint8).reshape(10, 4, 4)
    digests = {
        from_arrays("x", ("a", "b"), x, np.arange(10) % 2).digest(),
        from_arrays("x", ("b", "a"), x, np.arange(10) % 2).digest(),
        from_arrays("x", ("a", "b"), x, np.arange(10) // 5).digest(),
        from_arrays("x", (), x, None).digest(),
    }
    assert len(digests) == 4


# -- aligning


def data_of(*labels: str) -> Dataset:
    x = np.arange(10 * max(len(labels), 1), dtype=np.uint8)
    x = np.broadcast_to(x[:, None, None], (len(x), 4, 4))
    return from_arrays("pets", labels, x, x[:, 0, 0].astype(np.int64) % len(labels) if labels else None)


def classes(data: Dataset) -> dict[int, str]:
    return {
        int(s[0, 0]): data.labels[t]
        for n in SPLITS
        for s, t in zip(data.split(n).samples, data.split(n).targets, strict=True)
    }


@given(st.permutations(["cat", "dog", "owl", "fox"]), st.integers(1, 4))
def test_classes_are_numbered_as_the_model_does(labels, count):
    data = data_of(*["cat", "dog", "owl", "fox"][:count])
    result = with_classes(data, tuple(labels))
    assert result.labels == tuple(labels) or data.labels == tuple(labels)
    assert classes(result) == classes(data), "every sample keeps the name of its class"


def test_equal_labels_change_nothing():
    data = data_of("cat", "dog")
    assert with_classes(data, ("cat", "dog")) is data


def test_data_without_classes_stays():
    data = data_of()
    assert with_classes(data, ("cat", "dog")) is data


def test_classes_the_model_does_not_know_at_all_are_taken_without():
    data = data_of("cat", "dog")
    result = with_classes(data, ("oak", "elm"))
    assert result.labels == ()
    for name in SPLITS:
        assert result.split(name).targets is None
        assert np.array_equal(result.split(name).samples, data.split(name).samples)


def test_some_unknown_classes_are_refused(refused):
    with refused(DataError, "pets has classes unknown to the model: dogs", hint="did you mean 'dog'?"):
        with_classes(data_of("cat", "dogs"), ("cat", "dog"))


def test_at_most_five_unknown_classes_are_named(refused):
    many = tuple(f"c{i}" for i in range(8))
    with refused(DataError, "c1, c2, c3, c4, c5") as caught:
        with_classes(data_of(*many), ("c0", "x"))
    assert "c6" not in caught.value.message


def test_a_data_set_that_is_open_is_itself():
    opened = Dataset("texts", (), {"train": Split(["a"])})
    assert load_data(opened) is opened


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16, np.float32])
def test_token_ids_of_an_npz_are_whole_numbers(kind, tmp_path, refused):
    from pocketzoo.zoo.catalog.specs import TextSpec

    spec = TextSpec(vocabulary=0, pad=0, max_length=16)
    ids = np.arange(40).reshape(10, 4).astype(kind)
    np.savez(tmp_path / "ids.npz", x=ids)
    found = np.concatenate([x for x, _ in arrays(Batches(load_data(tmp_path / "ids.npz").split("train"), spec))])
    assert found.dtype == np.int64
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in ids.tolist()}
    for wrong in (ids + 0.5, -1.0 - ids, ids * 1e9):
        np.savez(tmp_path / "ids.npz", x=wrong.astype(np.float32))
        with refused(DataError, "this model reads token ids", hint="non-negative integers"):
            list(Batches(load_data(tmp_path / "ids.npz").split("train"), spec))
