"""Which axis of an output counts classes."""

from __future__ import annotations

import pytest

from pocketzoo.core.errors import RecipeError, UnknownNameError, UnsupportedModelError
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.foreign.class_axis import class_axis
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata


def found(shape, labels=0, axis=None, batch=0, path="m.onnx", dtype="float32"):
    image = TensorSpec(name="x", shape=("batch", 3))
    outputs = (TensorSpec(name="y", shape=shape, batch=batch, dtype=dtype), TensorSpec(name="z", shape=("batch", 6, 5)))
    metadata = OnnxMetadata(labels=tuple(map(str, range(labels))), classes_axis=axis)
    return class_axis(ModelSignature(inputs=(image,), outputs=outputs), metadata, path, SILENT)


@pytest.mark.parametrize(
    ("shape", "batch", "labels", "said", "axis"),
    [
        (("batch", 5, 8, 8), 0, 5, None, 1),
        (("batch", 8, 8, 5), 0, 5, None, 3),
        (("batch", 100, 5), 0, 5, None, 2),
        ((20, "batch", 5), 1, 5, None, 2),
        (("batch", 5, "h", "w"), 0, 5, None, 1),
        (("batch", 5, 5), 0, 5, ("", 1), 1),
        (("batch", 5, 5), 0, 5, ("y", -1), 2),
        (("batch", "classes", 8), 0, 5, ("y", 1), 1),
        (("batch", 7, 8), 0, 0, ("", 1), 1),  # without labels
        ((5, 20), None, 5, None, None),  # of a run that has one sample: rank 2
        (("batch", 7, 8), 0, 5, None, None),
        (("batch", 5), 0, 5, None, None),
        (("batch", 5), 0, 5, ("", 1), None),  # one row of scores, as it was
        (("batch", 5, 8), 0, 0, None, None),
    ],
)
def test_the_axis_is_the_one_that_is_said_or_as_long_as_there_are_labels(shape, batch, labels, said, axis):
    answer = found(shape, labels, said, batch)
    assert (None if answer is None else (answer[0].name, answer[1])) == (None if axis is None else ("y", axis))


def test_another_output_is_named():
    assert found(("batch", 5, 8), 5, ("z", 2))[0].name == "z"


@pytest.mark.parametrize(
    ("shape", "labels", "said", "kind", "message"),
    [
        (("batch", 5, 8, 8), 8, None, UnsupportedModelError, "has 8 entries, as there are labels, along axes 2 and 3"),
        (("batch", 5, 8, 8), 8, ("", 1), RecipeError, "axis 1 of 'y' is 5 long, but there are 8 labels"),
        (("batch", 5, 8, 8), 5, ("", 0), RecipeError, "axis 0 of 'y', batch x 5 x 8 x 8, counts samples"),
        (("batch", 5, 8, 8), 5, ("", -4), RecipeError, "counts samples"),
        (("batch", 5, 8, 8), 5, ("", 4), RecipeError, "is none of its axes"),
        (("batch", 5), 5, ("", 0), RecipeError, "has one row for each sample, not classes along axis 0"),
        (("batch", 5, 8), 5, ("w", 1), UnknownNameError, "'w'"),
    ],
)
def test_what_cannot_be_is_refused(shape, labels, said, kind, message, refused):
    with refused(kind, message):
        found(shape, labels, said)
