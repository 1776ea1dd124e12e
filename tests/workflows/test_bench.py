from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import pocketzoo
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.core.errors import BundleError, DataError, UnknownNameError
from pocketzoo.reports.measured.bench_runs import bench_headline, read_runs
from pocketzoo.train.fit import fit
from pocketzoo.workflows.bench import ROUNDS, bench
from pocketzoo.zoo.bundles.bundle import read_bundle, updating
from pocketzoo.zoo.bundles.measured_on import RANDOM
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.load_data import load_data

QUICK: dict[str, Any] = {"seconds": 0.0, "batch_sizes": (1,), "memory": False}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture
def twin(fitted_copy):
    """The same model in another file: an ONNX graph with a comment more."""
    with updating(fitted_copy) as draft:
        model = onnx.load(draft.folder / "model.onnx")
        model.doc_string = "the same"
        onnx.save(model, draft.folder / "model.onnx")
        draft.manifest = replace(draft.manifest, name="twin")
    return read_bundle(fitted_copy.path)


def test_a_model_agrees_with_itself(fitted, twin, digits):
    rows = bench([fitted.path, twin.path], data=digits, **QUICK)
    assert [r.bundle for r in rows] == [fitted.manifest.name, "twin"]
    for row, bundle in zip(rows, (fitted, twin), strict=True):
        assert (row.target, row.precision) == ("", "float32")
        assert row.agreement == 1.0
        assert row.sqnr is None  # no noise: no ratio
        assert row.accuracy == rows[0].accuracy
        assert (row.parameters, row.macs) == (fitted.manifest.parameters, fitted.manifest.macs)
        assert row.bytes == bundle.graph("").stat().st_size
        assert row.samples == len(digits.split("test"))


def test_equal_graphs_are_measured_once(fitted, fitted_copy, compressed, digits):
    rows = bench([fitted.path, fitted.path, fitted_copy.path, compressed.path, compressed.path], data=digits, **QUICK)
    assert [(r.bundle, r.target) for r in rows] == [
        (fitted.manifest.name, ""),
        *[(compressed.manifest.name, t) for t in ("", "cpu", "tensorrt-rtx")],
    ]


def test_every_graph_of_every_bundle_has_a_row(fitted, compressed, digits):
    rows = bench([fitted.path, compressed.path], data=digits, **QUICK)
    name = compressed.manifest.name
    assert [(r.bundle, r.target) for r in rows] == [
        (fitted.manifest.name, ""), (name, ""), (name, "cpu"), (name, "tensorrt-rtx")
    ]  # fmt: skip
    stored = {(r.bundle, r.target): r for r in compressed.manifest.measurements}
    for row in rows:
        before = stored[row.bundle, row.target]
        assert row.accuracy == pytest.approx(before.accuracy)
        assert row.agreement == pytest.approx(before.agreement)
        assert row.bytes == before.bytes
        assert (row.sqnr is None) == (before.sqnr is None)
        if row.sqnr is not None:
            assert row.sqnr == pytest.approx(before.sqnr, abs=0.1)


@pytest.mark.slow
def test_the_first_bundle_is_the_reference(fitted, compressed, digits):
    forwards = bench([fitted.path, compressed.path], data=digits, **QUICK)
    backwards = bench([compressed.path, fitted.path], data=digits, **QUICK)
    assert forwards[0].sqnr is None
    assert (backwards[0].bundle, backwards[0].target, backwards[0].sqnr) == (compressed.manifest.name, "", None)
    assert backwards[-1].bundle == fitted.manifest.name
    assert backwards[-1].agreement == pytest.approx(forwards[1].agreement)  # agreement is symmetric
    # The noise is the same both ways, the signal is not.
    assert backwards[-1].sqnr == pytest.approx(forwards[1].sqnr, abs=3.0)


def test_without_data_there_is_no_accuracy(fitted):
    rows = bench([fitted.path], **QUICK)
    assert rows[0].accuracy is None
    assert rows[0].samples == 64
    assert rows[0].agreement == 1.0


def test_random_samples_are_the_same_for_all(fitted, twin):
    rows = bench([fitted.path, twin.path], **QUICK)
    assert (rows[1].agreement, rows[1].sqnr) == (1.0, None)


