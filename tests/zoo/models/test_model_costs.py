"""One count everywhere: modules against their graphs, and bundles that were counted before all operators were."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hubmodels import opened, write_headed

from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.model_costs import graph_costs, macs_of, sizes_counted_at
from pocketzoo.zoo.modules.module_macs import module_macs


def counts(module, reads, folder) -> tuple[int, int]:
    """Of the module, and of the graph that it exports to."""
    onnx_from_model(module, reads, folder / "m.onnx")
    costs = graph_costs([folder / "m.onnx"], reads)
    assert not any(cost.note for cost in costs)
    inputs = [torch.from_numpy(x) for x in random_samples(reads, 1).values()]
    return module_macs(module, inputs).total, sum(cost.macs for cost in costs)


SHIPPED = ["mlp", pytest.param("tinynet", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_backbone_that_ships_counts_as_its_graph(name, registry, tmp_path):
    spec = registry.get("backbone", name)
    module, graph = counts(spec.build(), spec.input, tmp_path)
    assert module == graph > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["bert", "electra", "albert", "mpnet", "gpt2", "llama"])
def test_a_repository_of_transformers_counts_as_its_graph(family, tmp_path):
    write_headed(tmp_path, family, "sequence")
    files = {path.name: path for path in tmp_path.iterdir()}
    config = json.loads((tmp_path / "config.json").read_text())
    facts = Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files, sizes=dict.fromkeys(files, 1),
                       digests=dict.fromkeys(files, "0" * 64))  # fmt: skip
    spec, _, module = opened(facts, tmp_path)
    one, other = counts(module, spec.input, tmp_path)
    assert one == other > 0


def test_a_bundle_of_before_is_counted_anew_to_be_compared(small):
    manifest = small.manifest
    assert manifest.counted_at == sizes_counted_at(manifest.input)
    before = replace(small, manifest=replace(manifest, macs=1, counted_at={}))
    assert macs_of(before) == macs_of(small) == manifest.macs > 1
    assert macs_of(replace(small, manifest=replace(manifest, macs=1))) == 1  # as it is recorded
