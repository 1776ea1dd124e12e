from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import smallnet
from onnx import helper, numpy_helper
from told import Told

from pocketzoo.compress.configs import DistillConfig, Int8Config, PruneConfig
from pocketzoo.compress.pipeline.acceptance import worse
from pocketzoo.compress.pipeline.attempt import left_alone
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.graph_scores import Race
from pocketzoo.compress.pipeline.graph_step import _enough
from pocketzoo.compress.pipeline.job import prepare
from pocketzoo.compress.pipeline.step_report import before_and_after, with_report
from pocketzoo.compress.pipeline.steps import _allowed, _end
from pocketzoo.compress.plans import DistillPlan, Int8Plan, PrunePlan
from pocketzoo.core.errors import DataError, RecipeError, RejectedError
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import Step
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches
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


def accuracy(graph, dataset, spec):
    x, y = next(iter(Batches(dataset.split("val"), spec, size=1000)))
    with OnnxRunner(graph) as runner:
        return float(np.mean(runner.logits(x).argmax(1) == y))


def test_each_step_says_what_it_was_before_and_after(compressed, fitted):
    manifest = compressed.manifest
    reports = [step.report for step in manifest.steps]
    for before, after in pairwise(reports):
        for name in ("bytes", "accuracy", "agreement"):
            assert before[f"{name}_after"] == after[f"{name}_before"]
    assert reports[0]["bytes_before"] == fitted.graph("").stat().st_size
    assert reports[1]["bytes_after"] == compressed.graph("").stat().st_size
    assert reports[0]["macs_before"] == fitted.manifest.macs
    assert reports[1]["macs_after"] == manifest.macs
    for report in reports:
        assert report["seconds"] > 0
        assert report["latency_ms_before"] > 0
        assert report["validation_samples"] == 48


def test_what_a_step_reports_can_be_recounted(compressed, fitted, digits):
    split = digits.split("val")
    cut = replace(digits, splits={**digits.splits, "val": Split(split.samples[:48], split.targets[:48])})
    report = compressed.manifest.steps[-1].report
    assert report["accuracy_before"] == accuracy(compressed.graph(""), cut, fitted.manifest.input)
    assert report["accuracy_after"] == accuracy(compressed.graph("cpu"), cut, fitted.manifest.input)


def test_a_step_that_makes_the_model_larger_is_not_shipped(bloating, small, few, tmp_path):
    steps = [PruneConfig(ratio=0.3, granularity="weight"), BloatConfig(width=256)]
    bundle = compress(small.path, tmp_path / "out", data=few, steps=steps, samples=8, registry=bloating)
    assert set(bundle.graphs()) == {""}
    assert [step.kind for step in bundle.manifest.steps] == ["prune"]
    (no,) = bundle.manifest.rejected
    assert (no["kind"], no["cause"]) == ("bloat", "larger")
    assert no["why"].startswith("larger: ")
    assert no["config"] == {"width": 256}
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
    assert set(bundle.graphs()) == {"", "cpu"}
    assert bundle.manifest.rejected == ()
    assert bundle.manifest.steps[-1].report["agreement_after"] == 1.0


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
    assert set(bundle.graphs()) == {"", "tensorrt-rtx"}
    (no,) = bundle.manifest.steps[-1].report["rejected"]
    assert (no["target"], no["why"].split(":")[0]) == ("cpu", "slower")


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
    tried = [no["config"]["ratio"] for no in step.report["rejected"]]
    assert tried[0] == 0.97
    assert step.config["ratio"] < min(tried)
    assert min(tried) - step.config["ratio"] <= 0.97 / 8 + 1e-9
    assert all("accuracy falls by" in no["why"] for no in step.report["rejected"])
    said = [line for line in told.said if "rejected" in line]
    assert said == [f"prune: rejected: {no['why']}" for no in step.report["rejected"]]
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
    drop = lost["accuracy_before"] - lost["accuracy_after"]
    assert drop > 0.1
    bundle = compress(small.path, tmp_path / "both", steps=steps, max_drop=drop, **given)
    prune, distill = bundle.manifest.steps
    assert prune.config["ratio"] == 0.95
    assert "rejected" not in prune.report
    assert distill.report["accuracy_after"] >= lost["accuracy_before"] - drop
    assert distill.report["accuracy_before"] == lost["accuracy_after"]


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
    goal = whole.manifest.steps[-1].report["sqnr_db"] + 2
    bundle = compress(small.path, tmp_path / "out", **given, min_sqnr=goal)
    step = bundle.manifest.steps[-1]
    assert step.config["min_sqnr"] == goal
    assert step.report["sqnr_db"] >= goal
    kept = step.report["left_in_float"]
    assert kept
    assert set(kept).isdisjoint(step.plan["layers"])
    precision = {row["layer"]: row["precision"] for row in bundle.manifest.layers["cpu"]}
    assert {layer for layer, what in precision.items() if what == "float32"} == set(kept)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"max_drop": 1.0}, RecipeError, "max_drop cannot be 1.0"),
        ({"max_drop": -0.1}, RecipeError, "max_drop cannot be -0.1"),
        ({"min_sqnr": 25.0}, RecipeError, "min_sqnr needs an int8 step"),
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
    job = prepare(small.path, data=few, steps=asked, max_drop=budget, samples=8, registry=small_registry)
    assert [_allowed(job, number) for number in range(steps)] == pytest.approx(allowed)


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_each_step_may_spend_its_own_part_of_a_budget_and_what_was_left(small, digits, tmp_path, small_registry):
    """Of three steps a third each: the first must not take it all."""
    steps = [PruneConfig(ratio=r, granularity="weight", refit=False) for r in (0.97, 0.98, 0.99)]
    given = {"data": digits, "samples": 8, "keep_slower": True, "registry": small_registry}
    bundle = compress(small.path, tmp_path / "out", steps=steps, max_drop=0.06, **given)
    first = accuracy(small.graph(""), digits, small.manifest.input)
    tried = [step.report.get("rejected", []) for step in bundle.manifest.steps]
    tried += [no.get("tried", [no]) for no in bundle.manifest.rejected]
    said = [no["why"].partition(" points, ")[2] for nos in tried for no in nos if no["cause"] == "budget"]
    assert list(dict.fromkeys(said)) == [f"{points} are allowed so far" for points in ("2.00", "4.00", "6.00")]
    for number, step in enumerate(bundle.manifest.steps, 1):
        assert step.report["accuracy_after"] >= first - 0.02 * number - 1e-9


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
    assert report["accuracy_before"] - report["accuracy_after"] > 0.2 * (report["accuracy_before"] - chance)


