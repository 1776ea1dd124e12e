from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scoring import classes, task

from pocketzoo.compress.pipeline.graph_scores import KEPT, ROUNDS, SECONDS, SLACK, Judge, NotFiniteError, Race, race
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.tasks.metrics.embeddings import NEIGHBORS
from pocketzoo.zoo.tasks.regression import RegressionTask

SPEC = InputSpec(name="x", shape=("batch", 3, 10, 10), mean=(0.0,) * 3, std=(1.0,) * 3, resize=10)


def scaled(model: onnx.ModelProto, factor: float, place: Path) -> Path:
    """The graph with its last layer's weight and bias times ``factor``: the output is, too."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in twin.graph.initializer:
        if tensor.name.startswith("fc"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    onnx.save(twin, place)
    return place


@pytest.fixture
def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 3, 10, 10)).astype(np.float32)


@pytest.fixture
def judged(graphs, samples, tmp_path):
    reference = scaled(graphs["residual"], 1.0, tmp_path / "reference.onnx")
    targets = np.arange(20) % 5
    return Judge(reference, Batches(Split(samples, targets), SPEC), task=classes(5))


def test_the_reference_agrees_with_itself(judged):
    score = judged.score(judged.reference)
    assert (score.agreement, score.sqnr, score.samples) == (1.0, None, 20)
    assert judged.drop(judged.reference) == 0.0


@pytest.mark.parametrize("error", [0.1, 0.01])
def test_sqnr_of_a_scaled_output(error, judged, graphs, tmp_path):
    """Outputs times 1 + e: noise is e^2 of the signal; the answers stay."""
    score = judged.score(scaled(graphs["residual"], 1 + error, tmp_path / "scaled.onnx"))
    assert score.sqnr == pytest.approx(-20 * np.log10(error), abs=0.01)
    assert score.agreement == 1.0


def test_negated_outputs_lose_what_was_right(judged, graphs, tmp_path):
    worse = scaled(graphs["residual"], -1.0, tmp_path / "worse.onnx")
    before, after = judged.score(judged.reference), judged.score(worse)
    assert after.agreement == 0.0
    assert judged.metric == "accuracy"
    assert judged.drop(worse) == pytest.approx(before.metric.value - after.metric.value)


class Degrees(RegressionTask):
    metric = MetricSpec(name="mean absolute error", higher_is_better=False, unit="degrees")


def test_a_metric_with_a_unit_loses_a_fraction_of_its_value(graphs, samples, tmp_path):
    """1% of an error of 2 degrees is 0.02 degrees, not a hundredth of one."""
    reference = scaled(graphs["residual"], 1.0, tmp_path / "a.onnx")
    with OnnxRunner(reference) as runner:
        outputs = next(iter(runner.infer({"x": samples}).values()))
    opened = replace(task("regression"), task=Degrees())
    judge = Judge(reference, Batches(Split(samples, outputs + np.float32(2.0)), SPEC), task=opened)
    worse = scaled(graphs["residual"], -1.0, tmp_path / "worse.onnx")
    expected = (np.abs(2 * outputs + 2.0).mean() - 2.0) / 2.0
    assert judge.drop(worse) == pytest.approx(expected, rel=1e-4)
    said = "mean absolute error rises by 50.0% of 2 degrees, 1.0% are allowed"
    assert (judge.told(0.5, 0.01), judge.told(0.5, 0.01, so_far=False)) == (f"{said} so far", said)


def test_without_classes_the_drop_is_the_share_of_answers_that_changed(graphs, samples, tmp_path):
    reference = scaled(graphs["residual"], 1.0, tmp_path / "a.onnx")
    judge = Judge(reference, Batches(Split(samples), SPEC), task=classes(5))
    worse = scaled(graphs["residual"], -1.0, tmp_path / "worse.onnx")
    assert judge.metric == "agreement"
    assert judge.drop(worse) == 1.0
    assert judge.score(worse).metric is None


def test_embeddings_agree_by_their_nearest_neighbors(graphs, samples, tmp_path, refused):
    """A larger embedding has the same neighbors; its largest number means nothing. Among few none is near."""
    reference = scaled(graphs["residual"], 1.0, tmp_path / "a.onnx")
    other = scaled(graphs["residual"], -4.0, tmp_path / "b.onnx")
    many = np.random.default_rng(1).normal(size=(NEIGHBORS, *samples.shape[1:])).astype(np.float32)
    assert Judge(reference, Batches(Split(many), SPEC), task=task("feature-extraction")).score(other).agreement == 1.0
    few = Judge(reference, Batches(Split(many[:-1]), SPEC), task=task("feature-extraction"))
    assert few.score(other).agreement is None
    with refused(DataError, f"{NEIGHBORS - 1} embeddings are too few", hint="more samples"):
        few.drop(other)


def test_what_is_kept_of_the_reference_makes_no_difference(graphs, samples, tmp_path, monkeypatch):
    reference, other = (scaled(graphs["residual"], f, tmp_path / f"{f}.onnx") for f in (1.0, 1.1))
    scores = []
    for kept in (0, 2**20):
        monkeypatch.setattr("pocketzoo.compress.pipeline.graph_scores.KEPT", kept)
        judge = Judge(reference, Batches(Split(samples), SPEC, size=8), task=classes(5))
        scores.append([judge.score(reference), judge.score(other)])
    assert scores[0] == scores[1]


def test_a_graph_that_gives_no_numbers_is_refused(judged, graphs, tmp_path, refused):
    with refused(NotFiniteError, "not finite"):
        judged.score(scaled(graphs["residual"], np.nan, tmp_path / "nan.onnx"))


@pytest.mark.parametrize(
    ("rounds", "slower", "kept"),
    [
        ([(1.0, 0.9)], False, (1.0, 0.9)),
        ([(1.0, 1.02)], False, (1.0, 1.02)),
        ([(1.0, 1.5), (2.0, 2.0)], False, (2.0, 2.0)),
        ([(1.0, 1.5), (2.0, 2.6), (1.0, 1.01)], False, (1.0, 1.01)),
        ([(1.0, 1.5), (2.0, 2.4), (1.0, 1.3)], True, (2.0, 2.4)),
    ],
    ids=["faster", "as fast", "slower once", "slower twice", "slower each time"],
)
def test_a_graph_is_slower_if_it_is_each_time_it_is_timed(rounds, slower, kept):
    """A busy machine makes anything slow once. No more rounds are timed than it takes to know."""
    left = list(rounds)
    found = race(Path("a"), Path("b"), np.zeros(1, np.float32), lambda graphs, x, seconds: list(left.pop(0)))
    assert (found.slower, (found.before, found.after)) == (slower, kept)
    assert left == []


def test_graphs_are_timed_here(graphs, samples, tmp_path):
    """How many times faster one is says a benchmark."""
    paths = [scaled(graphs["residual"], factor, tmp_path / f"{factor}.onnx") for factor in (1.0, 2.0)]
    found = race(*paths, {"x": samples[:1]})
    assert min(found.before, found.after) > 0


@pytest.mark.parametrize(("room", "kept"), [(0, True), (-1, False)])
def test_outputs_of_the_reference_are_kept_up_to_so_many_bytes(room, kept, judged, graphs, tmp_path, monkeypatch):
    """Twenty samples of five outputs. What is kept is not read again from the graph, whose place another has taken."""
    monkeypatch.setattr("pocketzoo.compress.pipeline.graph_scores.KEPT", 20 * 5 * 4 + room)
    judged.score(judged.reference)
    other = scaled(graphs["residual"], 1.0, tmp_path / "other.onnx")
    with other.open("ab") as file:
        file.write(b"\x72\x00")  # an empty metadata entry: another digest, the same graph
    scaled(graphs["residual"], -1.0, judged.reference)
    assert judged.score(other).agreement == (1.0 if kept else 0.0)


def test_a_graph_is_scored_once(judged, graphs, tmp_path):
    """What is the same byte for byte has the same score, under whatever name."""
    one, two = (scaled(graphs["residual"], 1.5, tmp_path / f"{name}.onnx") for name in "ab")
    assert judged.score(one) is judged.score(two)


def test_what_has_no_metric_cannot_drop(graphs, samples, tmp_path, refused):
    reference = scaled(graphs["residual"], 1.0, tmp_path / "a.onnx")
    with refused(DataError, "no metric is known", hint="--min-sqnr"):
        Judge(reference, Batches(Split(samples), SPEC), task=None).drop(reference)


def test_the_budget_of_a_race_is_kept():
    asked = []
    race(Path("a"), Path("b"), np.zeros(1, np.float32), lambda graphs, x, s: asked.append((graphs, s)) or [1.0, 9.0])
    assert asked == [([Path("a"), Path("b")], 0.2)] * 3


@pytest.mark.parametrize(("after", "slower"), [(1.03, False), (1.0300001, True), (1.0, False)])
def test_three_percent_more_is_not_slower(after, slower):
    assert Race(before=1.0, after=after).slower == slower


def test_a_race_has_three_rounds_and_an_eighth_of_a_gigabyte_is_kept():
    assert (SLACK, ROUNDS, SECONDS, KEPT) == (1.03, 3, 0.2, 134_217_728)
