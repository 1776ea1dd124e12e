from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import reports_of_before
from onnx import TensorProto, helper, numpy_helper
from reports_of_before import rejection

from pocketzoo.compress.pipeline.acceptance import (
    FLOOR_DB,
    FLOOR_SHARE,
    LARGER,
    WAYS_OUT,
    WORSE,
    Rejected,
    below_floor,
    check_cost,
    check_report,
    nothing_left,
    rejections,
    same_graph,
    same_module,
    worse,
)
from pocketzoo.compress.pipeline.graph_scores import SLACK, Judge, Score
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.bundles.step_record import Rejection, StepRecord


def accuracy_of(value: float | None) -> MetricValue | None:
    return None if value is None else MetricValue(name="accuracy", value=value)


SOURCE = Score(samples=100, metric=accuracy_of(0.9), agreement=1.0, outputs={"y": None}, chance=0.4, judged=("y",))


def after(accuracy=None, **decibels) -> Score:
    return Score(samples=100, metric=accuracy_of(accuracy), agreement=None, outputs=decibels, chance=0.4, judged=("y",))


@pytest.mark.parametrize(
    ("accuracy", "fails"),
    [(0.9, False), (0.81, False), (0.799, True), (0.4, True), (1.0, False)],
)
def test_a_fifth_of_what_is_above_chance_may_go(accuracy, fails):
    """Of 0.9 with 0.4 by chance 0.1 may be lost, whatever the decibels: the classes are what counts."""
    why = below_floor(SOURCE, SOURCE, after(accuracy, y=-3.0))
    assert bool(why) == fails
    if fails:
        assert why == (
            f"accuracy falls from 90.0% to {accuracy:.1%}, losing more than a fifth of what is above chance (40.0%)"
        )


@pytest.mark.parametrize(("decibels", "fails"), [(10.0, False), (9.99, True), (-np.inf, True), (None, False)])
def test_other_outputs_keep_ten_decibels(decibels, fails):
    unknown = replace(SOURCE, metric=None, outputs={"y": None, "boxes": None})
    assert bool(below_floor(unknown, unknown, after(y=30.0, boxes=decibels))) == fails
    assert bool(below_floor(unknown, unknown, after(y=decibels, boxes=30.0))) == fails
    # The classes are right, and the other output is what it is all the same.
    assert bool(below_floor(SOURCE, SOURCE, after(0.9, y=0.0, boxes=decibels))) == fails


def test_the_worst_output_is_named():
    unknown = replace(SOURCE, metric=None)
    why = below_floor(unknown, unknown, after(a=5.0, boxes=-1.26, c=40.0))
    assert why == "the SQNR of output 'boxes' is -1.3 dB, and 1 more output, below 10 dB"


def test_the_worst_part_of_an_output_is_named():
    unknown = replace(SOURCE, metric=None)
    joined = replace(after(y=5.0), parts={"y": "4 to 21 of axis -2"})
    why = below_floor(unknown, unknown, joined)
    assert why == "the SQNR of output 'y' (4 to 21 of axis -2) is 5.0 dB, below 10 dB"


def test_a_model_that_is_no_better_than_chance_is_held_by_decibels():
    weak = replace(SOURCE, metric=accuracy_of(0.4))
    assert below_floor(weak, weak, after(0.4, y=3.0))
    assert not below_floor(weak, weak, after(0.1, y=30.0))


def test_a_step_is_not_blamed_for_what_an_earlier_one_lost():
    assert not below_floor(SOURCE, after(0.5, y=2.0), after(0.55, y=1.0))
    assert below_floor(SOURCE, after(0.5, y=2.0), after(0.45, y=1.0))
    unknown = replace(SOURCE, metric=None)
    assert not below_floor(unknown, after(y=2.0), after(y=2.5))
    assert below_floor(unknown, after(y=2.0), after(y=1.5))


