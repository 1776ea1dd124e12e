"""A step on a model of several graphs: budgets that one of them spoils, and layers that are named in one or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from artifactgraphs import encoders
from onnx import numpy_helper
from rehearsal import prepared, rehearse

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline import layers_in_float
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.layers_in_float import within_budget
from pocketzoo.compress.pipeline.planned_graph import PlannedGraph, PlannedGraphs
from pocketzoo.core.errors import UnknownNameError
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.artifacts.pair_encoders import pair_encoders
from pocketzoo.zoo.catalog.compressor import GraphCompressor, LayerDecision
from pocketzoo.zoo.catalog.dataset import Dataset, Split

CPU = next(t for t in pocketzoo_targets() if t.name == "cpu")
LAYERS = {"image": ("conv", "out"), "words": ("layers.0", "layers.2")}
ALL = [(graph, layer) for graph, layers in LAYERS.items() for layer in layers]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    encoders(folder)
    return pair_encoders({name: folder / f"{name}.onnx" for name in LAYERS}, folder / "both")


@pytest.fixture(scope="module")
def both():
    """Samples of both encoders."""
    random = np.random.default_rng(0)
    samples = [
        {"image": {"pixels": random.normal(size=(1, 8, 8)).astype(np.float32)},
         "words": {"words": random.normal(size=20).astype(np.float32)}}
        for _ in range(24)
    ]  # fmt: skip
    return Dataset("both", (), {n: Split(samples[i::3]) for i, n in enumerate(("train", "val", "test"))}, 0)


# -- budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseConfig:
    """Spoil the weights of each layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisePlan:
    """Layer -> by how much its weight is spoiled."""

    layers: Mapping[str, float] = field(default_factory=dict)


def spoil(model, plan, target):
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(model)
    for tensor in spoiled.graph.initializer:
        if scale := plan.layers.get(tensor.name.removesuffix(".weight")):
            weight = numpy_helper.to_array(tensor)
            noise = np.random.default_rng(1).normal(size=weight.shape)
            tensor.CopyFrom(numpy_helper.from_array((weight + scale * noise).astype(np.float32), tensor.name))
    spoiled.doc_string = " ".join(plan.layers)  # what is still spoiled, for the table
    return spoiled


NOISE = GraphCompressor(
    name="noise", summary="", config=NoiseConfig, plan_type=NoisePlan, apply=spoil, price="bytes",
    plan=lambda model, config, samples: NoisePlan(),
    exclude=lambda plan, layers: NoisePlan(layers={k: v for k, v in plan.layers.items() if k not in layers}),
    describe=lambda plan: [LayerDecision(layer=layer, what="spoiled", precision="noise") for layer in plan.layers],
)  # fmt: skip


def costs(seed):
    """What each layer costs when it is spoiled, and how much all may cost: of 4 layers 0 to 4 stay in float."""
    random = np.random.default_rng(seed)
    table = {key: float(random.choice([0.001, 0.01, 0.1, 1.0])) for key in ALL}
    return table, float(random.uniform(0, 1.2) * sum(table.values()))


def search_within(pair, both, table, budget, folder, monkeypatch):
    """The layers that are left in float, with graphs on which they have that effect and a judge who adds it up."""

    def enough(artifact):
        spoiled = [
            (graph, layer)
            for graph, path in artifact.graphs.items()
            for layer in onnx.load(path).doc_string.split()
            if layer in LAYERS[graph]
        ]
        return sum(table[key] for key in spoiled) <= budget

    monkeypatch.setattr(layers_in_float, "_enough", lambda *_: enough)
    job = prepared(pair.path, data=both, steps=[Int8Config()], samples=8)
    artifact = artifact_of(pair)
    planned = PlannedGraphs(
        {
            name: PlannedGraph(
                onnx.load(artifact.graphs[name]),
                NoisePlan(layers={layer: table[name, layer] for layer in LAYERS[name]}),
            )
            for name in LAYERS
        },
        judge=object(),  # the table stands for it
    )
    attempt = SimpleNamespace(bundle=pair, config=NoiseConfig(), allowed=None, seconds=0.0)
    found = within_budget(attempt, NOISE, planned, job, folder)
    kept = {(name, layer) for name, layers in LAYERS.items() for layer in layers} - {
        (name, layer) for name, graph in found.graphs.items() for layer in graph.plan.layers
    }
    assert set(found.float_layers) == {f"{name}:{layer}" for name, layer in kept}
    assert list(folder.iterdir()) == []
    return kept


