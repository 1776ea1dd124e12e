"""Features that are kept: the backbone's own, found again for the same samples, within bounds."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT
from pocketzoo.train import feature_cache as module
from pocketzoo.train.feature_cache import Features, Samples, features, weights_digest
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches, Skipped

SPEC = InputSpec(shape=("batch", 1, 4, 4), mean=(0.5,), std=(0.5,), resize=4)


class Counting(nn.Module):
    """A backbone that counts the samples it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Conv2d(1, 3, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.layer(x)


class Words(nn.Module):
    """Sequences: the embedding of each token, zero at the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Embedding(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * (x != 0)[..., None]


def images(count: int = 10, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 1, 4, 4)).astype(np.float32)
    return Split(x, np.arange(count) % 3)


def kept(backbone: nn.Module, split: Split, digest: str = "d", **more):
    batches = Batches(split, more.pop("spec", SPEC), size=4, **more.pop("batches", {}))
    options = {"sequence": False, "what": "the split", "label": "features", "progress": SILENT, **more}
    return features(backbone, batches, weights=weights_digest(backbone), data=digest, **options)


@pytest.fixture
def backbone(own_home) -> Counting:
    torch.manual_seed(0)
    return Counting().eval()


def test_they_are_the_backbones_own_and_computed_once(backbone):
    split = images()
    for _ in range(3):
        found = kept(backbone, split)
        assert isinstance(found, Features)
        assert len(found) == 10
        ((x, y),) = found.of([[7, 2, 2]])
        with torch.no_grad():
            torch.testing.assert_close(x, backbone.layer(torch.from_numpy(split.samples[[7, 2, 2]])))
        assert y.tolist() == [1, 2, 2]
    assert backbone.seen == 10


def test_other_weights_samples_or_readings_are_others(backbone):
    split = images()
    kept(backbone, split)
    kept(backbone, split, "e")
    kept(backbone, split, batches={"skipped": Skipped()})
    kept(backbone, split, spec=InputSpec(shape=("batch", 1, 4, 4), mean=(0.4,), std=(0.5,), resize=4))
    assert backbone.seen == 40
    backbone.layer.bias.data[0] += 1
    kept(backbone, split)
    assert backbone.seen == 50


def test_sequences_are_as_long_as_each_is(own_home):
    torch.manual_seed(0)
    backbone = Words().eval()
    ids = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 9], [1, 1, 0, 0, 0]], np.int64)
    spec = TextSpec(max_length=5, vocabulary=10, pad=0)
    found = kept(backbone, Split(ids, np.arange(4)), spec=spec, sequence=True)
    assert found.values.shape == (3 + 1 + 5 + 2, 3)
    ((x, _),) = found.of([[1, 3]])
    with torch.no_grad():
        assert torch.equal(x, backbone(torch.from_numpy(ids[[1, 3], :2])))


def test_damage_is_computed_again(backbone, own_home):
    kept(backbone, images())
    (values,) = own_home.rglob(module.VALUES)
    values.write_bytes(values.read_bytes()[:-4])
    assert len(kept(backbone, images())) == 10
    (facts,) = own_home.rglob(module.FACTS)
    facts.write_text("{")
    assert len(kept(backbone, images())) == 10
    assert backbone.seen == 30


def test_what_was_not_used_for_longest_goes(backbone, own_home, monkeypatch):
    monkeypatch.setenv("POCKETZOO_FEATURES", "4000")  # each takes some 750
    for hour, digest in enumerate("abcdefgh"):
        before = set(own_home.rglob(module.FACTS))
        kept(backbone, images(), digest)
        (facts,) = set(own_home.rglob(module.FACTS)) - before
        os.utime(facts, (3600 * hour,) * 2)  # on a fast machine two are made within one tick of the file system
    places = {p.parent for p in own_home.rglob(module.FACTS)}
    assert 2 <= len(places) < 8
    assert sum(f.stat().st_size for p in places for f in p.iterdir()) <= 4000
    before = backbone.seen
    kept(backbone, images(), "h")
    assert backbone.seen == before, "the newest is there"
    kept(backbone, images(), "a")
    assert backbone.seen == before + 10, "the oldest is not"


def test_without_room_they_are_computed_each_time(backbone, own_home, monkeypatch):
    monkeypatch.setenv("POCKETZOO_FEATURES", "100")
    found = kept(backbone, images())
    assert isinstance(found, Samples)
    for _ in range(2):
        ((x, y),) = found.of([[3, 4]])
        with torch.no_grad():
            torch.testing.assert_close(x, backbone.layer(torch.from_numpy(images().samples[[3, 4]])))
        assert y.tolist() == [0, 1]
    assert not list(own_home.rglob(module.FACTS))


def test_large_ones_are_mapped(backbone, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    found = kept(backbone, images())
    assert isinstance(found.values.base, np.memmap)
    ((x, _),) = found.of([[9]])
    with torch.no_grad():
        torch.testing.assert_close(x, backbone.layer(torch.from_numpy(images().samples[[9]])))


def test_unreadable_images_are_counted_each_time(backbone, photos, tmp_path, refused):
    folder = photos(tmp_path / "pets", {"cat": 3})
    files = sorted((folder / "cat").iterdir())
    files[1].write_bytes(b"broken")
    split = Split(files, np.arange(3))
    for _ in range(2):
        skipped = Skipped()
        found = kept(backbone, split, batches={"skipped": skipped})
        assert found.targets.tolist() == [0, 2]
        assert skipped.names == {str(files[1])}
    files[0].write_bytes(b"broken")
    files[2].write_bytes(b"broken")
    with refused(DataError, "the split is empty"):
        kept(backbone, split, "all broken", batches={"skipped": Skipped()})


@pytest.mark.parametrize(("limit", "count"), [(None, 10), (10, 10), (4, 4), (1, 1), (0, 0), (99, 10)])
def test_targets_are_of_as_many_samples_as_are_read(limit, count):
    found = Samples(Batches(images(), SPEC, size=4, limit=limit))
    assert len(found) == count
    assert found.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0][:count]
