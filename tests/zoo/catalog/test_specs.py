from __future__ import annotations

import dataclasses

import pytest

from pocketzoo.zoo.catalog import specs
from pocketzoo.zoo.catalog.specs import FeatureSpec, InputSpec

KINDS = [c for c in vars(specs).values() if isinstance(c, type) and dataclasses.is_dataclass(c)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_is_frozen_and_has_slots(kind):
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("batch", 3, 224, 224), (3, 224, 224)),
        (("batch", 1, 28, 20), (1, 28, 20)),
        (("n", 16), (16,)),
        (("n",), ()),
    ],
)
def test_the_size_of_one_sample(shape, size):
    assert InputSpec(shape=shape, mean=(0.0,), std=(1.0,), resize=1).size == size


def test_an_input_with_two_free_axes_has_no_size():
    with pytest.raises(ValueError, match="height"):
        _ = InputSpec(shape=("batch", 3, "height", 224), mean=(0.0,), std=(1.0,), resize=1).size


@pytest.mark.parametrize(
    ("kind", "shape", "channels"),
    [
        ("map", ("batch", 128, 7, 9), 128),
        ("vector", ("batch", 64), 64),
        ("sequence", ("batch", 197, 384), 384),
        ("sequence", ("batch", "tokens", 384), 384),
        ("map", ("batch", 12, "height", "width"), 12),
    ],
)
def test_the_channels_of_features(kind, shape, channels):
    assert FeatureSpec(kind, shape).channels == channels


def test_specs_with_equal_facts_are_equal():
    one, two = (FeatureSpec("map", ("batch", 4, 2, 2)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != FeatureSpec("map", ("batch", 5, 2, 2))