@pytest.mark.parametrize("seed", range(12))
def test_no_layer_is_left_in_float_that_the_budget_can_do_without(seed, pair, both, tmp_path, monkeypatch):
    """By all 16 ways to leave layers in float."""
    table, budget = costs(seed)
    kept = search_within(pair, both, table, budget, tmp_path, monkeypatch)
    meet = [
        set(chosen)
        for count in range(len(ALL) + 1)
        for chosen in combinations(ALL, count)
        if sum(cost for key, cost in table.items() if key not in chosen) <= budget
    ]
    assert kept in meet
    assert not [each for each in meet if each < kept], "some could be given back"


@pytest.mark.parametrize("spoiling", ALL)
def test_one_layer_that_spoils_everything_is_the_only_one_left_in_float(spoiling, pair, both, tmp_path, monkeypatch):
    """Also where it is in the last graph: those that are searched before it are not in float for nothing."""
    table = {key: 1.0 if key == spoiling else 0.001 for key in ALL}
    assert search_within(pair, both, table, 0.01, tmp_path, monkeypatch) == {spoiling}


@pytest.mark.usefixtures("untimed")
def test_a_least_sqnr_of_a_pair_is_met_by_all_of_its_outputs(pair, both, tmp_path):
    """Counted anew on the validation samples."""
    from pocketzoo.zoo.artifacts.drivers import open_artifact
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

    bundle = compress(
        pair.path, tmp_path / "out", data=both, steps=[Int8Config(min_sqnr=42.0)], samples=8, keep_slower=True,
        accept=True,
    )  # fmt: skip
    job = prepared(pair.path, data=both, steps=[Int8Config()], samples=8)
    signal, noise = {}, {}
    with (
        open_artifact(artifact_of(bundle), OnnxRunner) as a,
        open_artifact(artifact_of(bundle, "cpu"), OnnxRunner) as b,
    ):
        for x, _ in job.validation:
            before, after = a.infer(x), b.infer(x)
            for name, out in before.items():
                signal[name] = signal.get(name, 0.0) + np.square(out.astype(np.float64)).sum()
                noise[name] = noise.get(name, 0.0) + np.square(out.astype(np.float64) - after[name]).sum()
    counted = {name: 10 * np.log10(signal[name] / noise[name]) for name in signal if noise[name]}
    assert counted
    assert min(counted.values()) >= 42.0 - 0.01
    report = bundle.manifest.steps[-1].report
    assert report.sqnr == pytest.approx(min(counted.values()), abs=0.01)
    assert report.float_layers
    assert len(report.float_layers) < 4


# -- layers by name


@pytest.mark.parametrize("run", ["compress", "dry run"])
@pytest.mark.parametrize(("skip", "nearest"), [("layers.3", "layers.2"), ("cnov", "conv"), ("image:*", "known: ")])
def test_a_layer_that_no_graph_has_is_refused(run, skip, nearest, pair, both, tmp_path, refused):
    """As it is where a model has one graph."""
    settings = {"data": both, "steps": [Int8Config(skip=("conv", skip))], "samples": 8}
    with refused(UnknownNameError, f"skip names no layer: {skip!r}", hint=nearest):
        compress(pair.path, tmp_path / "out", **settings) if run == "compress" else rehearse(pair.path, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("skip", [("conv",), ("layers.*",), ("conv", "layers.0"), ("*",)])
def test_a_layer_that_one_graph_has_is_left_in_float_there(skip, pair, both, tmp_path):
    from pocketzoo.core.name_patterns import matches

    settings = {"data": both, "steps": [Int8Config(skip=skip)], "samples": 8, "keep_slower": True, "accept": True}
    (step,) = compress(pair.path, tmp_path / "out", **settings).manifest.steps
    planned = {name: tuple(step.graphs[name]["layers"]) for name in LAYERS}
    assert planned == {name: tuple(n for n in layers if not matches(n, skip)) for name, layers in LAYERS.items()}
    assert step.config == {**step.config, "skip": list(skip)}
