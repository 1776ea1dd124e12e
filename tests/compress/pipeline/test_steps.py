from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import reports_of_before
import smallnet
from feeds import arrays, only
from onnx import helper, numpy_helper
from rehearsal import prepared
from told import Told

from pocketzoo.compress.configs import DistillConfig, Int8Config, PruneConfig
from pocketzoo.compress.pipeline import graph_step, layers_in_float, step_report
from pocketzoo.compress.pipeline import steps as steps_
from pocketzoo.compress.pipeline.acceptance import Rejected, worse
from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.graph_scores import Race
from pocketzoo.compress.pipeline.layers_in_float import _enough
from pocketzoo.compress.pipeline.planned_graph import PlannedGraph, PlannedGraphs
from pocketzoo.compress.pipeline.step_report import with_report
from pocketzoo.compress.pipeline.steps import CLOSE, _allowed, _end, take
from pocketzoo.compress.plans import DistillPlan, Int8Plan, PrunePlan
from pocketzoo.compress.quantization.mixed_precision import FloatEffect
from pocketzoo.core.arrays import batch_size
from pocketzoo.core.errors import DataError, RecipeError, RejectedError
from pocketzoo.plugins.compressors import pocketzoo_compressors
from pocketzoo.zoo.artifacts.driver import Artifact, Graphs
from pocketzoo.zoo.artifacts.drivers import artifact_of, main_files
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Draft, read_bundle, updating
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.bundles.step_record import Change, Rejection, StepRecord, StepReport
from pocketzoo.zoo.catalog.compressor import GraphCompressor, ModuleCompressor
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.grouping.left_out import SourceCounts
from pocketzoo.zoo.data.load_data import load_data


@dataclass(frozen=True, slots=True, kw_only=True)
class BloatConfig:
    """A step that does no good."""

    width: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BloatPlan:
    width: int = 64


