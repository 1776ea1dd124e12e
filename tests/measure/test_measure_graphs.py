"""Scores against numbers worked out by hand: graphs whose outputs, right answers and noise are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scoring import classes, task

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.measure.measure_graphs import Candidate, Latency, Measurement, candidates, measure
from pocketzoo.zoo.backends.timing import Interval
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.random_samples import random_samples

CLASSES = 4
SPEC = InputSpec(name="x", shape=("batch", 1, 1, CLASSES), mean=(0.0,), std=(1.0,), resize=1)


def affine(path: Path, scale: np.ndarray, shift: np.ndarray) -> Path:
    """(B, 1, 1, CLASSES) to (B, CLASSES): x @ scale + shift."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "scale"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["y"]),
    ]
    arrays = {"flat": np.array([-1, CLASSES]), "scale": scale.astype(np.float32), "shift": shift.astype(np.float32)}
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 1, CLASSES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def candidate(path: Path, target: str = "") -> Candidate:
    return Candidate(bundle=path.stem, target=target, graph=path, parameters=16, macs=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def identity(folder) -> Path:
    return affine(folder / "identity.onnx", np.eye(CLASSES), np.zeros(CLASSES))


def data(x: np.ndarray, y: np.ndarray | None = None, size: int = 32) -> Batches:
    return Batches(Split(x.astype(np.float32).reshape(-1, 1, 1, CLASSES), y), SPEC, size)


def score(*graphs: Path, of: Batches, by=None) -> list[Measurement]:
    return measure([candidate(g) for g in graphs], of, task=by or classes(CLASSES), batch_sizes=(1,), seconds=0)


ONE_HOT = np.tile(np.eye(CLASSES), (5, 1))  # sample i is of class i mod CLASSES


def test_a_graph_against_itself(identity):
    one, two = score(identity, identity, of=data(ONE_HOT, np.arange(20) % CLASSES))
    for row in (one, two):
        assert (row.agreement, row.sqnr, row.accuracy, row.samples) == (1.0, None, 1.0, 20)


@pytest.mark.parametrize("wrong", range(0, 21, 4))
@pytest.mark.parametrize("size", [1, 3, 32])
def test_right_answers_are_counted(identity, wrong, size):
    targets = np.arange(20) % CLASSES
    targets[:wrong] = (targets[:wrong] + 1) % CLASSES
    (row,) = score(identity, of=data(ONE_HOT, targets, size))
    assert row.accuracy == (20 - wrong) / 20
    assert row.samples == 20


def test_without_classes_there_is_no_accuracy(identity):
    (row,) = score(identity, of=data(ONE_HOT))
    assert row.accuracy is None
    assert row.agreement == 1.0


def test_agreement_is_against_the_first(folder, identity):
    """A graph that swaps classes 0 and 1 agrees on the other half, and is right where the targets are swapped too."""
    swapped = affine(folder / "swapped.onnx", np.eye(CLASSES)[[1, 0, 2, 3]], np.zeros(CLASSES))
    targets = np.arange(20) % CLASSES
    first, second = score(identity, swapped, of=data(ONE_HOT, targets))
    assert (first.agreement, second.agreement) == (1.0, 0.5)
    assert (first.accuracy, second.accuracy) == (1.0, 0.5)
    first, second = score(swapped, identity, of=data(ONE_HOT, np.array([1, 0, 2, 3])[targets]))
    assert (first.agreement, second.agreement) == (1.0, 0.5)
    assert (first.accuracy, second.accuracy) == (1.0, 0.5)


@pytest.mark.parametrize("level", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("size", [1, 7, 32])
def test_known_noise_has_a_known_sqnr(folder, identity, level, size):
    """Outputs of power 1 / CLASSES each, off by ``level`` each."""
    noisy = affine(folder / f"noisy{level}.onnx", np.eye(CLASSES), np.full(CLASSES, level))
    _, row = score(identity, noisy, of=data(ONE_HOT, size=size))
    assert row.sqnr == pytest.approx(10 * math.log10(1 / (CLASSES * level**2)), abs=1e-3)
    assert row.agreement == 1.0


@settings(max_examples=15)
@given(st.floats(0.5, 2.0), st.integers(0, 99))
def test_sqnr_of_a_scaled_graph(tmp_path_factory, scale, seed):
    """ref - scale * ref has the power (1 - scale)^2, whatever the data."""
    assume(abs(scale - 1) > 1e-3)
    path = tmp_path_factory.mktemp("scaled")
    graphs = [affine(path / f"{n}.onnx", np.eye(CLASSES) * n, np.zeros(CLASSES)) for n in (1.0, scale)]
    x = np.random.default_rng(seed).normal(size=(50, CLASSES))
    _, row = score(*graphs, of=data(x))
    assert row.sqnr == pytest.approx(-20 * math.log10(abs(1 - scale)), abs=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_are_an_error(folder, identity, bad, refused):
    """``sqnr`` None says "equal": a graph that gives NaN must not look perfect."""
    broken = affine(folder / f"broken{bad}.onnx", np.eye(CLASSES), np.array([bad, 0, 0, 0]))
    with refused(BundleError, broken.stem, "finite", hint="--data"):
        score(identity, broken, of=data(ONE_HOT))


def test_data_without_samples_is_an_error(identity, refused):
    with refused(DataError):
        score(identity, of=data(np.zeros((0, CLASSES))))


def test_data_of_another_shape_is_an_error(identity, refused):
    spec = InputSpec(name="x", shape=("batch", 3, 2, 2), mean=(0.0,) * 3, std=(1.0,) * 3, resize=2)
    with refused(DataError, "the graph expects"):
        score(identity, of=Batches(Split(np.zeros((4, 3, 2, 2), np.float32)), spec))


@pytest.mark.parametrize("sizes", [(1,), (32,), (1, 32), (1, 2, 64)])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_batch_size_is_timed(identity, sizes, threads):
    rows = measure(
        [candidate(identity), candidate(identity)], data(ONE_HOT), batch_sizes=sizes, seconds=0, threads=threads
    )
    for row in rows:
        assert list(row.latency) == [str(s) for s in sizes]
        assert all(0 < t.p50 <= t.p99 for t in row.latency.values())
        assert row.threads == threads


def test_the_row_tells_what_was_measured(identity):
    row = measure(
        [Candidate(bundle="toy", target="cpu", graph=identity, parameters=7, macs=9, precision="int8")],
        data(ONE_HOT), batch_sizes=(1,), seconds=0,
    )[0]  # fmt: skip
    assert (row.bundle, row.target, row.precision, row.parameters, row.macs) == ("toy", "cpu", "int8", 7, 9)
    assert row.bytes == identity.stat().st_size
    assert row.runtime == "onnxruntime"
    assert candidate(identity).precision == "float32"


def test_a_row_is_json_and_back(identity):
    (row,) = score(identity, of=data(ONE_HOT))
    assert from_plain(Measurement, json.loads(json.dumps(to_plain(row)))) == row
    assert isinstance(row.latency["1"], Latency)


def test_progress_counts_every_batch(identity):
    tracked = []

    class Counting:
        def track(self, items, label, total=None):
            tracked.append((label, total, 0))
            for item in items:
                tracked[-1] = (label, total, tracked[-1][2] + 1)
                yield item

        def say(self, text):
            pass

    measure([candidate(identity)], data(ONE_HOT, size=8), batch_sizes=(1, 2), seconds=0, progress=Counting())
    assert tracked == [("scoring", 3, 3), ("timing", 2, 2)]


def test_candidates_of_a_bundle(fitted):
    (only,) = candidates(fitted)
    assert only.graph == fitted.path / "model.onnx"
    assert (only.bundle, only.target, only.parameters) == (fitted.manifest.name, "", fitted.manifest.parameters)
    assert candidates(fitted, ["cpu"]) == []
    assert candidates(fitted, [""]) == [only]


def test_a_fitted_model_is_as_accurate_as_its_manifest_says(fitted, registry):
    digits = registry.get("dataset", "digits").load()
    for name in ("val", "test"):
        batches = Batches(digits.split(name), fitted.manifest.input)
        (row,) = measure(candidates(fitted), batches, task=classes(10), batch_sizes=(1,), seconds=0)
        assert row.accuracy == pytest.approx(fitted.manifest.metrics[f"{name}_accuracy"], abs=1.5 / row.samples)
        assert row.samples == len(digits.split(name))


def test_embeddings_agree_where_the_nearest_neighbor_is_the_same(identity, folder, monkeypatch):
    """Their largest number says nothing: turning all vectors alike keeps every neighbor, mixing them does not."""
    turned = affine(folder / "turned.onnx", np.roll(np.eye(CLASSES), 1, axis=1), np.zeros(CLASSES))
    mixed = affine(folder / "mixed.onnx", np.diag([0.0, 0.0, 1.0, 1.0]), np.zeros(CLASSES))
    rows = [candidate(graph) for graph in (identity, turned, mixed)]
    embeds = task("feature-extraction")
    four = np.array([[4, 0, 1, 0], [4, 0, 0, 1], [0, 5, 1, 0], [0, 5, 0, 1]])
    assert [row.agreement for row in measure(rows, data(four), task=embeds, batch_sizes=(1,), seconds=0)] == [None] * 3
    monkeypatch.setattr("pocketzoo.zoo.tasks.metrics.embeddings.NEIGHBORS", 4)
    of = data(four)
    assert [row.agreement for row in measure(rows, of, task=embeds, batch_sizes=(1,), seconds=0)] == [1.0, 1.0, 0.0]
    assert score(identity, turned, of=of)[1].agreement == 0.0


@pytest.fixture(scope="module")
def texts(folder) -> tuple[Path, Batches]:
    """A model of token ids (B, T) that gives the mean of their rows in a table, and data for it."""
    table = np.random.default_rng(0).normal(size=(20, CLASSES)).astype(np.float32)
    made = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows", "axis"], ["y"], keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")],
    )
    path = folder / "texts.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    spec = TextSpec(vocabulary=20, pad=0, max_length=64)
    return path, Batches(Split(random_samples(spec, 6, 9)["input_ids"]), spec)


