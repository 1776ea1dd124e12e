"""Features that are kept: the backbone's own, found again for the same samples, within bounds."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from told import Told
from torch import nn

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT
from pocketzoo.train import feature_cache as module
from pocketzoo.train.feature_cache import features, weights_digest
from pocketzoo.train.sources import Features, Kept, Samples
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.specs import FEATURES, FeatureSpec, InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.modules.features import FeatureChoice

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
    spec = FeatureSpec("sequence", ("batch", "tokens", 3)) if more.pop("sequence", False) else FeatureSpec("map", ())
    options = {
        "choice": FeatureChoice({FEATURES: spec}),
        "what": "the split",
        "label": "features",
        "progress": SILENT,
        **more,
    }
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
        ((x, y, _),) = found.of([[7, 2, 2]])
        with torch.no_grad():
            torch.testing.assert_close(x[FEATURES], backbone.layer(torch.from_numpy(split.samples[[7, 2, 2]])))
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
    assert found.parts[FEATURES].values.shape == (3 + 1 + 5 + 2, 3)
    ((x, _, _),) = found.of([[1, 3]])
    with torch.no_grad():
        assert torch.equal(x[FEATURES], backbone(torch.from_numpy(ids[[1, 3], :2])))


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
        ((x, y, _),) = found.of([[3, 4]])
        with torch.no_grad():
            torch.testing.assert_close(x[FEATURES], backbone.layer(torch.from_numpy(images().samples[[3, 4]])))
        assert y.tolist() == [0, 1]
    assert not list(own_home.rglob(module.FACTS))


def test_where_times_may_not_be_changed_they_are_kept_all_the_same(backbone, own_home, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.utime", refused)
    assert all(isinstance(kept(backbone, images()), Features) for _ in range(2))
    assert backbone.seen == 10


def test_what_cannot_be_read_back_is_computed_each_time(backbone, own_home, monkeypatch):
    monkeypatch.setattr("pocketzoo.train.feature_cache._read", lambda place, batches: None)
    heard = Told()
    assert isinstance(kept(backbone, images(), progress=heard), Samples)
    assert heard.said == ["features are not cached: they cannot be read back"]


def test_large_ones_are_mapped(backbone, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    found = kept(backbone, images())
    assert isinstance(found.parts[FEATURES].values.base, np.memmap)
    ((x, _, _),) = found.of([[9]])
    with torch.no_grad():
        torch.testing.assert_close(x[FEATURES], backbone.layer(torch.from_numpy(images().samples[[9]])))


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


# -- exact sizes


class Heard(Told):
    def __init__(self) -> None:
        super().__init__()
        self.tracked: list[tuple[str, int | None]] = []

    def track(self, items, label, total=None):
        self.tracked.append((label, total))
        yield from items


def test_what_is_kept_is_said_by_batches(backbone, refused):
    heard = Heard()
    kept(backbone, images(), progress=heard, label="features of train")
    kept(backbone, images(), progress=heard)
    assert heard.tracked == [("features of train", 3)]
    assert heard.said == []
    with refused(DataError, "the split is empty", hint="give each class at least five samples"):
        kept(backbone, images(0), "none")


@pytest.mark.parametrize(("room", "free", "fits"), [
    (1664, 3328, True),  # 10 samples of 12 floats and 16 bytes each, and 1024 for the facts
    (1663, 3328, False),
    (1664, 3327, False),  # half of what is free
])  # fmt: skip
def test_there_is_room_or_there_is_not(backbone, monkeypatch, room, free, fits):
    monkeypatch.setenv("POCKETZOO_FEATURES", str(room))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(total=2 * free, used=free, free=free))
    heard = Heard()
    assert isinstance(kept(backbone, images(), progress=heard), Features if fits else Samples)
    assert heard.said == ([] if fits else ["features are not cached: they would take 0.0 GB"])


def test_what_does_not_fit_is_said_in_gigabytes(backbone, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    wide, heard = nn.Sequential(nn.Flatten(), nn.Linear(16, 2_500_000, bias=False)), Heard()
    with torch.no_grad():
        kept(wide.eval(), images(), progress=heard, batches={}, spec=SPEC)
    assert heard.said == ["features are not cached: they would take 0.1 GB"]


def test_unless_told_otherwise_eight_gigabytes_are_kept_and_a_quarter_of_one_is_read_at_once(backbone, monkeypatch):
    assert (module.ROOM, module.IN_MEMORY) == (8e9, 256e6)
    monkeypatch.delenv("POCKETZOO_FEATURES", raising=False)
    monkeypatch.setattr(module, "ROOM", 1663)
    assert isinstance(kept(backbone, images()), Samples)


@pytest.mark.parametrize(("limit", "mapped"), [(480, False), (479, True)])
def test_more_than_is_read_at_once_is_mapped(backbone, monkeypatch, limit, mapped):
    monkeypatch.setattr(module, "IN_MEMORY", limit)
    found = kept(backbone, images())
    assert isinstance(found.parts[FEATURES].values.base, np.memmap) is mapped
    assert found.parts[FEATURES].values.shape == (10, 3, 2, 2)
    assert found.parts[FEATURES].values.dtype == np.float32


def test_what_is_read_counts_as_used(backbone, own_home):
    kept(backbone, images())
    (facts,) = own_home.rglob(module.FACTS)
    os.utime(facts, (1000, 1000))
    kept(backbone, images())
    assert facts.stat().st_mtime > 1000
    assert facts.parent.parent == own_home / "features"
    assert len(facts.parent.name) == 32


@pytest.mark.parametrize(("room", "left"), [(300, "abc"), (299, "ac"), (200, "ac"), (199, "c"), (99, ""), (0, "")])
def test_what_was_not_used_for_longest_goes_until_the_rest_fits(tmp_path, room, left):
    """Each takes 100 bytes; b is the oldest, then a."""
    for name, hour in (("a", 2), ("b", 1), ("c", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / module.VALUES).write_bytes(bytes(90))
        (tmp_path / name / module.FACTS).write_bytes(bytes(10))
        os.utime(tmp_path / name / module.FACTS, (3600 * hour,) * 2)
    module._make_room(tmp_path, room)
    assert "".join(sorted(p.name for p in tmp_path.iterdir())) == left


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([[0, 0], [0, 0]], 1),
        ([[1, 0], [0, 0]], 1),
        ([[0, 0], [0, 1]], 2),
        ([[0, 1], [0, 0], [1, 1]], 3),
        ([[1, 1], [2, 2], [0, 0]], 2),
    ],
)
def test_a_sequence_ends_with_its_last_token(rows, length):
    assert module._lengths([np.array([rows], np.float32)]) == [length]


def test_sequences_are_filled_up_with_zeros():
    values = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    found = Features({FEATURES: Kept(values, np.array([0, 1, 4, 6]), "tokens")}, np.array([5, 6, 7]))
    assert len(found) == 3
    (x, y, _), (one, _, inputs) = found.of([[2, 1], [0]])
    assert inputs == {}
    assert x[FEATURES].tolist() == [[[9, 10], [11, 12], [0, 0]], [[3, 4], [5, 6], [7, 8]]]
    assert (y.tolist(), one[FEATURES].tolist()) == ([7, 6], [[[1, 2]]])


def test_whether_they_are_sequences_is_in_the_key(own_home):
    torch.manual_seed(0)
    ids, spec = np.array([[1, 2, 0], [4, 0, 0]], np.int64), TextSpec(max_length=3, vocabulary=10, pad=0)
    backbone = Words().eval()
    as_one = kept(backbone, Split(ids, np.arange(2)), spec=spec)
    assert (as_one.parts[FEATURES].values.shape, as_one.parts[FEATURES].ends) == ((2, 3, 3), None)
    parts = kept(backbone, Split(ids, np.arange(2)), spec=spec, sequence=True)
    assert (parts.parts[FEATURES].values.shape, parts.parts[FEATURES].ends.tolist()) == ((3, 3), [0, 2, 3])
    (facts,) = (f for f in own_home.rglob(module.FACTS) if json.loads(f.read_text())["lengths"])
    values = {FEATURES: {"type": "<f4", "shape": [3], "axis": "tokens"}}
    assert json.loads(facts.read_text()) == {"values": values, "lengths": {"tokens": [2, 1]}, "skipped": []}
    facts.write_text(json.dumps({"values": values, "lengths": {"tokens": [2, 2]}, "skipped": []}))
    again = kept(backbone, Split(ids, np.arange(2)), spec=spec, sequence=True)
    assert again.parts[FEATURES].ends.tolist() == [0, 2, 3], "lengths that are not those of the values are damage"


def test_samples_are_as_many_as_are_taken():
    split = images()
    found = Samples(Batches(split, SPEC, size=4, limit=6))
    assert len(found) == 6
    assert found.targets.tolist() == [0, 1, 2, 0, 1, 2]
    ((x, y, _),) = found.of([[5, 0]])
    assert torch.equal(x["image"], torch.from_numpy(split.samples[[5, 0]]))
    assert y.tolist() == [2, 0]


def test_a_digest_of_weights_is_of_names_shapes_and_values():
    def digest(**tensors) -> str:
        net = nn.Module()
        for name, value in tensors.items():
            net.register_buffer(name, value)
        return weights_digest(net)

    given = torch.arange(4.0)
    found = [
        digest(a=given),
        digest(b=given),
        digest(a=given.reshape(2, 2)),
        digest(a=given + 1),
        digest(a=given, b=torch.zeros(0)),
        digest(a=given, b=torch.zeros(0, 2)),
        digest(),
    ]
    assert len(set(found)) == len(found)
    assert digest(a=given.clone()) == found[0]
    assert digest(a=torch.arange(8.0)[::2] / 2) == found[0]


class TwoInputs(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.stack([(ids * mask).sum(1), mask.sum(1)], dim=1).float()


def test_every_input_goes_to_what_learns_and_to_a_frozen_backbone():
    text = TextSpec(vocabulary=9, pad=0, max_length=4, mask="mask")
    batches = Batches(Split(np.array([[2, 3, 0], [4, 5, 6]]), np.array([0, 1])), text)
    ((x, y, inputs),) = Samples(batches, TwoInputs()).of([[0, 1]])
    assert x[FEATURES].tolist() == [[5, 2], [15, 3]]
    assert y.tolist() == [0, 1]
    assert inputs["mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    ((x, y, inputs),) = Samples(batches).of([[1, 0]])
    assert {name: each.tolist() for name, each in x.items()} == {
        "input_ids": [[4, 5, 6], [2, 3, 0]],
        "mask": [[1, 1, 1], [1, 1, 0]],
    }
    assert {name: each.tolist() for name, each in inputs.items()} == {name: each.tolist() for name, each in x.items()}


class Pyramid(nn.Module):
    """Several features by name: a map, tokens, and which of those there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Embedding(10, 3), 0

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += len(ids)
        tokens = self.layer(ids)  # not zero at padding: the mask says where that is
        mask = (ids != 0).long()
        return {"tokens": tokens * mask[..., None] if self.zeroed else tokens, "mask": mask, "sum": tokens.sum(1)}

    zeroed = True


