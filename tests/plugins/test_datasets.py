from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, MissingDependencyError
from pocketzoo.plugins import datasets
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.batches import SHARES


@pytest.fixture(scope="module")
def digits(registry):
    return registry.get("dataset", "digits").load()


def test_digits_are_those_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.concatenate([digits.split(name).samples for name in SPLITS])
    targets = np.concatenate([digits.split(name).targets for name in SPLITS])
    assert pixels.shape == (1797, 8, 8)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)
    wanted = sorted((image.tobytes(), int(t)) for image, t in zip(raw.images.astype(np.uint8), raw.target, strict=True))
    sixteenths = np.round(pixels / 255 * 16).astype(np.uint8)
    assert sorted((image.tobytes(), int(t)) for image, t in zip(sixteenths, targets, strict=True)) == wanted


def test_digits_are_divided_by_shares(digits):
    assert digits.labels == tuple("0123456789")
    sizes = [len(digits.split(name)) for name in SPLITS]
    assert sum(sizes) == 1797
    for size, share in zip(sizes, SHARES, strict=True):
        assert abs(size / 1797 - share) < 0.01


def test_digits_are_the_same_every_time(registry, digits):
    assert registry.get("dataset", "digits").load().digest() == digits.digest()


def test_digits_of_a_scikit_learn_that_keeps_them_elsewhere_are_the_same(registry, digits, monkeypatch):
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    assert registry.get("dataset", "digits").load().digest() == digits.digest()


def test_digits_without_scikit_learn_name_the_extra(registry, refused, monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with refused(MissingDependencyError, "sklearn", hint="pip install 'pocketzoo[demo]'"):
        registry.get("dataset", "digits").load()


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    """The four files of the data set, with 100 and 20 images."""
    generator = np.random.default_rng(0)
    made = {}
    for name, count in (("train", 100), ("t10k", 20)):
        made[name] = (generator.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(made[name][0]))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(made[name][1]))
    monkeypatch.setattr(datasets, "FASHION_MNIST", tmp_path)
    return made


def test_fashion_mnist_is_read_from_idx_files(registry, small_fashion):
    data = registry.get("dataset", "fashion-mnist").load()
    assert data.labels == datasets.LABELS
    assert {name: len(data.split(name)) for name in SPLITS} == {"train": 90, "val": 10, "test": 20}
    assert np.array_equal(data.split("test").samples, small_fashion["t10k"][0])
    assert np.array_equal(data.split("test").targets, small_fashion["t10k"][1])
    both = [(x.tobytes(), int(y)) for n in ("train", "val") for x, y in zip(data.split(n).samples, data.split(n).targets, strict=True)]  # fmt: skip # noqa: E501
    assert sorted(both) == sorted((x.tobytes(), int(y)) for x, y in zip(*small_fashion["train"], strict=True))


def test_fashion_mnist_that_is_not_there_names_its_package(registry, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "FASHION_MNIST", tmp_path / "nothing")
    with refused(DataError, tmp_path / "nothing", hint="apt-get install dataset-fashion-mnist"):
        registry.get("dataset", "fashion-mnist").load()


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4), (0, 28, 28)])
def test_an_idx_file_of_any_rank(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(datasets, "FASHION_MNIST", tmp_path)
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "x.gz").write_bytes(idx(array))
    assert np.array_equal(datasets._idx("x.gz"), array)


@pytest.mark.skipif(not datasets.FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(registry):
    data = registry.get("dataset", "fashion-mnist").load()
    assert {name: data.split(name).samples.shape for name in SPLITS} == {
        "train": (54_000, 28, 28),
        "val": (6_000, 28, 28),
        "test": (10_000, 28, 28),
    }
    assert np.array_equal(np.bincount(data.split("test").targets), [1000] * 10)
