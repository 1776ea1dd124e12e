from __future__ import annotations

from pathlib import Path

import pytest

from pocketzoo.core.errors import RecipeError, UnknownNameError
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.foreign.lengths import check_axes, told_lengths
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata


def reads(*shape: int | str) -> ModelSignature:
    return ModelSignature(inputs=(TensorSpec(name="x", shape=shape),), outputs=())


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (("n", 3, "h", "w"), {"h": 320, "w": 480}),
        (("n", "h", "w", 3), {"h": 320, "w": 480}),
        (("n", 3, 48, "w"), {"w": 480}),
        (("n", "c", "h", "w"), {"h": 320, "w": 480}),
        (("n", "t"), {}),
    ],
    ids=str,
)
def test_height_and_width_are_of_the_axes_that_are_not_channels(shape, told):
    assert told_lengths(reads(*shape), OnnxMetadata(size=(320, 480))) == told


def test_an_axis_by_its_name_is_told_whatever_the_size_is(refused):
    metadata = OnnxMetadata(size=8, axes={"t": 100})
    assert told_lengths(reads("n", "t"), metadata) == {"t": 100}
    with refused(RecipeError, "'s' of 'x' cannot be 320 and 480 long"):
        told_lengths(reads("n", 3, "s", "s"), OnnxMetadata(size=(320, 480)))


@pytest.mark.parametrize("name", ["n", "time"])
def test_an_axis_that_is_not_free_is_named(name, refused):
    with refused(UnknownNameError, f"m.onnx has no free axis {name!r}"):
        check_axes(reads("n", "t", 4), OnnxMetadata(axes={name: 3}), Path("m.onnx"))
    check_axes(reads("n", "t", 4), OnnxMetadata(axes={"t": 3}), Path("m.onnx"))


@pytest.mark.parametrize(
    "wrong",
    [{"size": (0, 3)}, {"size": -1}, {"axes": {"t": 0}}, {"decoder": "classes"}, {"mean": (1.0,), "std": (0.0,)}],
    ids=str,
)
def test_metadata_that_cannot_be_is_refused(wrong):
    with pytest.raises(RecipeError):
        OnnxMetadata(**wrong)