PYRAMID = FeatureChoice(
    {
        "tokens": FeatureSpec("sequence", ("batch", "tokens", 3)),
        "mask": FeatureSpec("mask", ("batch", "tokens")),
    },
    named=True,
    together=True,
)
IDS = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 9], [1, 1, 0, 0, 0]], np.int64)
TEXT = TextSpec(max_length=5, vocabulary=10, pad=0)


@pytest.mark.parametrize("zeroed", [True, False])
def test_several_features_are_kept_by_name_and_as_long_as_one_another(own_home, zeroed):
    torch.manual_seed(0)
    backbone = Pyramid().eval()
    backbone.zeroed = zeroed
    for _ in range(2):
        found = kept(backbone, Split(IDS, np.arange(4)), spec=TEXT, choice=PYRAMID)
    assert backbone.seen == 4
    assert list(found.parts) == ["tokens", "mask"]
    assert (found.parts["tokens"].values.dtype, found.parts["mask"].values.dtype) == (np.float32, np.int64)
    ((x, y, _),) = found.of([[1, 3]])
    length = 2 if zeroed else 5
    with torch.no_grad():
        whole = backbone(torch.from_numpy(IDS[[1, 3], :length]))
    assert torch.equal(x["tokens"], whole["tokens"])
    assert torch.equal(x["mask"], whole["mask"])
    assert y.tolist() == [1, 3]
    one = FeatureChoice({"sum": FeatureSpec("vector", ("batch", 3))}, named=True)
    assert list(kept(backbone, Split(IDS, np.arange(4)), spec=TEXT, choice=one).parts) == ["sum"]


