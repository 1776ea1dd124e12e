"""Small data for training, and a home of its own for each test that asks for one."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.data.batches import from_arrays


@pytest.fixture(scope="session")
def few(registry) -> Dataset:
    """The digits 0, 1 and 2: 120 of them."""
    split = registry.get("dataset", "digits").load().split("train")
    rows = np.flatnonzero(split.targets < 3)[:120]
    return from_arrays("few", ("zero", "one", "two"), split.samples[rows], split.targets[rows])


@pytest.fixture
def own_home(monkeypatch, tmp_path):
    """Nothing is kept there yet."""
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
