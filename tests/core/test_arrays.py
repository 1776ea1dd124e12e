"""Names of the types of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.arrays import is_type


@pytest.mark.parametrize("kind", "?bBhHiIlLqQefdFD")
def test_every_type_is_known_by_its_name(kind):
    assert is_type(np.dtype(kind).name)


@pytest.mark.parametrize(
    "name", ["", "x", "f4,f4", "(2,)f4", "(-1)f4", "(1,", "float3", "float32 ", "\0", "\ud800", "4"]
)
def test_other_names_are_none(name):
    assert not is_type(name)
