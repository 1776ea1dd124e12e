"""Named arrays of any type, as a foreign graph or a state has them."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.processors.arrays_processor import ArraysProcessor

TWO = ArraysProcessor(
    ArraysSpec(
        inputs=(
            TensorSpec(name="sound", shape=("batch", "time", 4)),
            TensorSpec(name="rate", shape=(), dtype="int64", batch=None),
        )
    )
)
ONE = ArraysProcessor(ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", 2, 3), dtype="int32"),)))


def test_samples_are_stacked_along_the_batch_axis():
    samples = [{"sound": np.full((5, 4), i, np.float32), "rate": np.int64(16)} for i in range(3)]
    arrays = TWO(samples)
    assert arrays["sound"].shape == (3, 5, 4)
    assert arrays["sound"][:, 0, 0].tolist() == [0, 1, 2]
    assert (arrays["rate"].shape, int(arrays["rate"])) == ((), 16)
    turned = ArraysProcessor(ArraysSpec(inputs=(TensorSpec(name="x", shape=(2, "batch"), batch=1),)))
    assert turned([np.float32([1, 2]), np.float32([3, 4])])["x"].tolist() == [[1, 3], [2, 4]]
    ready = np.zeros((2, 7), np.float32)
    assert turned.batch(ready)["x"] is ready


def test_a_sample_may_be_a_batch_of_one():
    turned = ArraysProcessor(ArraysSpec(inputs=(TensorSpec(name="x", shape=(2, "batch", 3), batch=1),)))
    one = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    np.testing.assert_array_equal(turned([one, one[:, 0]])["x"], np.concatenate([one, one], 1))
    with pytest.raises(DataError, match="a sample of 'x' has shape 2 x 2 x 3, the model reads 2 x 3"):
        turned([np.zeros((2, 2, 3), np.float32)])


def test_batches_pass_as_they_are():
    batch = {"sound": np.zeros((2, 7, 4), np.float32), "rate": np.array(16)}
    arrays = TWO.batch(batch)
    assert arrays["sound"] is batch["sound"]
    x = np.zeros((2, 2, 3), np.int32)
    assert ONE.batch(x)["x"] is x
    assert ONE([x[0], x[1]])["x"].shape == (2, 2, 3)


def test_another_type_is_converted_where_every_value_stays():
    assert ONE([np.full((2, 3), 7.0)])["x"].dtype == np.int32
    assert TWO([{"sound": np.zeros((1, 4)), "rate": 16.0}])["sound"].dtype == np.float32


@pytest.mark.parametrize(
    ("processor", "samples", "says"),
    [
        (ONE, [np.full((2, 3), 0.5)], ["float64", "not every value is one of int32"]),
        (ONE, [np.full((2, 3), 2**40)], ["not every value"]),
        (ONE, [np.zeros((2, 4), np.int32)], ["2 x 4", "2 x 3"]),
        (ONE, ["a text"], ["str"]),
        (ONE, [{"y": np.zeros((2, 3), np.int32)}], ["no input 'y'"]),
        (TWO, [{"sound": np.zeros((1, 4), np.float32)}], ["lacks its 'rate'"]),
        (TWO, [np.zeros((1, 4), np.float32)], ["an array"]),
        (TWO, [{"sound": np.zeros((n, 4), np.float32), "rate": 1} for n in (1, 2)], ["shapes: 1 x 4 and 2 x 4"]),
        (TWO, [{"sound": np.zeros((1, 4), np.float32), "rate": n} for n in (1, 2)], ["'rate' has no axis for samples"]),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_named(processor, samples, says, refused):
    with refused(DataError, *says):
        processor(samples)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sound": np.zeros((2, 7, 4), np.float32)}, ["'rate' is missing"]),
        ({"sound": np.zeros((2, 7, 4)), "rate": np.array(16)}, ["float64", "float32"]),
        ({"sound": np.zeros((2, 7, 5), np.float32), "rate": np.array(16)}, ["(2, 7, 5)", "('batch', 'time', 4)"]),
        ({"sound": np.full((1, 1, 4), np.inf, np.float32), "rate": np.array(16)}, ["'sound' has non-finite values"]),
        ({"sound": np.zeros((1, 1, 4), np.float32), "rate": np.array(1), "z": np.array(1)}, ["no input 'z'"]),
    ],
)
def test_batches_that_do_not_fit_are_named(given, says, refused):
    with refused(DataError, *says):
        TWO.batch(given)


def test_inputs_of_different_numbers_of_samples_are_refused(refused):
    pair = ArraysProcessor(ArraysSpec(inputs=tuple(TensorSpec(name=n, shape=("batch", 1)) for n in "ab")))
    with refused(DataError, "2 of 'a', 3 of 'b'"):
        pair.batch({"a": np.zeros((2, 1), np.float32), "b": np.zeros((3, 1), np.float32)})


def test_random_arrays_are_of_the_right_shapes_and_types():
    arrays = TWO.random(3, 9)
    assert {n: (x.shape, x.dtype.name) for n, x in arrays.items()} == {
        "sound": ((3, 9, 4), "float32"), "rate": ((), "int64"),
    }  # fmt: skip
    assert TWO.batch(arrays)["sound"] is arrays["sound"]


def test_a_config_without_inputs_is_refused(refused):
    with refused(RecipeError, "inputs cannot be []"):
        ArraysSpec(inputs=())