def bloat(model: onnx.ModelProto, plan: BloatPlan, target: object) -> onnx.ModelProto:
    """Adds to the logits a large product with zeros: the same answers, later."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    graph, last = twin.graph, twin.graph.output[0].name
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == last:
                node.output[i] = "inner"
    outputs = 10
    wide = [np.zeros(s, np.float32) for s in ((outputs, plan.width), (plan.width, plan.width), (plan.width, outputs))]
    before = "inner"
    for i, array in enumerate(wide):
        graph.initializer.append(numpy_helper.from_array(array, f"wide{i}"))
        graph.node.append(helper.make_node("MatMul", [before, f"wide{i}"], [f"after{i}"]))
        before = f"after{i}"
    graph.node.append(helper.make_node("Add", ["inner", before], [last]))
    return twin


@pytest.fixture(scope="module")
def bloating() -> Registry:
    plugin = ModuleType("bloating")

    @hookimpl
    def pocketzoo_compressors():
        return [
            GraphCompressor(
                name="bloat",
                summary="",
                config=BloatConfig,
                plan_type=BloatPlan,
                plan=lambda model, config, samples: BloatPlan(width=config.width),
                apply=bloat,
            )
        ]

    plugin.pocketzoo_compressors = pocketzoo_compressors
    return Registry(create_manager(points=[], extra=[plugin, smallnet]))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def few(digits) -> Dataset:
    cut = {name: Split(s.samples[:40], s.targets[:40]) for name, s in digits.splits.items()}
    return replace(digits, name="few", splits=cut)


INT8 = next(each for each in pocketzoo_compressors() if each.name == "int8")


def graph_compressor() -> GraphCompressor:
    """One that can do nothing but plan and apply."""
    return GraphCompressor(name="g", summary="", config=BloatConfig, plan_type=BloatPlan, plan=None, apply=None)


def attempt_of(compressor) -> Attempt:
    nothing = Artifact(graphs={})
    return Attempt(bundle=None, compressor=compressor, config=None, folder=Path(), began_with=nothing)


def accuracy(graph, dataset, spec):
    x, y = next(iter(arrays(Batches(dataset.split("val"), spec, size=1000))))
    with OnnxRunner(graph) as runner:
        return float(np.mean(only(runner, x).argmax(1) == y))


def test_each_step_says_what_it_was_before_and_after(compressed, fitted):
    manifest = compressed.manifest
    reports = [step.report for step in manifest.steps]
    for before, after in pairwise(reports):
        for name in ("bytes", "metric", "agreement"):
            assert getattr(before, name).after == getattr(after, name).before
    assert reports[0].bytes.before == fitted.graph("").stat().st_size
    assert reports[1].bytes.after == compressed.graph("").stat().st_size
    assert reports[0].macs.before == fitted.manifest.macs
    assert reports[1].macs.after == manifest.macs
    for report in reports:
        assert report.seconds > 0
        assert report.latency.before > 0
        assert report.samples == 48


def test_what_a_step_reports_can_be_recounted(compressed, fitted, digits):
    split = digits.split("val")
    cut = replace(digits, splits={**digits.splits, "val": Split(split.samples[:48], split.targets[:48])})
    report = compressed.manifest.steps[-1].report
    assert report.metric.before == accuracy(compressed.graph(""), cut, fitted.manifest.input)
    assert report.metric.after == accuracy(compressed.graph("cpu"), cut, fitted.manifest.input)


def test_a_step_that_makes_the_model_larger_is_not_shipped(bloating, small, few, tmp_path):
    steps = [PruneConfig(ratio=0.3, granularity="weight"), BloatConfig(width=256)]
    bundle = compress(small.path, tmp_path / "out", data=few, steps=steps, samples=8, registry=bloating)
    assert set(bundle.encodings()) == {""}
    assert [step.compressor for step in bundle.manifest.steps] == ["prune"]
    (no,) = bundle.manifest.rejected
    assert (no.compressor, no.cause) == ("bloat", "larger")
    assert no.why.startswith("larger: ")
    assert no.config == {"width": 256}
    assert read_bundle(tmp_path / "out").manifest.name == "out"


def test_where_no_step_is_left_nothing_is_written(bloating, small, few, tmp_path, refused):
    steps = [BloatConfig(width=256)]
    with refused(RejectedError, "nothing was written: bloat: larger: ", hint="--keep-slower") as caught:
        compress(small.path, tmp_path / "out", data=few, steps=steps, samples=8, registry=bloating)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("untimed")
def test_what_is_slower_or_larger_is_kept_on_request(bloating, small, few, tmp_path):
    steps = [BloatConfig(width=256)]
    bundle = compress(
        small.path, tmp_path / "out", data=few, steps=steps, samples=8, registry=bloating, keep_slower=True
    )
    assert set(bundle.encodings()) == {"", "cpu"}
    assert bundle.manifest.rejected == ()
    assert bundle.manifest.steps[-1].report.agreement.after == 1.0


def test_one_target_may_be_rejected_alone(bloating, small, few, tmp_path, monkeypatch):
    """Where a graph runs, slower is slower; what it takes elsewhere is not known here."""
    monkeypatch.setattr("pocketzoo.compress.pipeline.acceptance.LARGER", 1e9)
    monkeypatch.setattr(
        "pocketzoo.compress.pipeline.step_report.race", lambda *graphs, **more: Race(before=1.0, after=2.0)
    )
    steps = [BloatConfig(width=1024)]
    bundle = compress(
        small.path,
        tmp_path / "out",
        data=few,
        steps=steps,
        samples=8,
        registry=bloating,
        targets=("cpu", "tensorrt-rtx"),
    )
    assert set(bundle.encodings()) == {"", "tensorrt-rtx"}
    (no,) = bundle.manifest.steps[-1].report.rejected
    assert (no.target, no.why.split(":")[0]) == ("cpu", "slower")


@pytest.mark.usefixtures("untimed")
def test_a_budget_reduces_what_is_removed_until_it_is_kept(small, digits, tmp_path, small_registry):
    asked, told = PruneConfig(ratio=0.97, granularity="weight"), Told()
    bundle = compress(
        small.path,
        tmp_path / "out",
        data=digits,
        steps=[asked],
        samples=16,
        max_drop=0.02,
        keep_slower=True,
        registry=small_registry,
        progress=told,
    )
    spec = small.manifest.input
    assert accuracy(bundle.graph(""), digits, spec) >= accuracy(small.graph(""), digits, spec) - 0.02
    (step,) = bundle.manifest.steps
    assert 0 < step.config["ratio"] < 0.97
    tried = [no.config["ratio"] for no in step.report.rejected]
    assert tried[0] == 0.97
    assert step.config["ratio"] < min(tried)
    assert min(tried) - step.config["ratio"] <= 0.97 / 8 + 1e-9
    assert all("accuracy falls by" in no.why for no in step.report.rejected)
    said = [line for line in told.said if "rejected" in line]
    assert said == [f"prune: rejected: {no.why}" for no in step.report.rejected]
    said = [line for line in told.said if "trying" in line]
    shares = [ratio / 0.97 for ratio in tried[1:]]  # those that were kept are not told apart in the report
    assert said[0] == "prune: trying 50% of the requested reduction"
    assert {f"prune: trying {share:.0%} of the requested reduction" for share in shares} <= set(said)
    assert f"prune: trying {step.config['ratio'] / 0.97:.0%} of the requested reduction" in said
    assert len(said) == len(set(said)) == 3  # halves, quarters, eighths


@pytest.mark.usefixtures("untimed")
def test_a_budget_is_held_after_the_step_that_heals(small, few, tmp_path, small_registry):
    """What pruning alone may not lose, it may before it is healed."""
    steps = [PruneConfig(ratio=0.95, granularity="weight", refit=False), DistillConfig(epochs=3)]
    given = {"registry": small_registry, "data": few, "samples": 40, "keep_slower": True}
    alone = compress(small.path, tmp_path / "alone", steps=steps[:1], accept=True, **given)
    lost = alone.manifest.steps[0].report
    drop = lost.metric.before - lost.metric.after
    assert drop > 0.1
    bundle = compress(small.path, tmp_path / "both", steps=steps, max_drop=drop, **given)
    prune, distill = bundle.manifest.steps
    assert prune.config["ratio"] == 0.95
    assert prune.report.rejected == ()
    assert distill.report.metric.after >= lost.metric.before - drop
    assert distill.report.metric.before == lost.metric.after


@pytest.mark.usefixtures("untimed")
def test_int8_within_a_budget_leaves_layers_in_float(small, digits, tmp_path, small_registry):
    given = {
        "registry": small_registry,
        "data": digits,
        "steps": [Int8Config(ranges="minmax")],
        "samples": 32,
        "keep_slower": True,
    }
    whole = compress(small.path, tmp_path / "whole", **given)
    goal = whole.manifest.steps[-1].report.sqnr + 2
    bundle = compress(small.path, tmp_path / "out", **given, min_sqnr=goal)
    step = bundle.manifest.steps[-1]
    assert step.config["min_sqnr"] == goal
    assert step.report.sqnr >= goal
    kept = step.report.float_layers
    assert kept
    assert set(kept).isdisjoint(step.plan["layers"])
    precision = {row.layer: row.precision for row in bundle.manifest.layers["cpu"]}
    assert {layer for layer, what in precision.items() if what == "float32"} == set(kept)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"max_drop": 1.0}, RecipeError, "max_drop cannot be 1.0"),
        ({"max_drop": -0.1}, RecipeError, "max_drop cannot be -0.1"),
        ({"min_sqnr": 25.0}, RecipeError, "min_sqnr needs a step whose config takes it"),
        ({"min_sqnr": -1.0, "steps": [Int8Config()]}, RecipeError, "min_sqnr cannot be -1.0"),
    ],
)
def test_budgets_that_cannot_be_are_refused(changes, kind, message, small, few, tmp_path, refused, small_registry):
    given = {"registry": small_registry, "data": few, "steps": [PruneConfig()], "samples": 8, **changes}
    with refused(kind, message):
        compress(small.path, tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_needs_validation_samples(small, few, tmp_path, refused, small_registry):
    bare = replace(few, splits={**few.splits, "val": Split(few.split("val").samples[:0])})
    with refused(DataError, "no validation samples", hint="more data"):
        compress(
            small.path,
            tmp_path / "out",
            data=bare,
            steps=[PruneConfig()],
            samples=8,
            max_drop=0.01,
            registry=small_registry,
        )


@pytest.mark.parametrize(
    ("budget", "steps", "allowed"),
    [
        (None, 3, [None, None, None]),
        (0.0, 2, [0.0, 0.0]),
        (0.03, 1, [0.03]),
        (0.03, 2, [0.015, 0.03]),
        (0.06, 3, [0.02, 0.04, 0.06]),
    ],
)
def test_a_budget_is_divided_among_the_steps(budget, steps, allowed, small, few, small_registry):
    """Equally, and what one leaves the next one has as well: the first must not take it all."""
    asked = [PruneConfig(granularity="weight")] * steps
    job = prepared(small.path, data=few, steps=asked, max_drop=budget, samples=8, registry=small_registry)
    assert [_allowed(job, number) for number in range(steps)] == pytest.approx(allowed)


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_each_step_may_spend_its_own_part_of_a_budget_and_what_was_left(small, digits, tmp_path, small_registry):
    """Of three steps a third each: the first must not take it all."""
    steps = [PruneConfig(ratio=r, granularity="weight", refit=False) for r in (0.97, 0.98, 0.99)]
    given = {"data": digits, "samples": 8, "keep_slower": True, "registry": small_registry}
    bundle = compress(small.path, tmp_path / "out", steps=steps, max_drop=0.06, **given)
    first = accuracy(small.graph(""), digits, small.manifest.input)
    tried = [step.report.rejected for step in bundle.manifest.steps]
    tried += [no.tried or (no,) for no in bundle.manifest.rejected]
    said = [no.why.partition(" points, ")[2] for nos in tried for no in nos if no.cause == "budget"]
    assert list(dict.fromkeys(said)) == [f"{points} are allowed so far" for points in ("2.00", "4.00", "6.00")]
    for number, step in enumerate(bundle.manifest.steps, 1):
        assert step.report.metric.after >= first - 0.02 * number - 1e-9


@pytest.mark.parametrize("cause", ["slower", "unchanged", "larger"])
@pytest.mark.usefixtures("untimed")
def test_less_of_a_step_is_tried_for_a_budget_alone(cause, small, few, tmp_path, small_registry, monkeypatch, refused):
    """What is slower, larger or nothing as it was asked for would be no better with less of it removed."""
    took = 2.0 if cause == "slower" else 1.0
    monkeypatch.setattr(
        "pocketzoo.compress.pipeline.step_report.race", lambda *graphs, **more: Race(before=1.0, after=took)
    )
    if cause == "larger":
        monkeypatch.setattr("pocketzoo.compress.pipeline.acceptance.LARGER", 0.0)
    told = Told()
    asked = {"slower": PruneConfig(ratio=0.3), "unchanged": PruneConfig(ratio=0.0, granularity="weight")}
    steps = [asked.get(cause, PruneConfig(ratio=0.3, granularity="weight"))]
    with refused(RejectedError, "nothing was written: prune: "):
        compress(small.path, tmp_path / "out", data=few, steps=steps, samples=8, max_drop=0.9,
                 registry=small_registry, progress=told)  # fmt: skip
    assert [line for line in told.said if "rejected" in line or "trying" in line] == [
        line for line in told.said if line.startswith("prune: rejected: ")
    ]
    assert sum(line == "prune: planning" for line in told.said) == 1


# -- what is rejected though nobody set a budget


@pytest.mark.usefixtures("untimed")
def test_what_loses_a_fifth_of_what_is_above_chance_is_not_shipped(small, few, tmp_path, small_registry, refused):
    given = {"registry": small_registry, "data": few, "samples": 40, "keep_slower": True}
    steps = [PruneConfig(ratio=0.95, granularity="weight", refit=False)]
    with refused(RejectedError, "prune: accuracy falls from", hint="--accept"):
        compress(small.path, tmp_path / "out", steps=steps, **given)
    assert list(tmp_path.iterdir()) == []
    report = compress(small.path, tmp_path / "out", steps=steps, accept=True, **given).manifest.steps[0].report
    val = few.split("val").targets
    chance = np.bincount(val).max() / len(val)
    assert report.metric.before - report.metric.after > 0.2 * (report.metric.before - chance)


@pytest.mark.usefixtures("untimed")
def test_the_rest_of_a_recipe_goes_on_without_what_is_rejected(small, few, tmp_path, small_registry):
    steps = [PruneConfig(ratio=0.95, granularity="weight", refit=False), Int8Config()]
    given = {"registry": small_registry, "data": few, "samples": 16, "keep_slower": True}
    manifest = compress(small.path, tmp_path / "out", steps=steps, **given).manifest
    assert [step.compressor for step in manifest.steps] == ["int8"]
    assert [no.cause for no in worse(manifest)] == ["floor"]


@pytest.mark.usefixtures("untimed")
def test_what_repairs_a_step_may_bring_it_back_above_the_floor(small, digits, tmp_path, small_registry):
    steps = [PruneConfig(ratio=0.8, granularity="weight", refit=False), DistillConfig(epochs=20)]
    given = {"registry": small_registry, "data": digits, "samples": 256, "keep_slower": True}
    told = Told()
    manifest = compress(small.path, tmp_path / "out", steps=steps, **given, progress=told).manifest
    prune, distill = (step.report for step in manifest.steps)
    (said,) = (line for line in told.said if "continuing to the distillation step after it" in line)
    assert said.startswith("prune: accuracy falls from ")
    assert not any("rejected" in line for line in told.said)
    chance = np.bincount(digits.split("val").targets[: prune.samples]).max()
    had = prune.metric.before - chance / prune.samples
    lost = [prune.metric.before - report.metric.after for report in (prune, distill)]
    assert lost[0] > 0.2 * had >= lost[1]
    assert list(worse(manifest)) == []


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    "step",
    [PruneConfig(ratio=0.001), PruneConfig(ratio=0.0, granularity="weight"), Int8Config(skip=("*",))],
    ids=["channels", "weights", "int8"],
)
def test_a_step_that_changes_nothing_is_rejected(step, small, few, tmp_path, small_registry, refused):
    given = {"registry": small_registry, "data": few, "samples": 8, "keep_slower": True, "steps": [step]}
    with refused(RejectedError, "it changed nothing", hint="--accept"):
        compress(small.path, tmp_path / "out", **given)
    kept = compress(small.path, tmp_path / "out", **given, accept=True)
    assert len(kept.manifest.steps) == 1
    assert kept.manifest.rejected == ()


# -- what becomes int8 is timed as such


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("int8", [False, True])
def test_a_race_is_run_on_what_ships(int8, small, few, tmp_path, small_registry, monkeypatch):
    raced = []

    def race(before, after, x):
        models = [onnx.load(path) for graphs in (before, after) for path in main_files(graphs)]
        kinds = [{n.op_type for n in model.graph.node} for model in models]
        raced.append(["QuantizeLinear" in found for found in kinds])
        return Race(before=1.0, after=1.0)

    monkeypatch.setattr("pocketzoo.compress.pipeline.step_report.race", race)
    steps = [PruneConfig(ratio=0.5), *([Int8Config()] if int8 else [])]
    given = {"registry": small_registry, "data": few, "samples": 16, "accept": True}
    bundle = compress(small.path, tmp_path / "out", steps=steps, **given)
    assert raced == ([[True, True], [False, True]] if int8 else [[False, False]])
    assert bundle.manifest.steps[0].report.latency_of == ("int8 for cpu" if int8 else "")


@pytest.mark.parametrize(("target", "multiple"), [("cpu", 16), ("openvino", 0)])
def test_what_becomes_int8_keeps_the_channels_that_its_kernels_are_fast_for(
    target, multiple, small, few, small_registry
):
    given = {"registry": small_registry, "data": few, "samples": 8, "targets": (target,)}
    job = prepared(small.path, steps=[PruneConfig(), Int8Config()], **given)
    assert job.module_target.depthwise_multiple == multiple
    assert job.module_target.costs == job.target.int8_costs
    assert prepared(small.path, steps=[PruneConfig()], **given).module_target == job.target


# -- what is enough, and what is said of what is left


@dataclass(frozen=True)
class Measured:
    """A judge that has measured."""

    sqnr: float | None = None
    lost: float = 0.0
    metric: str = "accuracy"
    outputs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def score(self, graph: Path) -> Measured:
        return self

    def drop(self, graph: Path) -> float:
        return self.lost

    def told(self, drop: float, allowed: float, *, so_far: bool = True) -> str:
        return f"{self.metric} falls by {drop}, {allowed} are allowed"


@pytest.mark.parametrize(
    ("own", "whole", "config", "allowed", "enough"),
    [
        (Measured(20.0), Measured(), {"min_sqnr": 20.0}, None, True),
        (Measured(19.9), Measured(), {"min_sqnr": 20.0}, None, False),
        (Measured(None), Measured(), {"min_sqnr": 20.0}, None, True),
        (Measured(lost=0.25), Measured(), {"max_drop": 0.25}, None, True),
        (Measured(lost=0.26), Measured(), {"max_drop": 0.25}, None, False),
        (Measured(lost=0.9), Measured(lost=0.25), {}, 0.25, True),
        (Measured(), Measured(lost=0.26), {}, 0.25, False),
        (Measured(19.0, 0.0), Measured(), {"min_sqnr": 20.0, "max_drop": 0.5}, 0.5, False),
        (Measured(21.0, 0.6), Measured(), {"min_sqnr": 20.0, "max_drop": 0.5}, 0.5, False),
    ],
)
def test_an_int8_graph_is_enough_if_it_keeps_every_budget_that_there_is(own, whole, config, allowed, enough):
    job = SimpleNamespace(judge=whole)
    assert _enough(own, INT8, Int8Config(**config), job, allowed)(Path("graph")) == enough


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Int8Plan(), ""),
        (Int8Plan(left={"a": "it is odd"}), ": a is left unchanged, as it is odd"),
        (Int8Plan(left={"a": "it is odd", "b": "so", "c": "so"}), ": a is left unchanged, as it is odd, and 2 more"),
        (PrunePlan(dense={"a": "grouped"}), ": a is left unchanged, as grouped"),
        (PrunePlan(dense={"a": "grouped"}, left={"b": "odd"}), ": b is left unchanged, as odd, and 1 more"),
        (DistillPlan(), ""),
    ],
)
def test_what_is_left_is_said_with_the_first_reason(plan, said):
    compressor = next(each for each in pocketzoo_compressors() if each.plan_type is type(plan))
    assert attempt_of(compressor).left_alone(plan) == said


def test_a_report_goes_to_the_step_it_is_of(small):
    own = StepReport(seconds=1.0)
    steps = tuple(StepRecord(compressor=name, config={}, plan={}, report=own) for name in "abc")
    manifest = replace(small.manifest, steps=steps)
    for back, name in ((1, "c"), (2, "b"), (3, "a")):
        found = with_report(manifest, back, samples=7)
        assert {s.compressor: s.report for s in found.steps if s.report != own} == {name: replace(own, samples=7)}
    assert with_report(manifest, seconds=2.0).steps[-1].report == StepReport(seconds=2.0)


@pytest.mark.parametrize(
    ("steps", "ends"),
    [([PruneConfig()], [1]), ([PruneConfig(), DistillConfig()], [2, 2]),
     ([PruneConfig(), DistillConfig(), DistillConfig(), PruneConfig(), Int8Config()], [3, 3, 3, 4, 5])],
)  # fmt: skip
def test_a_step_is_held_with_those_that_repair_it(steps, ends, small, few, small_registry):
    job = prepared(small.path, data=few, steps=steps, samples=8, registry=small_registry)
    assert [_end(job, number) for number in range(len(steps))] == ends


def test_what_is_rejected_is_said_with_its_reason(bloating, small, few, tmp_path):
    told = Told()
    steps = [PruneConfig(ratio=0.3, granularity="weight"), BloatConfig(width=256)]
    given = {"data": few, "samples": 8, "registry": bloating}
    (no,) = compress(small.path, tmp_path / "out", steps=steps, **given, progress=told).manifest.rejected
    assert [line for line in told.said if "rejected" in line] == [f"bloat: rejected: {no.why}"]


# -- the search for as much of a step as a budget allows


def thin(**fields) -> ModuleCompressor:
    return ModuleCompressor(
        name="thin", summary="", config=BloatConfig, plan_type=BloatPlan, plan=None, apply=None, **fields
    )


def less(config: BloatConfig, share: float) -> BloatConfig:
    return BloatConfig(width=int(config.width * share))


REPAIR = (thin(distill=lambda *_: None), BloatConfig(width=1))


def no(width: int, cause: str) -> Rejection:
    """What is recorded of a try."""
    why, report = f"{cause} at {width}", StepReport(samples=width)
    return Rejection(compressor="thin", provider="acme 1", config={"width": width}, why=why, cause=cause, report=report)


class Tried:
    """``take`` with attempts that end as a table says: by the width that is left and the number of steps."""

    def __init__(self, small, folder, monkeypatch, outcome, *, configs=None, max_drop=0.1) -> None:
        self.small, self.outcome, self.attempts, self.told = small, outcome, [], Told()
        asked = [(thin(weaker=less), BloatConfig(width=64))] if configs is None else configs
        settings = SimpleNamespace(max_drop=max_drop)
        self.job = SimpleNamespace(configs=asked, settings=settings, progress=self.told, providers={"thin": "acme 1"})
        self.desk = SimpleNamespace(folder=folder, keep=lambda end, path: (end, path))
        monkeypatch.setattr(steps_, "_attempt", self.attempt)

    def attempt(self, bundle, numbers, config, job, folder) -> None:
        assert (bundle, job) == (self.small, self.job)
        self.attempts.append((list(numbers), config.width, folder.name))
        if cause := self.outcome(config.width, len(numbers)):
            raise Rejected(f"{cause} at {config.width}", StepReport(samples=config.width), cause)
        with updating(bundle, folder) as draft:
            made = tuple(StepRecord(compressor=f"s{n}", config={}, plan={}) for n in numbers)
            draft.manifest = replace(bundle.manifest, steps=made)

    def take(self, number=0):
        end, path = take(self.small, number, self.job, self.desk)
        return end, path.name, read_bundle(path).manifest


def test_a_step_that_pays_is_kept_as_it_is(small, tmp_path, monkeypatch):
    for max_drop in (None, 0.0, 0.1):
        run = Tried(small, tmp_path / str(max_drop), monkeypatch, lambda *_: None, max_drop=max_drop)
        end, name, manifest = run.take()
        assert (end, name, manifest.rejected) == (1, "trial-1.0", ())
        assert [step.report for step in manifest.steps] == [StepReport()]
        assert (run.attempts, run.told.said) == ([([0], 64, "trial-1.0")], [])


@pytest.mark.parametrize(
    ("bad", "widths", "kept"),
    [
        ({64: "budget"}, [64, 32, 48, 56], 56),
        ({64: "floor"}, [64, 32, 48, 56], 56),
        ({64: "budget", 32: "budget", 24: "budget"}, [64, 32, 16, 24], 16),
        ({64: "budget", 32: "floor", 16: "slower"}, [64, 32, 16, 8], 8),
        ({64: "budget", 32: "unchanged", 56: "budget"}, [64, 32, 48, 56], 48),
        ({64: "budget", 48: "larger"}, [64, 32, 48, 40], 40),
    ],
)
def test_half_of_what_is_left_is_tried_until_it_is_close(bad, widths, kept, small, tmp_path, monkeypatch):
    assert CLOSE == 1 / 8
    run = Tried(small, tmp_path, monkeypatch, lambda width, _: bad.get(width))
    end, name, manifest = run.take()
    assert [width for _, width, _ in run.attempts] == widths
    assert [folder for *_, folder in run.attempts] == [f"trial-{width / 64}" for width in widths]
    assert (end, name) == (1, "made")
    tried = [no(width, bad[width]) for width in widths if width in bad]
    (step,) = manifest.steps
    assert step.report == StepReport(rejected=tuple(tried))
    assert manifest.rejected == ()
    wanted = []
    for i, width in enumerate(widths):
        wanted += [f"thin: trying {width / 64:.0%} of the requested reduction"] if i else []
        wanted += [f"thin: rejected: {bad[width]} at {width}"] if width in bad else []
    assert run.told.said == wanted
    assert read_bundle(tmp_path / f"trial-{kept / 64}").manifest.steps[0].report == StepReport()


def test_where_no_part_pays_the_model_is_as_it_was_and_all_is_told(small, tmp_path, monkeypatch):
    before = Rejection(compressor="other", why="w", cause="slower")
    copy = replace(small, manifest=replace(small.manifest, rejected=(before,)))
    run = Tried(copy, tmp_path, monkeypatch, lambda *_: "budget")
    end, name, manifest = run.take()
    assert [width for _, width, _ in run.attempts] == [64, 32, 16, 8]
    tried = [no(width, "budget") for width in (64, 32, 16, 8)]
    assert (end, name, manifest.steps) == (1, "made", small.manifest.steps)
    assert manifest.rejected == (before, replace(tried[0], tried=tuple(tried)))


@pytest.mark.parametrize("cause", ["unchanged", "larger", "slower"])
def test_what_a_budget_is_not_about_ends_the_search(cause, small, tmp_path, monkeypatch):
    run = Tried(small, tmp_path, monkeypatch, lambda *_: cause)
    end, _, manifest = run.take()
    assert (end, len(run.attempts), len(manifest.rejected)) == (1, 1, 1)
    assert manifest.rejected[0].tried == ()
    assert run.told.said == [f"thin: rejected: {cause} at 64"]


@pytest.mark.parametrize(("weaker", "max_drop"), [(None, 0.1), (less, None)])
def test_without_a_budget_or_a_weaker_form_there_is_one_try(weaker, max_drop, small, tmp_path, monkeypatch):
    configs = [(thin(weaker=weaker), BloatConfig(width=64))]
    run = Tried(small, tmp_path, monkeypatch, lambda *_: "budget", configs=configs, max_drop=max_drop)
    assert len(run.take()[2].rejected) == 1
    assert len(run.attempts) == 1


def test_below_the_floor_the_steps_that_repair_it_are_taken_with_it(small, tmp_path, monkeypatch):
    asked = [(thin(), BloatConfig(width=9)), (thin(weaker=less), BloatConfig(width=64)), REPAIR, REPAIR]
    run = Tried(small, tmp_path, monkeypatch, lambda _, n: "floor" if n == 1 else None, configs=asked, max_drop=None)
    end, name, manifest = run.take(1)
    assert (end, name, len(manifest.steps)) == (4, "trial-1.0", 3)
    assert run.attempts == [([1], 64, "trial-1.0"), ([1, 2, 3], 64, "trial-1.0")]
    assert run.told.said == ["thin: floor at 64; continuing to the distillation step after it"]
    run = Tried(small, tmp_path / "b", monkeypatch, lambda *_: "floor", configs=asked, max_drop=None)
    assert (run.take(1)[0], [len(n) for n, *_ in run.attempts]) == (4, [1, 3])
    run = Tried(small, tmp_path / "c", monkeypatch, lambda *_: "slower", configs=asked, max_drop=None)
    assert (run.take(1)[0], [len(n) for n, *_ in run.attempts]) == (2, [1])
    # Under a budget they are from the first; the report is that of the step, not of what repairs it.
    run = Tried(small, tmp_path / "d", monkeypatch, lambda w, _: "budget" if w == 64 else None, configs=asked)
    end, _, manifest = run.take(1)
    assert (end, [n for n, *_ in run.attempts]) == (4, [[1, 2, 3]] * 4)
    assert [bool(step.report.rejected) for step in manifest.steps] == [True, False, False]


@pytest.mark.parametrize("graph", [False, True])
def test_steps_that_are_held_together_work_on_one_another(graph, small, tmp_path, monkeypatch):
    taken = []

    def step(kind):
        def taking(attempt, compressor, job):
            assert compressor is attempt.compressor
            taken.append((kind, attempt))
            return f"made by {len(taken)}"

        return taking

    monkeypatch.setattr(steps_, "take_module_step", step("module"))
    monkeypatch.setattr(steps_, "take_graph_step", step("graph"))
    last = GraphCompressor(name="g", summary="", config=BloatConfig, plan_type=BloatPlan, plan=None, apply=None)
    configs = [(thin(), 0), (thin(), 1), (thin(), 2), (last if graph else thin(), 3)]
    job = SimpleNamespace(configs=configs, settings=SimpleNamespace(max_drop=0.4), providers={"thin": "acme 1"})
    steps_._attempt(small, range(1, 4), "weaker", job, tmp_path / "trial")
    assert [kind for kind, _ in taken] == ["module", "module", "graph" if graph else "module"]
    found = [a for _, a in taken]
    assert [a.bundle for a in found] == [small, "made by 1", "made by 2"]
    assert [a.config for a in found] == ["weaker", 2, 3]
    assert [a.folder.name for a in found] == ["trial-1", "trial-2", "trial"]
    assert [(a.first, a.last) for a in found] == [(True, False), (False, False), (False, True)]
    assert [a.allowed for a in found] == [None, None, pytest.approx(0.4)]
    assert [a.began_with for a in found] == [artifact_of(small)] * 3
    taken.clear()
    steps_._attempt(small, range(2), "weaker", job, tmp_path / "trial")
    assert taken[-1][1].allowed == pytest.approx(0.2)


# -- judging the graphs of several targets


def judged(monkeypatch, tmp_path, outcomes):
    """``judge_graphs`` and ``accepted`` with graphs for each of some targets, and how they are judged.

    Each has one of its own, one in float that all share, and one that lies elsewhere, in the bundle it was made from.
    """
    told, draft, applied = Told(), Draft(tmp_path / "draft"), []
    (tmp_path / "bundle").mkdir(parents=True)
    draft.folder.mkdir()
    shared, elsewhere = draft.mark("float.onnx", graph="b"), tmp_path / "bundle" / "c.onnx"
    for path in (shared, elsewhere):
        path.write_bytes(b"graph")
    for name in outcomes:
        path = draft.mark(f"{name}.onnx", target=name)
        path.write_bytes(b"graph")
        artifact = Artifact(graphs={MODEL: path, "b": shared, "c": elsewhere})
        applied.append(graph_step.AppliedGraphs(SimpleNamespace(name=name), artifact, False))

    def judge(attempt, compressor, planned, graphs, job):
        if cause := outcomes[graphs.target.name]:
            raise Rejected(f"{cause} there", StepReport(latency_of=graphs.target.name), cause)
        return StepReport(latency_of=f"fine: {graphs.target.name}")

    monkeypatch.setattr(graph_step, "_judge", judge)
    attempt = SimpleNamespace(provider="acme 1", config=BloatConfig(width=2))
    compressor, job = SimpleNamespace(name="bloat"), SimpleNamespace(progress=told)
    measured = graph_step.judge_graphs(attempt, compressor, None, applied, job)
    found = graph_step.accepted(attempt, compressor, applied, measured, job, draft)
    assert elsewhere.is_file()
    return found, told.said, sorted(draft.kinds), sorted(path.name for path in draft.folder.iterdir())


def test_targets_are_rejected_one_by_one(monkeypatch, tmp_path):
    found, said, kinds, left = judged(monkeypatch, tmp_path, {"a": None, "b": "slower", "c": None, "d": "larger"})
    assert {name: each.latency_of for name, each in found.reports.items()} == {"a": "fine: a", "c": "fine: c"}
    assert found.rejected == [
        Rejection(
            compressor="bloat",
            provider="acme 1",
            config={"width": 2},
            target=name,
            why=f"{cause} there",
            cause=cause,
            report=StepReport(latency_of=name),
        )
        for name, cause in (("b", "slower"), ("d", "larger"))
    ]
    assert said == ["bloat for b: rejected: slower there", "bloat for d: rejected: larger there"]
    assert kinds == left == ["a.onnx", "c.onnx", "float.onnx"]


def test_where_all_targets_are_rejected_so_is_the_step(monkeypatch, tmp_path):
    with pytest.raises(Rejected) as caught:
        judged(monkeypatch, tmp_path / "two", {"a": "slower", "b": "larger"})
    assert caught.value.why == "a: slower there; b: larger there"
    assert (caught.value.cause, caught.value.report) == ("slower", StepReport(latency_of="a"))
    with pytest.raises(Rejected) as caught:
        judged(monkeypatch, tmp_path / "one", {"only": "budget"})
    assert (caught.value.why, caught.value.cause) == ("budget there", "budget")
    assert (tmp_path / "one" / "draft" / "only.onnx").is_file()


@pytest.mark.parametrize("judge", [None, 12.5, "unknown"])
@pytest.mark.parametrize("unchanged", [False, True])
def test_a_graph_is_judged_by_what_it_is_held_to(judge, unchanged, small, monkeypatch):
    checked = []
    monkeypatch.setattr(
        graph_step,
        "measure_step",
        lambda bundle, made, job, target: StepReport(latency_of=f"{made.graphs[MODEL].name} for {target}"),
    )
    monkeypatch.setattr(
        graph_step, "check_report", lambda report, job, before, after, **limits: checked.append((before, after, limits))
    )
    own = None if judge is None else Measured(None if judge == "unknown" else judge)
    # The first of those that leave something is quoted.
    plans = {"first": Int8Plan(), MODEL: Int8Plan(left={"a": "odd"}), "last": Int8Plan(left={"z": "other"})}
    planned = PlannedGraphs({name: PlannedGraph(None, plan) for name, plan in plans.items()}, judge=own)
    attempt = replace(attempt_of(INT8), bundle=small, config=Int8Config(min_sqnr=7.0), allowed=0.25)
    made = Artifact(graphs={MODEL: Path("made.onnx")})
    graphs = graph_step.AppliedGraphs("cpu", made, unchanged)
    wanted = StepReport(latency_of="made.onnx for cpu", sqnr_against_float=12.5 if judge == 12.5 else None)
    if not unchanged:
        assert graph_step._judge(attempt, INT8, planned, graphs, None) == wanted
        assert checked == [(artifact_of(small), made, {"allowed": 0.25, "least": 7.0})]
        return
    with pytest.raises(Rejected) as caught:
        graph_step._judge(attempt, INT8, planned, graphs, None)
    why = ("every layer would have to stay in float", "budget")
    if judge is None:
        why = ("it changed nothing: a is left unchanged, as odd", "unchanged")
    assert (caught.value.why, caught.value.cause, caught.value.report) == (*why, wanted)
    assert checked == []


@pytest.mark.parametrize(
    ("config", "allowed", "judge"),
    [
        (Int8Config(), None, False),
        (Int8Config(min_sqnr=1.0), None, True),
        (Int8Config(max_drop=0.1), None, True),
        (Int8Config(), 0.0, True),
        (BloatConfig(), 0.1, False),
    ],
)
def test_what_can_be_searched_is_held_to_a_budget_and_against_its_own_float_graph(
    config, allowed, judge, small, few, small_registry
):
    compressor = INT8 if isinstance(config, Int8Config) else graph_compressor()
    job = prepared(small.path, data=few, steps=[Int8Config()], samples=8, registry=small_registry)
    attempt = SimpleNamespace(bundle=job.source, config=config, allowed=allowed)
    assert layers_in_float.own_judge_of(attempt, compressor, job) is (job.judge if judge else None)
    if judge:
        moved = replace(
            job.source, path=job.source.path.parent / ".." / job.source.path.parent.name / job.source.path.name
        )
        own = layers_in_float.own_judge_of(
            SimpleNamespace(bundle=moved, config=config, allowed=allowed), compressor, job
        )
        assert own is not job.judge
        assert own.reference == artifact_of(moved)


def test_a_budget_for_int8_without_validation_samples_is_refused(small, few, small_registry, refused):
    bare = replace(few, splits={**few.splits, "val": Split(few.split("val").samples[:0])})
    job = prepared(small.path, data=bare, steps=[Int8Config()], samples=8, registry=small_registry)
    with refused(DataError) as caught:
        attempt = SimpleNamespace(bundle=job.source, config=Int8Config(min_sqnr=1.0), allowed=None)
        layers_in_float.own_judge_of(attempt, INT8, job)
    assert caught.value.message == "few has no validation samples, which a budget for int8 needs"
    assert caught.value.hint == "give more data"


def test_what_no_budget_allows_is_left_in_float_and_rejected_when_it_is_all(small, monkeypatch, tmp_path):
    asked, enough, tried = [], [], []

    def search(*given):
        asked.append(given)
        return found

    monkeypatch.setattr(layers_in_float, "search", search)
    monkeypatch.setattr(layers_in_float, "_enough", lambda *given: enough.append(given) or tried.append)
    settings = SimpleNamespace(outputs=("scores",))
    job = SimpleNamespace(
        graph_samples="samples", target="cpu", targets=("cpu", "rtx"), progress="progress", settings=settings
    )
    attempt = SimpleNamespace(bundle=small, config="config", allowed=0.5, seconds=3.0)
    plan = Int8Plan(layers=("a", "b", "c"))
    free = PlannedGraphs({MODEL: PlannedGraph("model", plan)})
    assert layers_in_float.within_budget(attempt, INT8, free, job, tmp_path) is free
    assert asked == []
    held = replace(free, judge="judge")
    effects = [FloatEffect(layer=layer, gained=3.0, lost=0.25) for layer in "ab"]
    found = ("less", effects)
    assert layers_in_float.within_budget(attempt, graph_compressor(), held, job, tmp_path) is held, (
        "it can exclude nothing"
    )
    assert asked == []
    assert layers_in_float.within_budget(attempt, INT8, held, job, tmp_path) == PlannedGraphs(
        {MODEL: PlannedGraph("model", "less")},
        float_layers=dict.fromkeys("ab", "+3.00 dB for 25.0% of the MACs"),
        judge="judge",
    )
    assert enough == [("judge", INT8, "config", job, 0.5)]
    ((*given, passes, folder, progress, outputs, others),) = asked
    assert (outputs, others) == (("scores",), ["rtx"])
    assert (*given, folder, progress) == (INT8, "model", plan, "samples", "cpu", tmp_path, "progress")
    passes(Path("candidate"))
    assert tried == [replace(artifact_of(small), graphs={MODEL: Path("candidate")})]
    found = None
    with pytest.raises(Rejected) as caught:
        layers_in_float.within_budget(attempt, INT8, held, job, tmp_path)
    assert (caught.value.why, caught.value.cause) == ("every layer would have to stay in float", "budget")
    assert caught.value.report == StepReport(seconds=3.0)


# -- what a step is measured by


class Scored:
    """A judge whose scores are given: those of the graph before, and of the one after."""

    metric = "accuracy"

    def __init__(self, before, after) -> None:
        self.scores = [before, after]

    def score(self, graph: Graphs):
        return self.scores[main_files(graph)[0].name == "after.onnx"]


NONE_LEFT_OUT = SourceCounts("sample", 9, 0, 0)


def score(**fields):
    plain = {
        "metric": None, "agreement": None, "sqnr": None, "outputs": {}, "differing": {}, "selected_by": {},
        "same_selection": {}, "held": (), "samples": 5,
    }  # fmt: skip
    if (accuracy := fields.pop("accuracy", None)) is not None:
        fields["metric"] = MetricValue(name="accuracy", value=accuracy)
    return SimpleNamespace(**{**plain, **fields})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (score(), score(), {}),
        (score(accuracy=0.5), score(), {}),
        (score(), score(accuracy=0.5), {}),
        (score(accuracy=0.0), score(accuracy=0.5), {"accuracy_before": 0.0, "accuracy_after": 0.5}),
        (score(agreement=1.0), score(agreement=0.0), {"agreement_before": 1.0, "agreement_after": 0.0}),
        (score(agreement=1.0), score(), {}),
        (score(), score(agreement=1.0), {}),
        (score(sqnr=1.0), score(sqnr=2.0), {"sqnr_db": 2.0}),
        (score(), score(sqnr=0.0), {"sqnr_db": 0.0}),
        (score(), score(outputs={"a": 1.0}), {}),
        (score(), score(outputs={"a": 1.0, "b": 2.0}), {"outputs_db": {"a": 1.0, "b": 2.0}}),
        (score(samples=4), score(samples=6), {"validation_samples": 6}),
    ],
)
def test_a_report_has_what_is_known_of_both(before, after, said, small, tmp_path):
    made = tmp_path / "after.onnx"
    made.write_bytes(b"12345")
    job = SimpleNamespace(
        validation=SimpleNamespace(split=()), judge=Scored(before, after), graph_step=None, counts=NONE_LEFT_OUT
    )
    found = step_report.measure_step(small, made, job, SimpleNamespace(timed_here=False))
    size = small.graph("").stat().st_size
    assert found == reports_of_before.report(
        **{"validation_samples": 5, "bytes_before": size, "bytes_after": 5, **said}
    )


@pytest.mark.parametrize(
    ("macs", "parameters", "timed_here", "raced"),
    [(0, 0, True, False), (1, 0, True, True), (0, 1, True, True), (1, 1, False, False), (None, None, True, True)],
)
def test_what_is_of_one_size_is_not_timed_again(macs, parameters, timed_here, raced, small, tmp_path, monkeypatch):
    made, asked = tmp_path / "after.onnx", []
    made.write_bytes(b"12345")
    monkeypatch.setattr(step_report, "race", lambda *given: asked.append(given) or Race(before=2.0, after=3.0))
    own = small.manifest
    manifest = None if macs is None else replace(own, macs=own.macs + macs, parameters=own.parameters + parameters)
    job = SimpleNamespace(
        validation=SimpleNamespace(split=()),
        judge=Scored(score(), score()),
        graph_step=None,
        sample="sample",
        counts=NONE_LEFT_OUT,
    )
    found = step_report.measure_step(small, made, job, SimpleNamespace(timed_here=timed_here), manifest)
    assert asked == ([(artifact_of(small), made, "sample")] if raced else [])
    assert found.latency == (Change(before=2.0, after=3.0) if raced else None)
    assert step_report.FEW == 8


@pytest.mark.parametrize("sketched", [False, True])
def test_a_graph_is_made_as_it_ships_on_few_samples(sketched, small, few, small_registry):
    """By the sketch of a plan where there is one."""
    job, planned, applied = (
        prepared(small.path, data=few, steps=[Int8Config()], samples=40, registry=small_registry),
        [],
        [],
    )

    def planning(kind):
        def plan(model, config, samples):
            planned.append((kind, config, sum(batch_size(x) for x in samples)))
            return kind

        return plan

    def apply(model, plan, target):
        applied.append((plan, target))
        return model

    compressor = GraphCompressor(name="g", summary="", config=BloatConfig, plan_type=BloatPlan, plan=planning("plan"),
                                 apply=apply, sketch=planning("sketch") if sketched else None)  # fmt: skip
    asked = replace(job, configs=((compressor, "config"),))
    model = onnx.load(small.graph(""))
    assert step_report.encoder_of(asked)(model) is model
    kind = "sketch" if sketched else "plan"
    assert planned == [(kind, "config", 8)]
    assert applied == [(kind, job.targets[0])]