def test_what_a_decoder_looks_at_is_what_the_model_read_as_long_as_the_features(own_home):
    """Read only when it is looked at."""
    backbone = Words().eval()
    text = TextSpec(max_length=5, vocabulary=10, pad=0, mask="mask")
    spec = FeatureSpec("sequence", ("batch", "sequence", 3))
    split = Split(IDS, np.arange(4))

    class Two(nn.Module):
        def forward(self, ids, mask):
            return backbone(ids)

    found = kept(Two(), split, spec=text, choice=FeatureChoice({FEATURES: spec}))
    reads = []
    counting = Batches(split, as_processor(text))
    object.__setattr__(
        counting, "_read", lambda processor, rows: reads.append(list(rows)) or Batches._read(counting, processor, rows)
    )
    found = replace(found, batches=counting)
    ((x, _, inputs), (_, _, other)) = found.of([[3, 1], [2]])
    assert (list(inputs), len(inputs), "mask" in inputs, "other" in inputs) == (["input_ids", "mask"], 2, True, False)
    assert reads == []
    assert inputs["input_ids"].tolist() == [[1, 1], [4, 0]]
    assert inputs["mask"].tolist() == [[1, 1], [1, 0]]
    assert x[FEATURES].shape[1] == 2
    assert reads == [[3, 1]]
    assert other.get("mask").tolist() == [[1] * 5]


def test_the_inputs_of_kept_features_are_of_the_samples_that_could_be_read(backbone, photos, tmp_path):
    folder = photos(tmp_path / "pets", {"cat": 4})
    files = sorted((folder / "cat").iterdir())
    files[1].write_bytes(b"broken")
    split = Split(files, np.arange(4))
    found = kept(backbone, split, batches={"skipped": Skipped()})
    ((_, y, inputs),) = found.of([[1, 2]])
    assert y.tolist() == [2, 3]
    expected, _ = next(Batches(split, SPEC).of([[2, 3]]))
    np.testing.assert_array_equal(inputs["image"], expected["image"])


def test_features_that_differ_in_size_are_computed_each_time(own_home):
    class Growing(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x.mean((1, 2))[:, : 2 + self.calls % 2]

    heard = Heard()
    assert isinstance(kept(Growing(), images(), progress=heard), Samples)
    assert heard.said == ["features are not cached: features differ in size from batch to batch"]