def test_what_a_user_allows_is_allowed():
    assert not below_floor(SOURCE, SOURCE, after(0.5, y=3.0), budget=True)
    assert below_floor(SOURCE, SOURCE, after(0.9, y=30.0, boxes=3.0), budget=True)
    unknown = replace(SOURCE, metric=None)
    assert not below_floor(unknown, unknown, after(y=6.0), least=5.0)
    assert below_floor(unknown, unknown, after(y=4.0), least=5.0)
    assert not below_floor(unknown, unknown, after(y=FLOOR_DB), least=30.0)  # search holds that, not the floor


def test_an_output_of_which_nothing_is_left_that_varies_is_lost():
    unknown = replace(SOURCE, metric=None)
    flat = replace(after(y=40.0, z=52.0), like_constants=("z",))
    assert below_floor(unknown, unknown, flat) == (
        "of what varies in the output 'z' nothing is left: a constant would be as near"
    )
    assert not below_floor(unknown, flat, flat)


def test_every_cause_has_a_way_out():
    assert set(WAYS_OUT) > WORSE
    assert all("--accept" in WAYS_OUT[cause] for cause in ("floor", "unchanged"))
    assert all("--keep-slower" in WAYS_OUT[cause] for cause in ("larger", "slower"))


def graph(value: float = 1.0, op: str = "Add", name: str = "n", attribute: int = 0) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    node = helper.make_node(op, ["x", "k"], ["y"], name=name, **({"axis": attribute} if attribute else {}))
    return helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [info("x", TensorProto.FLOAT, [2])],
            [info("y", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.full(2, value, np.float32), "k")],
        )
    )


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (graph(), True),
        (graph(name="elsewhere"), True),
        (graph(value=2.0), False),
        (graph(op="Mul"), False),
        (graph(attribute=1), False),
    ],
)
def test_a_graph_is_the_same_if_it_computes_the_same(other, same):
    assert same_graph(graph(), other) == same


def test_a_module_is_the_same_if_all_of_its_numbers_are(small, tmp_path):
    from safetensors.numpy import load_file, save_file

    file = small.file("model.safetensors")
    tensors = load_file(file)
    other, fewer = tmp_path / "other.safetensors", tmp_path / "fewer.safetensors"
    name = next(name for name, array in tensors.items() if array.size > 1)
    changed = tensors[name].copy()
    changed.flat[0] = np.nextafter(changed.flat[0], np.float32(9))
    save_file({**tensors, name: changed}, other)
    save_file({k: v for k, v in tensors.items() if k != name}, fewer)
    assert same_module(small.manifest, small.manifest, (file, file))
    assert not same_module(small.manifest, small.manifest, (file, other))
    assert not same_module(small.manifest, small.manifest, (file, fewer))
    assert not same_module(small.manifest, replace(small.manifest, macs=1), (file, file))


def test_bundles_of_before_name_no_cause(small):
    """``run`` asks it of a bundle that an older version finished."""
    old = rejection(kind="int8", config={}, why="slower: 1.000 -> 2.000 ms a sample", report={})
    manifest = replace(small.manifest, rejected=(old, replace(old, cause="floor"), replace(old, cause="slower")))
    assert [no.cause for no in worse(manifest)] == ["floor"]


# -- what is held against what


class Known:
    """A judge that knows the scores of each graph by name, and how far the metric fell."""

    metric, reference = "accuracy", Path("source")
    told = Judge.told

    def __init__(self, drop: float = 0.0, **scores: Score) -> None:
        self.lost, self.scores = drop, scores

    def drop(self, graph: Path) -> float:
        assert graph == Path("after")
        return self.lost

    def score(self, graph: Path) -> Score:
        return self.scores.get(graph.name, SOURCE)


def job_of(judge: Known | None = None, **settings: object) -> SimpleNamespace:
    return SimpleNamespace(settings=CompressSettings(**settings), judge=judge or Known())


COST = {"bytes_before": 1000, "bytes_after": 900, "latency_ms_before": 2.0, "latency_ms_after": 1.0}