@pytest.mark.parametrize("sizes", [(1,), (2, 5), (1, 8, 100)])
def test_batch_sizes_are_the_ones_asked_for(sizes, fitted):
    row = bench([fitted.path], batch_sizes=sizes, seconds=0.0, memory=False)[0]
    assert list(row.latency) == [str(s) for s in sizes]
    assert all(0 < t.p50 <= t.p99 for t in row.latency.values())


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_number_of_threads_is_on_record(threads, fitted):
    assert bench([fitted.path], threads=threads, **QUICK)[0].threads == threads


def test_data_of_unknown_classes_is_measured_without_accuracy(fitted, digits):
    strange = replace(digits, labels=tuple("abcdefghij"))
    assert bench([fitted.path], data=strange, **QUICK)[0].accuracy is None


def test_data_that_does_not_fit_is_refused(fitted, refused):
    wrong = np.zeros((10, 3, 5, 5), np.float32)
    data = Dataset("wrong", (), {k: Split(wrong) for k in ("train", "val", "test")})
    with refused(DataError, "3 x 5 x 5", "1 x 28 x 28"):
        bench([fitted.path], data=data, **QUICK)


def test_an_empty_test_split_is_refused(fitted, digits, refused):
    empty = Split(digits.split("test").samples[:0])
    with refused(DataError, "no samples"):
        bench([fitted.path], data=replace(digits, splits={**digits.splits, "test": empty}), **QUICK)


def test_nothing_to_measure_is_refused(refused):
    with refused(DataError, "no bundles are given", hint="bundles"):
        bench([])


def test_a_bundle_that_is_missing_is_refused(fitted, tmp_path, refused):
    with refused(BundleError, str(tmp_path / "gone")):
        bench([fitted.path, tmp_path / "gone"], **QUICK)


def test_models_of_other_outputs_are_not_compared(fitted, digits, tmp_path, refused):
    some = {k: Split(s.samples[s.targets < 3], s.targets[s.targets < 3]) for k, s in digits.splits.items()}
    three = fit("tinynet", tmp_path / "three", data=Dataset("three", ("0", "1", "2"), some), epochs=1)
    with refused(DataError, "three", fitted.manifest.name, "same input and output shapes", hint="separate runs"):
        bench([fitted.path, three.path], **QUICK)


def test_saving_puts_the_rows_into_every_bundle(fitted, compressed, digits, tmp_path):
    for bundle in (fitted, compressed):
        shutil.copytree(bundle.path, tmp_path / bundle.path.name)
    paths = [tmp_path / b.path.name for b in (fitted, compressed)]
    rows = bench(paths, data=digits, save=True, **QUICK)
    for path, before in zip(paths, (fitted, compressed), strict=True):
        after = read_bundle(path)
        # Batches of 32, which ``compress`` timed, were not measured again.
        assert after.manifest.measurements == (*before.manifest.measurements, *rows)
        kept = replace(
            after.manifest,
            measurements=before.manifest.measurements,
            created=before.manifest.created,
            files=before.manifest.files,
        )
        assert kept == before.manifest
        for name, entry in before.manifest.files.items():
            assert after.manifest.files[name].sha256 == entry.sha256 or name == "README.md"
            assert after.manifest.files[name].target == entry.target
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)


def test_random_samples_replace_nothing_that_was_measured_on_data(fitted_copy, digits, tmp_path, run):
    """And they are marked wherever they show: rows, table, JSON, manifest, headline and report."""
    path = fitted_copy.path
    measured = bench([path], data=digits, save=True, **QUICK)
    for _ in range(2):
        random = bench([path], save=True, **QUICK)
    kept = read_bundle(path).manifest.measurements
    assert kept == (*measured, *random), "of random ones the last alone"
    assert [row.made_samples for row in kept] == ["", RANDOM]
    assert random[0].measured is not None
    assert random[0].measured.data == "random samples"
    assert json.loads((path / "pocketzoo.json").read_text())["measurements"][1]["measured"]["data"] == "random samples"
    line = ("bench", path, "--seconds", "0", "--no-memory", "--batch", "1")
    assert "64 random samples" in run(*line).stdout
    assert json.loads(run(*line, "--json").stdout)[0]["measured"]["data"] == "random samples"
    runs = read_runs([read_bundle(path)], [path])
    assert [each.made_samples for each in runs] == ["", RANDOM], "what is said first is of data"
    assert "accuracy" in bench_headline(runs[0])
    assert bench_headline(runs[1]).endswith(", on random samples")
    page = run("report", path, "-o", tmp_path / "report.html")
    assert page.exit_code == 0, page.stderr
    text = (tmp_path / "report.html").read_text("utf8")
    assert "on random samples" in text
    assert "random samples on onnxruntime" in text
    assert run("info", path, "--json").stdout.count('"data": "random samples"') == 1, "in its row alone"
    assert "on random samples" not in (path / "README.md").read_text("utf8"), "where there are data"


