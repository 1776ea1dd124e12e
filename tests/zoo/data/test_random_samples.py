from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.random_samples import TOKENS, random_ids, random_samples


def test_random_samples_have_the_shape_that_the_model_reads():
    image = InputSpec(shape=("batch", 3, 8, 9), mean=(0.5,) * 3, std=(0.5,) * 3, resize=8)
    x = random_samples(image, 4)
    assert (x.shape, x.dtype) == ((4, 3, 8, 9), np.float32)
    assert np.array_equal(x, random_samples(image, 4))
    for longest in (20, 2 * TOKENS):
        ids = random_samples(TextSpec(vocabulary=50, pad=7, max_length=longest), 2)
        assert (ids.shape, ids.dtype) == ((2, min(longest, TOKENS)), np.int64)
        assert 0 <= ids.min() <= ids.max() < 50


def test_random_texts_have_no_padding():
    ids = random_ids(TextSpec(vocabulary=4, pad=3, max_length=64), 50, 8)
    assert ids.shape == (50, 8)
    assert set(np.unique(ids)) == {0, 1, 2}


@pytest.mark.parametrize(("vocabulary", "pad", "ids"), [(2, 0, {1}), (2, 1, {0}), (1, 0, {1}), (3, 1, {0, 2})])
def test_random_texts_are_of_the_vocabulary(vocabulary, pad, ids):
    """Of a single token, which is the padding's, none would be left: there are two at the least."""
    found = random_ids(TextSpec(vocabulary=vocabulary, pad=pad, max_length=9), 40, 9)
    assert set(np.unique(found)) == ids