@pytest.mark.parametrize(
    ("changes", "cause", "why"),
    [
        ({}, None, ""),
        ({"bytes_after": 1000}, None, ""),
        ({"bytes_before": 0, "bytes_after": 0}, None, ""),
        ({"bytes_after": 1002}, "larger", "larger: 1,000 -> 1,002 bytes"),
        ({"latency_ms_after": 2.0}, None, ""),
        ({"latency_ms_after": 2.0 * SLACK}, None, ""),
        ({"latency_ms_after": 2.0 * SLACK + 0.001}, "slower", "slower: 2.000 -> 2.061 ms a sample"),
        ({"bytes_after": 1002, "latency_ms_after": 9.0}, "larger", "larger: 1,000 -> 1,002 bytes"),
    ],
)
def test_what_is_larger_or_slower_is_rejected_unless_asked_for(changes, cause, why):
    report = reports_of_before.report(**{**COST, **changes})
    check_cost(report, job_of(keep_slower=True))
    if cause is None:
        check_cost(report, job_of())
        return
    with pytest.raises(Rejected) as caught:
        check_cost(report, job_of())
    assert (caught.value.cause, caught.value.why) == (cause, why)
    assert caught.value.record("int8", "acme 1.0", {"a": 1}, "cpu") == Rejection(
        compressor="int8", provider="acme 1.0", config={"a": 1}, why=why, cause=cause, target="cpu", report=report
    )


def test_a_graph_that_was_not_timed_is_not_slower():
    check_cost(reports_of_before.report(bytes_before=1, bytes_after=1), job_of())


LOW = after(0.4, y=3.0)  # all that is above chance is gone


@pytest.mark.parametrize(
    ("judge", "settings", "allowed", "cause"),
    [
        (Known(0.02), {"max_drop": 0.5}, 0.01, "budget"),
        (Known(0.02), {"max_drop": 0.5, "accept": True}, 0.01, "budget"),
        (Known(0.02), {"max_drop": 0.5}, 0.02, None),
        (Known(0.02), {"max_drop": 0.5}, None, None),
        (Known(0.0, after=LOW), {}, None, "floor"),
        (Known(0.0, after=LOW), {"accept": True}, None, None),
        (Known(0.0, after=LOW), {"max_drop": 0.9}, 0.9, None),
        (Known(0.0, after=LOW, before=LOW), {}, None, None),
    ],
)
def test_a_budget_is_held_first_and_then_the_floor(judge, settings, allowed, cause):
    def check(facts: dict) -> None:
        check_report(
            reports_of_before.report(**facts), job_of(judge, **settings), Path("before"), Path("after"), allowed=allowed
        )

    if cause is not None:
        with pytest.raises(Rejected) as caught:
            check(COST)
        assert caught.value.cause == cause
        if cause == "budget":
            assert caught.value.why == "accuracy falls by 2.00 points, 1.00 are allowed so far"
        return
    check(COST)
    with pytest.raises(Rejected, match="larger"):
        check({**COST, "bytes_after": 5000})


def test_least_stands_in_for_the_floor():
    source = replace(SOURCE, metric=None)
    judge = Known(source=source, before=source, after=after(y=6.0))
    check_report(
        reports_of_before.report(**COST), job_of(judge), Path("before"), Path("after"), allowed=None, least=5.0
    )
    with pytest.raises(Rejected, match=r"6\.0 dB, below 7 dB"):
        check_report(
            reports_of_before.report(**COST), job_of(judge), Path("before"), Path("after"), allowed=None, least=7.0
        )


def test_the_floor_is_ten_decibels_and_a_fifth():
    assert (FLOOR_DB, FLOOR_SHARE, LARGER) == (10.0, 0.2, 1.001)


# -- what was left out for good


def step(kind: str, **report: object) -> StepRecord:
    return StepRecord(compressor=kind, config={}, plan={}, report=reports_of_before.report(**report))