def test_where_nothing_but_random_samples_was_measured_it_is_said(compressed, tmp_path, run):
    """By the model card, and by ``info`` of each output."""
    path = shutil.copytree(compressed.path, tmp_path / "small")
    with updating(read_bundle(path)) as draft:
        draft.manifest = replace(draft.manifest, measurements=())
    bench([path], save=True, **QUICK)
    said = [line for line in (path / "README.md").read_text("utf8").splitlines() if line.startswith("- measured")]
    assert said
    assert all(line.endswith("on 64 random samples") for line in said), said
    shown = run("info", path).stdout.splitlines()
    assert [line.split()[1:] for line in shown if line.startswith("measured.data")] == [["random", "samples"]]
    assert all("(random samples)" in line for line in shown if " dB for " in line)


def test_without_saving_nothing_is_written(fitted_copy, digits):
    before = {p.name: p.stat().st_mtime_ns for p in fitted_copy.path.iterdir()}
    bench([fitted_copy.path], data=digits, **QUICK)
    assert {p.name: p.stat().st_mtime_ns for p in fitted_copy.path.iterdir()} == before


def test_a_registered_model_is_measured_but_not_written_to(fitted):
    from pocketzoo.zoo.models.open_model import open_model

    before = open_model("tinynet")
    rows = bench(["tinynet", fitted.path], save=False, **QUICK)
    assert [r.bundle for r in rows] == ["tinynet", fitted.manifest.name]
    bench(["tinynet"], save=True, **QUICK)
    assert open_model("tinynet").manifest == before.manifest


@pytest.mark.slow
def test_pruned_single_weights_are_no_fewer_parameters(fitted, digits, tmp_path):
    """Honest rows: zeros are still stored and still computed with."""
    from pocketzoo.compress.pipeline.compress_model import compress

    sparse = compress(
        fitted.path, tmp_path / "sparse", data=digits, steps=[PruneConfig(ratio=0.5, granularity="weight")], samples=8
    )
    rows = pocketzoo.bench([fitted.path, sparse.path], data=digits, **QUICK)
    assert rows[1].parameters == rows[0].parameters
    assert rows[1].macs == rows[0].macs
    assert rows[1].bytes == pytest.approx(rows[0].bytes, rel=0.02)
    assert rows[1].sqnr is not None


def test_every_runtime_measures_every_model(fitted, compressed):
    rows = bench([fitted.path, compressed.path], runtimes=("torch", "onnxruntime"), **QUICK)
    assert [(row.runtime, row.target) for row in rows] == [
        ("torch", ""), ("torch", ""), *[("onnxruntime", t) for t in ("", "", "cpu", "tensorrt-rtx")]
    ]  # fmt: skip
    assert rows[2].agreement == 1.0  # the graph gives what the module gives
    assert rows[2].sqnr is not None
    assert rows[2].sqnr > 80
    assert rows[0].bytes == (fitted.path / "model.safetensors").stat().st_size


def test_a_runtime_that_is_not_here_is_refused_before_anything_is_read(tmp_path, refused):
    with refused(UnknownNameError, "'onnxruntime-npu'"):
        bench([tmp_path / "gone"], runtimes=("onnxruntime-npu",))


def test_times_are_told_in_full(fitted, twin):
    one, two = bench([fitted.path, twin.path], batch_sizes=(4,), seconds=0.01)
    for row in (one, two):
        times = row.latency["4"]
        assert times.p90 is not None
        assert 0 < times.p50 <= times.p90 <= times.p99
        assert times.runs >= ROUNDS
        assert 0 < times.throughput <= 2 * 4e3 / times.p50  # slow ones included, and half are as slow as the median
        assert row.memory is not None
        assert row.memory.peak > row.memory.imports > 10_000_000
    assert one.latency["4"].faster is None
    faster = two.latency["4"].faster
    assert faster is not None
    assert faster.low <= faster.middle <= faster.high


def test_a_busy_thread_is_compared_by_its_own_time_and_several_by_the_clock(fitted, twin):
    clocks = [bench([fitted.path, twin.path], threads=n, **QUICK)[1].latency["1"].clock for n in (1, 2)]
    assert clocks == ["cpu", "wall"]
