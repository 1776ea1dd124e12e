"""Photos and documents that the benchmarks calibrate and test on: no source is on two sides."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.grouping.sentences import shared
from pocketzoo.zoo.data.load_data import load_data

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import documents
import photos
from sides import FRACTIONS, Side, side_of

SIDES = get_args(Side)


@given(st.integers(10, 200))
def test_each_source_is_on_one_side_in_the_fractions_wanted(count):
    sides = [side_of(range(count), side) for side in SIDES]
    assert sorted(source for side in sides for source in side) == list(range(count))
    for name, side in zip(SIDES, sides, strict=True):
        assert abs(len(side) - FRACTIONS[name] * count) <= 1
        assert side_of(range(count), name, 2) == side[:2], "fewer are a part of more"


def test_a_side_that_has_too_few_is_said():
    with pytest.raises(SystemExit, match="the side 'test' has 4 sources, and 5 are needed"):
        side_of(range(10), "test", 5)


def test_crops_are_grouped_by_photo_as_they_are_named(tmp_path):
    shipped = photos.shipped()
    crops = photos.write_crops(tmp_path / "crops", 35, 0, shipped)
    assert (photos.groups(crops) == np.tile(photos.groups(crops)[:7], 5)).all()
    data = load_data(f"{crops}{photos.GROUP}")
    known = [data.split(name).groups for name in SPLITS]
    assert sum(groups.count for groups in known) == 7
    assert not shared(known[0], known[1])
    assert not shared(known[0], known[2])
    for name in SPLITS:
        split = data.split(name)
        stems = [path.stem.partition("-")[2] for path in split.samples]
        assert len(set(stems)) == split.groups.count


def test_photos_are_no_near_duplicates_of_one_another():
    """Two of scikit-image's are a pair of cameras, of which one is taken."""
    assert len({path.name for path in photos.shipped()}) == 7
    from pocketzoo.zoo.data.grouping.near_duplicates import near_duplicates

    assert near_duplicates(photos.shipped()).count == 7


def webp(side, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP")
    return file.getvalue()


def test_images_are_found_in_a_file_of_others():
    one, two = webp(20, 0), webp(33, 1)
    data = b"qres\0\0RIFF" + one + b"RIFF\x04\0\0\0WAVEdata" + two + b"RIFF\xff\xff\xff\0WEBPcut"
    assert list(photos.images_in(data)) == [one, two]


def test_no_document_and_no_sentence_is_on_two_sides(monkeypatch):
    known = {f"m{i}": [f"sentence {j} of {i}" for j in range(9)] for i in range(20)}
    monkeypatch.setattr(documents, "documents", lambda: known)
    found = {side: documents.sentences(side, 30) for side in SIDES}
    for texts, ids in found.values():
        assert len(set(texts)) == 30
        assert len({text.split()[-1] for text in texts}) == len(set(ids))
    sources = [{text.split()[-1] for text in texts} for texts, _ in found.values()]
    assert sum(map(len, sources)) == len(set().union(*sources))
    with pytest.raises(SystemExit, match="36 sentences of the side 'third'"):
        documents.sentences("third", 300)
