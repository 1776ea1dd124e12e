"""A recipe's whole walk: TOML -> steps -> plans -> manifest -> replay, and how often it reads what it calibrates on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import examplepackages
import numpy as np
import onnx
import pytest
import smallnet
from rehearsal import rehearse

from pocketzoo.compress.pipeline.compress_model import compress, encode
from pocketzoo.core.errors import DataError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.saved_plans import saved_plan
from pocketzoo.zoo.catalog.compressor import GraphCompressor, Step
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.resolver import Resolver

examplepackages.on_path("cluster-weights")

PRUNE = '[[step]]\nkind = "prune"\nratio = 0.25\nmultiple = 1\n'
ZEROS = '[[step]]\nkind = "prune"\ngranularity = "weight"\npattern = "2:4"\n'
LOW_RANK = '[[step]]\nkind = "low-rank"\nrank_fraction = 0.5\nonly_faster = false\n'
DISTILL = '[[step]]\nkind = "distill"\nepochs = 1\n'
INT8 = '[[step]]\nkind = "int8"\n'
CLUSTER = '[[step]]\nkind = "cluster-weights"\nvalues = 8\n'
LONG = "all on the module, then int8"
RECIPES = {
    "prune": PRUNE,
    "zeros": ZEROS,
    "low-rank": LOW_RANK,
    "distill": DISTILL,
    "int8": INT8,
    "int8 under a budget": INT8 + "min_sqnr = 45.0\n",
    "cluster-weights": CLUSTER,
    LONG: PRUNE + LOW_RANK + DISTILL + INT8,
    "pruned, then clustered": PRUNE + CLUSTER,
}
TARGETS = ("cpu", "tensorrt")


class Counted(list):
    """Samples that count how often each is read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.reads = Counter()

    def __getitem__(self, i):
        self.reads[i] += 1
        return super().__getitem__(i)


@pytest.fixture(scope="module")
def registry():
    return examplepackages.registry_with("cluster-weights", extra=(smallnet,))


@pytest.fixture
def counting() -> tuple[Dataset, Counted]:
    """Digits, and the samples of their training split."""
    digits = load_data("digits")
    cut = {name: Split(s.samples[:60], s.targets[:60]) for name, s in digits.splits.items()}
    train = Counted(cut["train"].samples)
    return replace(digits, splits={**cut, "train": Split(train, cut["train"].targets)}), train


def without_encoded_graphs(bundle: Bundle) -> Bundle:
    """As for a target that it has no graph for: it is encoded from the plan."""
    files = {name: e for name, e in bundle.manifest.files.items() if not (name.endswith(".onnx") and e.target)}
    return replace(bundle, manifest=replace(bundle.manifest, files=files))


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == LONG)) for n in RECIPES])
def test_the_manifest_replays_what_the_recipe_made_and_data_is_read_once(name, small, registry, counting, tmp_path):
    data, train = counting
    (tmp_path / "recipe.toml").write_text(f"version = 1\n\n{RECIPES[name]}")
    settings = {"data": data, "targets": TARGETS, "samples": 40, "keep_slower": True, "accept": True}
    planned = rehearse(small.path, recipe=tmp_path / "recipe.toml", registry=registry, **settings)
    assert set(train.reads) - {0} <= set(range(1, 40))
    assert all(count == 1 for i, count in train.reads.items() if i), "a dry run reads each sample once"
    train.reads.clear()
    bundle = compress(small.path, tmp_path / "out", recipe=tmp_path / "recipe.toml", registry=registry, **settings)
    # Of the first sample its type is looked at, too, at the start of each pass over a split.
    assert all(count == 1 for i, count in train.reads.items() if i), "a run reads each sample once"
    steps, resolver = bundle.manifest.steps, Resolver(registry)
    assert [step.compressor for step in steps] == [step.compressor for step in planned]
    compressors = resolver.compressors(bundle)
    # Each plan is what was planned, and comes back from the file as it went in.
    stored = json.loads((bundle.path / "pocketzoo.json").read_text())["steps"]
    for step, plain in zip(steps, stored, strict=True):
        assert to_plain(saved_plan(bundle, step, compressors[step.compressor])) == plain["plan"]
    first = planned[0]
    assert json.loads(json.dumps(to_plain(first.config))) == stored[0]["config"]
    if "min_sqnr" not in RECIPES[name]:
        assert json.loads(json.dumps(to_plain(first.plan))) == stored[0]["plan"]
    # The module, by its plans and weights, is the float graph.
    onnx_from_model(load_module(bundle, registry), small.manifest.processor, tmp_path / "again.onnx")
    assert same_bytes(onnx.load(tmp_path / "again.onnx"), onnx.load(bundle.graph("")))
    # What a plan on the graph makes for a target is what was stored for it.
    on_graphs = any(isinstance(compressors[step.compressor], GraphCompressor) for step in steps)
    for target in TARGETS:
        made = encode(without_encoded_graphs(bundle), registry.get("target", target), compressors)
        assert (made is not None) == on_graphs == (target in bundle.encodings())
        if made is not None:
            assert made.SerializeToString() == onnx.load(bundle.graph(target)).SerializeToString()


