from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.catalog.signature import ModelSignature, signature_of_axes
from pocketzoo.zoo.data.shown_lengths import are_whole, lengths_of, shown_arrays


def reads(**inputs) -> ModelSignature:
    return signature_of_axes([(name, list(axes), "float32") for name, axes in inputs.items()], [])


@pytest.mark.parametrize(
    ("inputs", "arrays", "lengths"),
    [
        ({"x": ("batch", "time", 4)}, {"x": (9, 50, 4)}, {"time": 50}),
        ({"x": ("batch", 3, "h", "w")}, {"x": (9, 3, 32, 48)}, {"h": 32, "w": 48}),
        ({"x": ("batch", "time", 4)}, {"mine": (9, 50, 4)}, {"time": 50}),  # one input: any name
        ({"x": ("batch", "time", 4)}, {"mine": (9, 50, 4), "y": (9,)}, {"time": 50}),
        ({"x": ("batch", "time", 4)}, {"mine": (9, 50, 4), "other": (9,)}, {}),
        ({"x": ("batch", "time", 4)}, {"x": (9, 50, 5)}, {}),  # does not fit: whoever reads it says so
        ({"x": ("batch", "time", 4)}, {"x": (9,)}, {}),
        ({"x": ("time", "batch", 4)}, {"x": (9, 50, 4)}, {"time": 50}),  # rows come first
        ({"x": ("t", "n", 4)}, {"x": (9, 50, 4)}, {"t": 50, "n": 50}),  # rows come first, whichever axis counts them
        ({"x": ("t", "n", "f")}, {"x": (9, 50, 4)}, {"t": 50, "n": 50, "f": 4}),
        ({"x": ("n", "t"), "f": ("n", 4)}, {"x": (9, 50), "f": (9, 4)}, {"t": 50, "n": 50}),
        ({"x": ("time", 4)}, {"x": (9, 50, 4)}, {"time": 50}),  # a row is all that a run reads
        ({"x": (1, "time", 4)}, {"x": (9, 50, 4)}, {"time": 50}),
        ({"x": (1, "time", 4)}, {"x": (9, 1, 50, 4)}, {"time": 50}),
        ({"x": ("batch", "time"), "h": (2, "batch", 8)}, {"x": (9, 50), "h": (9, 2, 8)}, {"time": 50}),
        ({"x": ("batch", "time"), "m": ("batch", "time")}, {"x": (9, 50), "m": (9, 50)}, {"time": 50}),
        ({"x": ("batch", "time"), "m": ("batch", "time")}, {"x": (9, 50), "m": (9, 51)}, {}),  # they do not agree
        ({"x": ("batch", None)}, {"x": (9, 50)}, {"x_1": 50}),
    ],
)  # fmt: skip
def test_lengths_of_free_axes_are_those_of_the_arrays(inputs, arrays, lengths):
    assert lengths_of({name: np.zeros(shape) for name, shape in arrays.items()}, reads(**inputs).inputs) == lengths


def test_a_file_and_a_folder_of_files_show_them(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 50, 4)))
    for data in (tmp_path / "a.npz", tmp_path):
        assert {name: array.shape for name, array in shown_arrays(data).items()} == {"x": (3, 50, 4)}


def test_what_is_no_file_of_arrays_shows_nothing(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for name in ("bad.npz", "table.csv", "missing.npz", "digits"):
        assert shown_arrays(tmp_path / name) == {}


@pytest.mark.parametrize(
    ("inputs", "arrays", "whole"),
    [
        ({"x": (3, 8)}, {"x": (9, 3, 8)}, True),
        ({"x": (3, 8)}, {"mine": (9, 3, 8), "y": (9,)}, True),
        ({"x": (3, 8)}, {"x": (9, 8)}, False),  # samples of a batch of three
        ({"x": (3, 8)}, {"x": (9, 3, 7)}, False),
        ({"x": (3, 8)}, {}, False),
        ({"x": (3, 8), "h": (2, 4)}, {"x": (9, 3, 8), "h": (9, 2, 4)}, True),
        ({"x": (3, 8), "h": (2, 4)}, {"x": (9, 3, 8), "h": (9, 4)}, False),
        ({"x": (1, 8)}, {"x": (9, 1, 8)}, False),  # a batch of one
        ({"x": ("batch", 8)}, {"x": (9, 1, 8)}, False),
        ({"x": (None, 8)}, {"x": (9, 3, 8)}, False),
        ({"x": ("time", 8)}, {"x": (9, 50, 8)}, True),
        ({"x": ()}, {"x": (9,)}, False),
    ],
)
def test_a_row_that_is_all_that_a_run_reads_is_a_sample(inputs, arrays, whole):
    assert are_whole({name: np.zeros(shape) for name, shape in arrays.items()}, reads(**inputs).inputs) is whole
