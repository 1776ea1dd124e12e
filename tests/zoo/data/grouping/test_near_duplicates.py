"""Near-duplicates that are made of samples are found, and samples that are made independently are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.data.grouping import near_duplicates as module
from pocketzoo.zoo.data.grouping.group_by import GroupBy
from pocketzoo.zoo.data.grouping.near_duplicates import grouped, near_duplicates


def photo(seed, height=240, width=320):
    """A picture with a photo's spectrum (amplitudes fall with frequency), in color; none is like another."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    gray, *colors = (
        np.fft.irfft2(np.fft.rfft2(generator.standard_normal((height, width))) / frequency**1.2, (height, width))
        for _ in range(4)
    )
    pixels = np.stack([gray + 0.3 * color for color in colors], -1)
    pixels = 128 + 45 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def same(groups):
    """The groups of more than one, as sets of rows."""
    return [set(np.flatnonzero(groups.ids == i).tolist()) for i in np.unique(groups.ids) if (groups.ids == i).sum() > 1]


CHANGES = {
    "resized": lambda image, path: image.resize((97, 73), Image.Resampling.LANCZOS).save(path),
    "compressed": lambda image, path: image.convert("RGB").save(path.with_suffix(".jpg"), quality=25),
    "smaller and compressed": lambda image, path: image.resize((160, 120)).save(path.with_suffix(".jpg"), quality=50),
    "webp": lambda image, path: image.save(path.with_suffix(".webp"), quality=40),
    "mirrored": lambda image, path: ImageOps.mirror(image).save(path),
    "brighter": lambda image, path: Image.eval(image, lambda v: min(255, int(v * 1.15))).save(path),
    "copied": lambda image, path: image.save(path),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_photo_is_found_and_no_other(tmp_path, change):
    for seed in range(12):
        photo(seed).save(tmp_path / f"photo {chr(97 + seed)}.png")
    CHANGES[change](photo(5), tmp_path / "z.png")
    files = sorted(tmp_path.iterdir())
    groups = near_duplicates(files)
    assert same(groups) == [{5, 12}]
    assert (groups.count, groups.by, groups.notes) == (12, "near-duplicates", ())


def test_images_of_one_color_are_no_copies_unless_their_bytes_are(tmp_path):
    for i in range(6):
        Image.new("RGB", (20 + i, 20), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    files = sorted(tmp_path.iterdir())
    assert same(near_duplicates(files)) == []
    (tmp_path / "x.png").write_bytes(files[2].read_bytes())
    assert same(near_duplicates([*files, tmp_path / "x.png"])) == [{2, 6}]


def test_what_cannot_be_read_is_its_own_source(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    assert same(near_duplicates([*sorted(tmp_path.iterdir()), tmp_path / "missing.png"])) == []


def test_of_too_many_images_copies_alone_are_found_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(module.MOST, "images", 3)
    for seed in range(3):
        photo(seed, 48, 64).save(tmp_path / f"{seed}.png")
    photo(0, 48, 64).resize((60, 45)).save(tmp_path / "small.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    groups = near_duplicates(sorted(tmp_path.iterdir()))
    assert same(groups) == [{1, 3}]
    assert groups.notes == ("near-duplicates are not looked for among 5 images, more than 3: copies alone",)


def test_other_files_are_copies_by_their_bytes(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.wav").write_bytes(b"sound %d" % (i % 3))
    assert same(near_duplicates(sorted(tmp_path.iterdir()))) == [{0, 3}]


# -- recordings


def frames(folder, stem, seed, count, step=12):
    """A camera that moves to the right over a scene."""
    scene = photo(seed, 240, 320 + step * count)
    for i in range(count):
        scene.crop((step * i, 0, step * i + 320, 240)).save(folder / f"{stem}{i:03}.png")


def test_frames_of_a_moving_camera_are_one_recording(tmp_path):
    frames(tmp_path, "walk_", 1, 16)
    frames(tmp_path, "run_", 2, 9)
    for seed in range(10):
        photo(50 + seed).save(tmp_path / f"cat.{seed}.png")  # a running number, and photos that are unlike
    files = sorted(tmp_path.iterdir())
    groups = near_duplicates(files)
    recordings = same(groups)
    assert [{files[i].name[:3] for i in rows} for rows in recordings] == [{"run"}, {"wal"}]
    assert sorted(map(len, recordings)) == [9, 16]
    assert groups.count == 12
    assert groups.notes == ("25 files are frames of 2 recordings, by their numbers and likeness",)


def test_a_gap_in_the_numbers_ends_a_recording(tmp_path):
    frames(tmp_path, "walk_", 1, 40)
    for i in range(12, 28):
        (tmp_path / f"walk_{i:03}.png").unlink()
    assert sorted(map(len, same(near_duplicates(sorted(tmp_path.iterdir()))))) == [12, 12]


# -- texts


def document(seed, words=120):
    return " ".join(f"word{i}" for i in np.random.default_rng(seed).integers(0, 500, words))


def test_texts_with_a_few_words_changed_are_found_and_no_others():
    texts = [document(seed) for seed in range(60)]
    changed = texts[7].split()
    changed[40] = "another"
    changed[90:92] = []
    texts += [" ".join(changed).upper(), texts[9] + "!", " ".join(texts[11].split()[::-1])]
    assert same(near_duplicates(texts)) == [{7, 60}, {9, 61}]


def test_short_texts_that_are_equal_are_no_copies():
    assert same(near_duplicates(["not good at all"] * 9)) == []


@given(st.integers(0, 99))
def test_three_in_four_shingles_in_common_are_found(seed):
    """Of 120 words the first 107 or more are kept: 103 of 116 + 13 shingles are in both, .8 of them."""
    text = document(seed)
    assert same(near_duplicates([text, " ".join(text.split()[:107]) + " " + document(seed + 100, 13)])) == [{0, 1}]


# -- rows


@given(st.integers(6, 40), st.integers(3, 12), st.integers(0, 99), st.sampled_from(["f4", "f8", "u1", "i8"]))
def test_rows_that_are_planted_twice_are_found(count, width, seed, dtype):
    generator = np.random.default_rng(seed)
    rows = (generator.standard_normal((count, width)) * 1000 if dtype[0] == "f" else generator.integers(
        0, 250, (count, width)
    )).astype(dtype)  # fmt: skip
    noise = 1e-6 * np.abs(rows[:1]) if dtype[0] == "f" else 0
    both = np.concatenate([rows, rows[:1] + noise]).astype(dtype)
    assert {0, count} in same(near_duplicates(both)) or dtype[0] == "f"  # noise may cross the edge of what is rounded
    exact = np.concatenate([rows, rows[:1]])
    assert same(near_duplicates(exact)) == [{0, count}]


@given(st.integers(1, 3), st.integers(10, 80), st.integers(0, 99))
def test_rows_of_few_values_that_are_equal_by_chance_are_no_copies(width, count, seed):
    flags = np.random.default_rng(seed).integers(0, 2, (count, width))
    assert same(near_duplicates(flags)) == []
    assert same(near_duplicates(np.zeros((count, width)))) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_numbers_that_are_none_are_left_to_who_reads_them(value):
    rows = np.random.default_rng(0).standard_normal((9, 4))
    rows[3] = value
    assert same(near_duplicates(rows)) == []
    assert same(near_duplicates(np.full((9, 4), value))) == []


def test_mappings_of_equal_arrays_are_of_one_source():
    samples = [{"a": np.full(3, i), "b": "text"} for i in (0, 1, 0, 2)]
    assert same(near_duplicates(samples)) == [{0, 2}]


# -- what is said


def test_what_is_known_is_kept():
    split = grouped(Split(np.zeros((4, 2))), GroupBy("sample"))
    assert split.groups.ids.tolist() == [0, 1, 2, 3]
    assert grouped(split) is split