def same_bytes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.graph.SerializeToString() == other.graph.SerializeToString()


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("name", [pytest.param(LONG, marks=pytest.mark.slow), "pruned, then clustered"])
def test_the_configs_of_a_manifest_are_a_recipe_for_the_same(name, small, registry, counting, tmp_path):
    data, _ = counting
    (tmp_path / "recipe.toml").write_text(RECIPES[name])
    settings = {"data": data, "samples": 40, "keep_slower": True, "accept": True, "registry": registry}
    bundle = compress(small.path, tmp_path / "out", recipe=tmp_path / "recipe.toml", **settings)
    steps = [
        Step(step.compressor, from_plain(registry.get("compressor", step.compressor).config, step.config))
        for step in bundle.manifest.steps
    ]
    again = compress(small.path, tmp_path / "again", steps=steps, **settings)
    assert [to_plain(s.plan) for s in again.manifest.steps] == [to_plain(s.plan) for s in bundle.manifest.steps]
    graphs = [name for name in bundle.manifest.files if name.endswith(".onnx")]
    assert {n: bundle.manifest.files[n].sha256 for n in graphs} == {n: again.manifest.files[n].sha256 for n in graphs}


@pytest.mark.usefixtures("untimed")
def test_int8_that_smooths_and_compares_reads_its_samples_once(graphs, tmp_path):
    """Three passes: divisors of channels, ranges, and static against dynamic quantization."""
    onnx.save(graphs["tokens"], tmp_path / "tokens.onnx")
    x = np.random.default_rng(0).normal(size=(50, 3, 10, 10)).astype(np.float32)
    data = from_arrays("arrays", (), x, None)
    train = Counted(data.split("train").samples)
    data = replace(data, splits={**data.splits, "train": Split(train)})
    compress(
        tmp_path / "tokens.onnx", tmp_path / "out", data=data, samples=20, keep_slower=True, accept=True,
        steps=[Step("int8")],
    )  # fmt: skip
    assert {count for i, count in train.reads.items() if i} == {1}
    assert len(train.reads) == 20


@pytest.mark.usefixtures("untimed")
def test_a_run_that_fails_leaves_no_file_of_its_samples(small, registry, counting, tmp_path, monkeypatch):
    data, train = counting
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("pocketzoo.zoo.data.read_once.ReadOnce.__init__.__defaults__", (0,))
    train[35] = np.zeros((3, 3, 3, 3), np.uint8)  # no image
    with pytest.raises(DataError):
        compress(
            small.path, tmp_path / "out", data=data, steps=[Step("int8")], samples=40, keep_slower=True,
            registry=registry,
        )  # fmt: skip
    assert list(Path(tmp_path / "temporary").iterdir()) == []
