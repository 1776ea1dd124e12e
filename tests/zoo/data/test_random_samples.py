from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.data.random_samples import TOKENS, random_samples, sample_of

IMAGE = InputSpec(shape=("batch", 3, 8, 9), mean=(0.5,) * 3, std=(0.5,) * 3, resize=8)


def test_random_samples_have_the_shape_that_the_model_reads():
    x = random_samples(IMAGE, 4)["image"]
    assert (x.shape, x.dtype) == ((4, 3, 8, 9), np.float32)
    assert np.array_equal(x, random_samples(as_processor(IMAGE), 4)["image"])
    for longest in (20, 2 * TOKENS):
        ids = random_samples(TextSpec(vocabulary=50, pad=7, max_length=longest), 2)["input_ids"]
        assert (ids.shape, ids.dtype) == ((2, min(longest, TOKENS)), np.int64)
        assert 0 <= ids.min() <= ids.max() < 50


def test_random_texts_have_no_padding():
    ids = random_samples(TextSpec(vocabulary=4, pad=3, max_length=64), 50, 8)["input_ids"]
    assert ids.shape == (50, 8)
    assert set(np.unique(ids)) == {0, 1, 2}


@pytest.mark.parametrize(("vocabulary", "pad", "ids"), [(2, 0, {1}), (2, 1, {0}), (1, 0, {1}), (3, 1, {0, 2})])
def test_random_texts_are_of_the_vocabulary(vocabulary, pad, ids):
    """Of a single token, which is the padding's, none would be left: there are two at the least."""
    found = random_samples(TextSpec(vocabulary=vocabulary, pad=pad, max_length=9), 40, 9)["input_ids"]
    assert set(np.unique(found)) == ids


@pytest.mark.parametrize("length", [0, -1, 10])
def test_a_length_that_the_model_does_not_read_is_refused(length, refused):
    with refused(DataError, "lengths of 1 to 9"):
        random_samples(TextSpec(vocabulary=4, pad=3, max_length=9), 2, length)


def test_an_image_has_no_length(refused):
    with refused(DataError, "has one length", hint="leave out --length"):
        random_samples(IMAGE, 2, 8)


def test_a_sample_is_one_of_a_batch_without_its_axis():
    inputs = (TensorSpec(name="a", shape=("batch", 2)), TensorSpec(name="b", shape=(3, "batch"), batch=1),
              TensorSpec(name="c", shape=(2,), batch=None))  # fmt: skip
    batch = as_processor(ArraysSpec(inputs=inputs)).random(4)
    one = sample_of(batch, 1, inputs)
    assert np.array_equal(one["a"], batch["a"][1])
    assert np.array_equal(one["b"], batch["b"][:, 1])
    assert one["c"] is batch["c"]