def test_all_that_was_left_out_is_found(small):
    """A step as a whole, a graph for one target, and graphs that generate; what was tried on the way is not."""
    slow, words = "slower: 1.00 -> 2.00 ms a token", "9.0% of the tokens change, at most 1.0% are allowed"
    sizes = {"bytes_before": 2, "bytes_after": 1}
    manifest = replace(
        small.manifest,
        rejected=(rejection(kind="prune", why="a", cause="larger"),),
        steps=(
            step("distill", rejected=[{"kind": "distill", "why": "tried", "cause": "budget"}]),
            step("int8", rejected=[{"kind": "int8", "target": "cpu", "why": "b", "cause": "floor"}],
                 generation={"cpu": {**sizes, "rejected": words}, "npu": {**sizes, "rejected": slow}, "gpu": sizes}),
        ),
    )  # fmt: skip
    assert list(rejections(manifest)) == [
        rejection(kind="prune", why="a", cause="larger"),
        rejection(kind="int8", target="cpu", why="b", cause="floor"),
        rejection(kind="int8", target="cpu", why=words, cause="budget"),
        rejection(kind="int8", target="npu", why=slow, cause="slower"),
    ]
    assert [no.cause for no in worse(manifest)] == ["floor", "budget"]
    assert {"floor", "unchanged", "budget"} == WORSE


def test_nothing_left_says_why_once_and_how_to_go_on(small):
    same = rejection(kind="prune", why="larger", cause="larger")
    last = rejection(kind="int8", why="it changed nothing", cause="unchanged")
    error = nothing_left(replace(small.manifest, rejected=(same, same, last)))
    assert error.message == "rejected, nothing was written: prune: larger; int8: it changed nothing"
    assert error.hint == WAYS_OUT["unchanged"]


def test_the_same_numbers_of_another_size_are_another_module(small):
    file = small.file("model.safetensors")
    assert not same_module(small.manifest, replace(small.manifest, parameters=1), (file, file))


def test_names_and_notes_of_nodes_are_no_part_of_what_a_graph_computes():
    noted = graph()
    noted.graph.node[0].doc_string = "from elsewhere"
    entry = noted.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg", "1"
    assert same_graph(graph(), noted)
    other = graph()
    other.graph.initializer[0].name = "elsewhere"
    assert not same_graph(graph(), other)


def test_exactly_a_fifth_may_go_and_an_output_may_stay_as_it_is():
    source = replace(SOURCE, metric=accuracy_of(0.75), chance=0.125)
    assert not below_floor(source, source, after(0.625, y=0.0))
    assert below_floor(source, source, after(0.6249, y=0.0))
    unknown = replace(SOURCE, metric=None)
    assert not below_floor(unknown, after(y=2.0), after(y=2.0))
    assert below_floor(unknown, after(z=2.0), after(y=2.0)), "what was not there before has nothing to be held against"


def test_a_module_whose_weights_are_no_numbers_is_the_same_as_itself(small, tmp_path):
    from safetensors.numpy import save_file

    for name, value in (("one", np.nan), ("two", np.nan), ("three", 1.0)):
        save_file({"w": np.array([1.0, value], np.float32)}, tmp_path / name)
    assert same_module(small.manifest, small.manifest, (tmp_path / "one", tmp_path / "two"))
    assert not same_module(small.manifest, small.manifest, (tmp_path / "one", tmp_path / "three"))


@pytest.mark.parametrize(
    ("low", "rejected"),
    [(0.41, ""), (0.39, "the SQNR of output 'y'"), (None, "")],
)
def test_what_is_better_than_chance_for_sure_is_not_held_to_a_source_that_is_not(low, rejected):
    """Its answers are far from those of the source, which are worth nothing."""
    source = replace(SOURCE, metric=accuracy_of(0.3))
    made = after(0.45, y=-3.0)
    made = replace(made, metric=replace(made.metric, low=low, high=0.5))
    assert below_floor(source, source, made).startswith(rejected)
    assert bool(below_floor(source, source, made)) == bool(rejected)