def test_texts_are_timed_at_every_length(texts):
    path, of = texts
    (row,) = measure([candidate(path)], of, batch_sizes=(1, 3), lengths=(4, 64), seconds=0)
    assert list(row.latency) == ["1x4", "1x64", "3x4", "3x64"]
    (row,) = measure([candidate(path)], of, batch_sizes=(2,), seconds=0)
    assert list(row.latency) == ["2"]


@pytest.mark.parametrize("length", [0, -1, 65])
def test_lengths_that_the_model_does_not_read_are_refused(texts, length, refused):
    path, of = texts
    with refused(DataError, "lengths of 1 to 64"):
        measure([candidate(path)], of, batch_sizes=(1,), lengths=(8, length), seconds=0)


def test_images_have_no_length(identity, refused):
    with refused(DataError, "has one length", hint="--length"):
        measure([candidate(identity)], data(ONE_HOT), batch_sizes=(1,), lengths=(8,), seconds=0)


def test_rows_that_older_versions_saved_are_read(identity):
    """They have two percentiles, and nothing of memory or of intervals."""
    (row,) = score(identity, of=data(ONE_HOT))
    old = {
        k: v for k, v in to_plain(row).items() if k != "memory"
    } | {"latency": {"1": {"p50": 0.5, "p99": 0.7}}}  # fmt: skip
    read = from_plain(Measurement, old)
    assert read.latency["1"] == Latency(p50=0.5, p99=0.7)
    assert (read.memory, read.latency["1"].wide) == (None, False)


@pytest.mark.parametrize(
    ("p90", "bounds", "wide"),
    [(1.2, None, False), (1.3, None, True), (1.1, (0.98, 1.02), False), (1.1, (0.8, 1.2), True)],
)
def test_times_that_vary_much_are_said_to(p90, bounds, wide):
    faster = Interval(middle=1.0, low=bounds[0], high=bounds[1]) if bounds else None
    assert Latency(p50=1.0, p90=p90, p99=2.0, faster=faster).wide is wide