@pytest.mark.usefixtures("untimed")
def test_the_rest_of_a_recipe_goes_on_without_what_is_rejected(small, few, tmp_path, small_registry):
    steps = [PruneConfig(ratio=0.95, granularity="weight", refit=False), Int8Config()]
    given = {"registry": small_registry, "data": few, "samples": 16, "keep_slower": True}
    manifest = compress(small.path, tmp_path / "out", steps=steps, **given).manifest
    assert [step.kind for step in manifest.steps] == ["int8"]
    assert [no["cause"] for no in worse(manifest)] == ["floor"]


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
    chance = np.bincount(digits.split("val").targets[: prune["validation_samples"]]).max()
    had = prune["accuracy_before"] - chance / prune["validation_samples"]
    lost = [prune["accuracy_before"] - report["accuracy_after"] for report in (prune, distill)]
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
        kinds = [{n.op_type for n in onnx.load(path).graph.node} for path in (before, after)]
        raced.append(["QuantizeLinear" in found for found in kinds])
        return Race(before=1.0, after=1.0)

    monkeypatch.setattr("pocketzoo.compress.pipeline.step_report.race", race)
    steps = [PruneConfig(ratio=0.5), *([Int8Config()] if int8 else [])]
    given = {"registry": small_registry, "data": few, "samples": 16, "accept": True}
    bundle = compress(small.path, tmp_path / "out", steps=steps, **given)
    assert raced == ([[True, True], [False, True]] if int8 else [[False, False]])
    assert bundle.manifest.steps[0].report.get("latency_of") == ("int8 for cpu" if int8 else None)


@pytest.mark.parametrize(("target", "multiple"), [("cpu", 16), ("openvino", 8)])
def test_what_becomes_int8_keeps_the_channels_that_its_kernels_are_fast_for(
    target, multiple, small, few, small_registry
):
    given = {"registry": small_registry, "data": few, "samples": 8, "targets": (target,)}
    assert prepare(small.path, steps=[PruneConfig(), Int8Config()], **given).module_target.channel_multiple == multiple
    assert prepare(small.path, steps=[PruneConfig()], **given).module_target.channel_multiple == 8


# -- what is enough, and what is said of what is left


@dataclass(frozen=True)
class Measured:
    """A judge that has measured."""

    sqnr: float | None = None
    lost: float = 0.0

    def score(self, graph: Path) -> Measured:
        return self

    def drop(self, graph: Path) -> float:
        return self.lost


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
    assert _enough(own, Int8Config(**config), job, allowed)(Path("graph")) == enough


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Int8Plan(), ""),
        (Int8Plan(left={"a": "it is odd"}), ": a is left unchanged, as it is odd"),
        (Int8Plan(left={"a": "it is odd", "b": "", "c": ""}), ": a is left unchanged, as it is odd, and 2 more"),
        (PrunePlan(dense={"a": "grouped"}), ": a is left unchanged, as grouped"),
        (PrunePlan(dense={"a": "grouped"}, left={"b": "odd"}), ": b is left unchanged, as odd"),
        (DistillPlan(), ""),
    ],
)
def test_what_is_left_is_said_with_the_first_reason(plan, said):
    assert left_alone(plan) == said


def test_a_report_goes_to_the_step_it_is_of(small):
    steps = tuple(Step(kind=kind, config={}, plan={}, report={"own": kind}) for kind in "abc")
    manifest = replace(small.manifest, steps=steps)
    for back, kind in ((1, "c"), (2, "b"), (3, "a")):
        found = with_report(manifest, {"more": 1}, back)
        assert {s.kind: s.report for s in found.steps if "more" in s.report} == {kind: {"own": kind, "more": 1}}
    assert with_report(manifest, {"own": 2}).steps[-1].report == {"own": 2}
    assert before_and_after("x", 1, 2) == {"x_before": 1, "x_after": 2}


@pytest.mark.parametrize(
    ("steps", "ends"),
    [([PruneConfig()], [1]), ([PruneConfig(), DistillConfig()], [2, 2]),
     ([PruneConfig(), DistillConfig(), DistillConfig(), PruneConfig(), Int8Config()], [3, 3, 3, 4, 5])],
)  # fmt: skip
def test_a_step_is_held_with_those_that_repair_it(steps, ends, small, few, small_registry):
    job = prepare(small.path, data=few, steps=steps, samples=8, registry=small_registry)
    assert [_end(job, number) for number in range(len(steps))] == ends


def test_what_is_rejected_is_said_with_its_reason(bloating, small, few, tmp_path):
    told = Told()
    steps = [PruneConfig(ratio=0.3, granularity="weight"), BloatConfig(width=256)]
    given = {"data": few, "samples": 8, "registry": bloating}
    (no,) = compress(small.path, tmp_path / "out", steps=steps, **given, progress=told).manifest.rejected
    assert [line for line in told.said if "rejected" in line] == [f"bloat: rejected: {no['why']}"]
