from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import rehearsal
import torch
from feeds import arrays, only
from told import Told
from torch import nn

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress, encode
from pocketzoo.core.arrays import first
from pocketzoo.core.errors import BundleError, DataError, RecipeError, UnknownNameError
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.batches import Batches, from_arrays
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.resolver import Resolver

pytestmark = pytest.mark.usefixtures("untimed")

PRUNE, LOW_RANK, INT8 = PruneConfig(ratio=0.3), LowRankConfig(energy=0.99, only_faster=False), Int8Config()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def few(digits) -> Dataset:
    """So few digits that a run is short."""
    cut = {name: Split(s.samples[:24], s.targets[:24]) for name, s in digits.splits.items()}
    return replace(digits, name="few", splits=cut)


@pytest.fixture
def squeeze(small_registry):
    """``compress`` that knows smallnet, of which nothing is large enough to become faster, or to bear much."""
    return partial(compress, registry=small_registry, keep_slower=True, accept=True)


@pytest.fixture
def rehearse(small_registry):
    return partial(rehearsal.rehearse, registry=small_registry)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tracked: dict[str, tuple[int, int | None]] = {}

    def track(self, items, label, total=None):
        count = 0
        for item in items:
            yield item
            count += 1
        self.tracked[label] = (count, total)

    def say(self, text: str) -> None:
        self.said.append(text)


# -- a whole run, made once


def test_the_source_is_not_changed(fitted, compressed):
    assert read_bundle(fitted.path).manifest == fitted.manifest
    assert compressed.path != fitted.path


def test_the_bundle_says_what_was_done_in_which_order(fitted, compressed):
    manifest = compressed.manifest
    assert [s.compressor for s in manifest.steps] == ["prune", "low-rank", "int8"]
    assert [s.config for s in manifest.steps] == [to_plain(c) for c in (PRUNE, LOW_RANK, INT8)]
    assert manifest.name == compressed.path.name
    for name in ("model", "input", "labels", "license"):
        assert getattr(manifest, name) == getattr(fitted.manifest, name)
    assert manifest.provenance["compressed_from"]["name"] == fitted.manifest.name
    assert manifest.provenance["data"] == fitted.manifest.provenance["data"]


def test_the_calibration_is_on_record(compressed, digits):
    record = compressed.manifest.provenance["calibration"]
    assert record == {
        "data": "digits", "seed": digits.seed, "sha256": digits.digest(), "samples": 48, "skipped": 0,
        "sources": 48, "left_out_sources": 48, "grouped_by": "near-duplicates",
    }  # fmt: skip
    assert compressed.manifest.steps[2].plan["samples"] == 48


def test_parameters_are_counted_on_the_module(compressed, fitted, registry):
    module = load_module(compressed, registry)
    count = sum(p.numel() for p in module.parameters())
    assert compressed.manifest.parameters == count < fitted.manifest.parameters
    chain = [compressed.manifest.steps[i].report for i in (0, 1)]
    assert chain[0].parameters.before == fitted.manifest.parameters
    assert chain[0].parameters.after == chain[1].parameters.before
    assert chain[1].parameters.after == count
    assert chain[0].parameters.before > chain[0].parameters.after > chain[1].parameters.after


def test_the_module_loaded_again_gives_what_its_graph_gives(compressed, fitted, registry, digits):
    for bundle in (fitted, compressed):
        module = load_module(bundle, registry)
        for x, _ in arrays(Batches(digits.split("test"), bundle.manifest.input, limit=64)):
            with torch.no_grad(), OnnxRunner(bundle.graph("")) as runner:
                wanted = module(torch.from_numpy(x)).numpy()
                np.testing.assert_allclose(only(runner, x), wanted, atol=1e-4 * np.abs(wanted).max())
    assert compressed.manifest.provenance["export_difference"] <= 1e-4


def test_loading_twice_gives_equal_weights(compressed, registry):
    one, two = (load_module(compressed, registry).state_dict() for _ in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_files_are_the_float_graph_and_one_for_each_target(compressed):
    found = {name: (e.target, e.precision) for name, e in compressed.manifest.files.items()}
    assert found == {
        "README.md": ("", ""),
        "model.safetensors": ("", ""),
        "model.onnx": ("", "float32"),
        "step-3.tensors.safetensors": ("", "int8"),
        "model.int8.cpu.onnx": ("cpu", "int8"),
        "model.int8.tensorrt-rtx.onnx": ("tensorrt-rtx", "int8"),
    }
    assert {p.name for p in compressed.path.iterdir()} == {*found, MANIFEST}


def test_the_card_names_the_steps(compressed):
    assert "prune, low-rank, int8" in (compressed.path / "README.md").read_text()


def test_rows_are_the_source_then_each_new_graph(compressed, fitted, digits):
    rows = list(compressed.manifest.measurements)
    assert [(r.bundle, r.target, r.precision) for r in rows] == [
        (fitted.manifest.name, "", "float32"),
        (compressed.manifest.name, "", "float32"),
        (compressed.manifest.name, "cpu", "int8"),
        (compressed.manifest.name, "tensorrt-rtx", "int8"),
    ]
    tests = len(digits.split("test"))
    for row in rows:
        assert row.samples == tests
        assert row.runtime == "onnxruntime"
        assert set(row.latency) == {"1", "32"}
        for latency in row.latency.values():
            assert 0 < latency.p50 <= latency.p99
        assert 0 <= row.agreement <= 1
        assert (row.accuracy * tests) == pytest.approx(round(row.accuracy * tests))
    first, rest = rows[0], rows[1:]
    assert (first.agreement, first.sqnr) == (1.0, None)
    assert (first.parameters, first.macs) == (fitted.manifest.parameters, fitted.manifest.macs)
    assert first.accuracy == pytest.approx(fitted.manifest.metrics["test_accuracy"], abs=1.5 / tests)
    for row in rest:
        assert (row.parameters, row.macs) == (compressed.manifest.parameters, compressed.manifest.macs)
        assert row.sqnr > 5  # measured: 12
        assert row.agreement > 0.8  # measured: 0.95
        assert row.accuracy > 0.8
    assert all(r.bytes < rows[1].bytes / 2 for r in rows[2:])
    for row, path in zip(rows, [fitted.graph(""), *[compressed.graph(t) for t in ("", "cpu", "tensorrt-rtx")]],
                         strict=True):  # fmt: skip
        assert row.bytes == path.stat().st_size


def test_scores_can_be_recounted(compressed, fitted, digits):
    """Accuracy, agreement and SQNR of one row from the graphs themselves."""
    row = compressed.manifest.measurements[2]
    x, y = next(iter(arrays(Batches(digits.split("test"), fitted.manifest.input, size=1000))))
    with OnnxRunner(fitted.graph("")) as a, OnnxRunner(compressed.graph("cpu")) as b:
        wanted, given = only(a, x).astype(np.float64), only(b, x).astype(np.float64)
    assert row.accuracy == pytest.approx(np.mean(given.argmax(1) == y), abs=1e-12)
    assert row.agreement == pytest.approx(np.mean(given.argmax(1) == wanted.argmax(1)), abs=1e-12)
    assert row.sqnr == pytest.approx(10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()), abs=1e-3)


@pytest.mark.parametrize("target", ["", "cpu", "tensorrt-rtx"])
def test_layer_costs_are_those_of_the_graph(target, compressed):
    costs = [to_plain(c) for c in layer_costs(compressed.graph(target) if target else compressed.graph(""))]
    assert to_plain(compressed.manifest.layers[target or "float"]) == costs
    assert sum(c["macs"] for c in costs) == compressed.manifest.macs


def test_the_plan_of_int8_names_layers_that_exist(compressed):
    layers = {c.layer for c in compressed.manifest.layers["float"]}
    assert set(compressed.manifest.steps[2].plan["layers"]) == layers


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_the_saved_plan_encodes_to_the_graph_in_the_bundle(target, compressed, registry):
    made = encode(compressed, registry.get("target", target), Resolver(registry).compressors(compressed))
    assert made.SerializeToString(deterministic=True) == onnx.load(compressed.graph(target)).SerializeToString(
        deterministic=True
    )


def test_a_float_bundle_has_nothing_to_encode(fitted, registry):
    assert encode(fitted, registry.get("target", "cpu"), {}) is None


@pytest.mark.parametrize("steps", [[INT8], [PRUNE], [LOW_RANK], [PRUNE, INT8]])
def test_an_int8_bundle_is_not_compressed_again(steps, compressed, few, tmp_path, refused):
    with refused(RecipeError, "is already int8", hint="the bundle it was made from"):
        compress(compressed.path, tmp_path / "out", data=few, steps=steps)
    assert list(tmp_path.iterdir()) == []


# -- mistakes, found before anything is written


WRONG = {
    "unknown target": ({"targets": ("cpu", "gpu")}, UnknownNameError, "no target is called 'gpu'", "cpu"),
    "no target at all": ({"targets": ()}, RecipeError, "no target is given", "cpu"),
    "no steps": ({"steps": []}, RecipeError, "no steps are given", "--prune"),
    "int8 first": ({"steps": [INT8, PRUNE]}, RecipeError, "int8 is not the last step", "put prune"),
    "int8 in the middle": ({"steps": [PRUNE, INT8, LOW_RANK]}, RecipeError, "int8 is not the last step", ""),
    "int8 twice": ({"steps": [INT8, INT8]}, RecipeError, "int8", ""),
    "no config": ({"steps": ["prune"]}, RecipeError, "no compressor is configured by str", ""),
    "unknown data": ({"data": "digit"}, UnknownNameError, "no dataset is called 'digit'", "'digits'"),
    "missing data": ({"data": "/nowhere/at/all"}, DataError, "no data set at /nowhere/at/all", "path"),
    "missing model": ({"model": "/nowhere/at/all"}, BundleError, "no bundle at /nowhere/at/all", "fit"),
    "unknown model": ({"model": "tinynte"}, UnknownNameError, "'tinynte'", "'tinynet'"),
    "missing recipe": ({"recipe": "/nowhere/r.toml"}, RecipeError, "no recipe /nowhere/r.toml", "path"),
    "unknown layer": ({"steps": [PruneConfig(skip=("backbone.stem",))]}, UnknownNameError, "skip names no layer",
                      "backbone.stem.0"),
    "no samples": ({"samples": 0}, DataError, "0 samples cannot calibrate", "one or more"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("verb", [compress, rehearsal.rehearse])
def test_a_mistake_is_refused_and_nothing_is_written(verb, name, fitted_copy, few, tmp_path, refused):
    changes, kind, message, hint = WRONG[name]
    given = {"model": fitted_copy.path, "data": few, "steps": [PRUNE], "samples": 16, **changes}
    model = given.pop("model")
    arguments = (model, tmp_path / "out") if verb is compress else (model,)
    with refused(kind, message, hint=hint):
        verb(*arguments, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]
    assert read_bundle(fitted_copy.path).manifest == fitted_copy.manifest


# -- failing half-way


def whole(x: np.ndarray) -> Dataset:
    """A data set without classes, divided as any other."""
    return from_arrays("bad", (), x, None)


def apart(good: np.ndarray, test: np.ndarray) -> Dataset:
    """Samples to calibrate on that fit, and others to measure on."""
    return Dataset("late", (), {"train": Split(good), "val": Split(good), "test": Split(test)})


NOTHING = np.zeros((0, 28, 28), np.uint8)
BAD = {
    "another size": lambda good: whole(np.zeros((60, 1, 30, 30), np.float32)),
    "flat": lambda good: whole(np.zeros((60, 784), np.float32)),
    "three channels": lambda good: whole(np.zeros((60, 3, 28, 28), np.float32)),
    "NaN": lambda good: whole(np.full((60, 1, 28, 28), np.nan, np.float32)),
    "channels first as bytes": lambda good: whole(np.zeros((60, 1, 28, 28), np.uint8)),
    "one number an image as bytes": lambda good: whole(np.zeros((60,), np.uint8)),
    "only two images": lambda good: whole(good[:2]),  # none is left for the test split
    "test split of another size": lambda good: apart(good, np.zeros((9, 1, 30, 30), np.float32)),
    "test split empty": lambda good: apart(good, NOTHING),
    "train split empty": lambda good: apart(NOTHING, good),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [PRUNE, INT8], ids=["prune", "int8"])
def test_data_that_does_not_fit_leaves_an_existing_bundle_as_it_was(name, step, small_copy, digits, tmp_path, squeeze):
    out = tmp_path / "out"
    shutil.copytree(small_copy.path, out)
    before = contents(tmp_path)
    data = BAD[name](digits.split("train").samples[:16])
    with pytest.raises(DataError) as caught:
        squeeze(small_copy.path, out, data=data, steps=[step], samples=16, force=True)
    assert caught.value.hint
    assert contents(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_bundle_is_not_overwritten(kind, small, few, tmp_path, refused, squeeze):
    out = tmp_path / "precious"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for force in (False, True):
        with refused(BundleError, f"{out} exists and is not a bundle", hint="-o"):
            squeeze(small.path, out, data=few, steps=[PRUNE], samples=8, force=force)
    assert contents(tmp_path) == before


def test_a_finished_bundle_is_not_replaced_unless_told_so(small, small_copy, few, tmp_path, refused, squeeze):
    """Said before the model, the data or a step is looked at."""
    out, before = small_copy.path, contents(tmp_path)
    with refused(BundleError, f"{out} is already a finished bundle", hint="give another -o, or --force to replace it"):
        squeeze(tmp_path / "no model", out, data="no data", steps=[])
    assert contents(tmp_path) == before
    bundle = squeeze(small.path, out, data=few, steps=[PRUNE], samples=8, force=True)
    assert [step.compressor for step in read_bundle(out).manifest.steps] == ["prune"]
    assert read_bundle(out).manifest == bundle.manifest
    assert names(tmp_path) == [out.name]


def test_what_was_finished_by_another_meanwhile_is_not_lost_nor_is_what_was_made(
    small, few, tmp_path, refused, squeeze
):
    """It is finished while this run works; the run's steps are kept, and --force takes them."""
    out = tmp_path / "out"

    class Other(Told):
        def say(self, text: str) -> None:
            super().say(text)
            if not out.exists():
                shutil.copytree(small.path, out)

    given = {"data": few, "steps": [PRUNE], "samples": 8}
    with refused(BundleError, f"{out} is already a finished bundle", hint="--force"):
        squeeze(small.path, out, **given, progress=Other())
    assert read_bundle(out).manifest == small.manifest
    assert names(tmp_path) == [".out.run", "out"]
    with refused(BundleError, "is already a finished bundle", hint="--force"):
        squeeze(small.path, out, **given)
    told = Told()
    bundle = squeeze(small.path, out, **given, force=True, progress=told)
    assert told.said[0] == "resuming after step 1 of an earlier run"
    assert [step.compressor for step in bundle.manifest.steps] == ["prune"]
    assert names(tmp_path) == ["out"]


# -- runs of their own


def test_compressing_in_place(small_copy, few, small_registry, squeeze):
    """out == model: read first, replaced at the end, whole."""
    path = small_copy.path
    steps = [PruneConfig(ratio=0.5, granularity="weight"), INT8]
    bundle = squeeze(path, path, data=few, steps=steps, samples=8, force=True)
    assert read_bundle(path).manifest == bundle.manifest
    assert [s.compressor for s in bundle.manifest.steps] == ["prune", "int8"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    rows = bundle.manifest.measurements
    assert [(r.bundle, r.target) for r in rows] == [("small-model", ""), ("copy", ""), ("copy", "cpu")]
    module = load_module(bundle, small_registry)
    zeros = sum(int((m.weight == 0).sum()) for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert zeros > 0.49 * bundle.manifest.parameters


def test_two_runs_write_the_same_model(small, few, tmp_path, squeeze):
    steps = [PruneConfig(ratio=0.3), LowRankConfig(energy=0.9, only_faster=False), Int8Config(ranges="percentile")]
    given = {"data": few, "steps": steps, "samples": 16}
    one, two = (squeeze(small.path, tmp_path / n / "same", **given) for n in "ab")
    for name in ("model.safetensors", "model.onnx", "model.int8.cpu.onnx"):
        assert one.manifest.files[name].sha256 == two.manifest.files[name].sha256, name
    assert [(s.config, s.plan) for s in one.manifest.steps] == [(s.config, s.plan) for s in two.manifest.steps]
    assert one.manifest.layers == two.manifest.layers


def test_compressing_step_by_step_keeps_the_record_of_all_steps(small, few, tmp_path, small_registry, squeeze):
    squeeze(small.path, tmp_path / "a", data=few, steps=[PruneConfig(ratio=0.5)], samples=16)
    squeeze(
        tmp_path / "a", tmp_path / "b", data=few, steps=[LowRankConfig(parameters=0.5, only_faster=False)], samples=16
    )
    bundle = squeeze(tmp_path / "b", tmp_path / "c", data=few, steps=[INT8], targets=("tensorrt",), samples=16)
    assert [s.compressor for s in bundle.manifest.steps] == ["prune", "low-rank", "int8"]
    assert set(bundle.encodings()) == {"", "tensorrt"}
    sizes = [read_bundle(tmp_path / n).manifest.parameters for n in "abc"]
    assert small.manifest.parameters > sizes[0] > sizes[1] == sizes[2]
    module = load_module(bundle, small_registry)
    x = next(iter(arrays(Batches(few.split("test"), bundle.manifest.input))))[0]
    with torch.no_grad(), OnnxRunner(bundle.graph("")) as runner:
        wanted = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(only(runner, x), wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_first_target_decides_the_multiples(small, few, tmp_path, squeeze, rehearse):
    multiples = {"cpu": 8, "tensorrt": 16}
    for targets in (("cpu", "tensorrt"), ("tensorrt", "cpu")):
        steps = rehearse(small.path, data=few, steps=[PruneConfig(ratio=0.6)], targets=targets, samples=8)
        kept = [len(a["kept"]) for axes in steps[0].plan["axes"].values() for a in axes if a["dim"] == 0]
        assert kept
        assert all(k % multiples[targets[0]] == 0 for k in kept)
    bundle = squeeze(small.path, tmp_path / "out", data=few, steps=[INT8], targets=("tensorrt", "cpu"), samples=8)
    assert [r.target for r in bundle.manifest.measurements] == ["", "", "tensorrt", "cpu"]


def test_a_recipe_and_steps_are_run_one_after_the_other(small, few, tmp_path, rehearse):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nkind = "prune"\ngranularity = "weight"\nratio = 0.5\n')
    steps = rehearse(small.path, data=few, recipe=recipe, steps=[INT8], samples=8)
    assert [s.compressor for s in steps] == ["prune", "int8"]
    assert steps[0].config["granularity"] == "weight"


def test_a_registered_model_can_be_compressed(few, tmp_path):
    bundle = compress("tinynet", tmp_path / "out", data=few, steps=[INT8], samples=8, keep_slower=True)
    assert bundle.manifest.provenance["compressed_from"]["name"] == "tinynet"
    assert bundle.manifest.labels[0] == "t-shirt"
    # The digits are none of its classes: they calibrate and tell agreement, but there is no accuracy.
    assert all(r.accuracy is None for r in bundle.manifest.measurements)


def test_progress_tells_every_part(small, few, tmp_path, squeeze):
    recorder = Recorder()
    squeeze(small.path, tmp_path / "out", data=few, steps=[PRUNE, INT8], samples=16, progress=recorder)
    assert [t for t in recorder.said if t.startswith("prune")] == ["prune: planning", "prune: applying"]
    assert any("export" in t for t in recorder.said)
    assert recorder.tracked["int8: calibrating"] == (1, 1)
    assert recorder.tracked["scoring"] == (1, 1)
    assert all(total is None or count == total for count, total in recorder.tracked.values())


@pytest.mark.parametrize("steps", [[LOW_RANK], [PRUNE, LOW_RANK]])
def test_a_dry_run_writes_nothing_and_plans_every_step(steps, small_copy, few, tmp_path, monkeypatch, rehearse):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    found = rehearse(small_copy.path, data=few, steps=steps, samples=16)
    assert contents(tmp_path) == before
    assert [s.compressor for s in found] == [{PRUNE: "prune", LOW_RANK: "low-rank"}[c] for c in steps]
    for step in found:
        assert step.plan
        assert step.report.parameters.after < step.report.parameters.before


def test_a_dry_run_with_int8_plans_what_a_run_does(small, few, tmp_path, squeeze, rehearse):
    steps = [PruneConfig(ratio=0.5), INT8]
    planned = rehearse(small.path, data=few, steps=steps, samples=16)
    done = squeeze(small.path, tmp_path / "out", data=few, steps=steps, samples=16)
    for one, other in zip(planned, done.manifest.steps, strict=True):
        assert json.loads(json.dumps(to_plain(one.plan))) == to_plain(other.plan)
        assert (one.compressor, to_plain(one.config)) == (other.compressor, to_plain(other.config))


def test_metrics_are_those_of_the_rows(compressed):
    rows = {r.target or "float": r.accuracy for r in compressed.manifest.measurements[1:]}
    metrics = dict(compressed.manifest.metrics)
    assert set(metrics.pop("intervals")) == set(metrics)
    assert metrics == {f"test_accuracy_{target}": value for target, value in rows.items()}


def test_the_bytes_of_int8_are_those_of_the_files(compressed):
    report = compressed.manifest.steps[2].report
    assert report.bytes.before == compressed.graph("").stat().st_size
    assert report.bytes.after == compressed.graph("cpu").stat().st_size < report.bytes.before / 2


def test_a_step_that_only_quantises_leaves_the_float_model_as_it_was(small, few, tmp_path, small_registry, squeeze):
    bundle = squeeze(small.path, tmp_path / "out", data=few, steps=[INT8], samples=8)
    for name in ("model.safetensors", "model.onnx"):
        assert bundle.manifest.files[name].sha256 == small.manifest.files[name].sha256
    assert bundle.manifest.files["model.onnx"].precision == "float32"
    one, two = (load_module(b, small_registry).state_dict() for b in (small, bundle))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert set(bundle.manifest.layers) == {"float", "cpu"}
    assert (bundle.manifest.parameters, bundle.manifest.macs) == (small.manifest.parameters, small.manifest.macs)


def test_unreadable_images_are_an_error_or_counted(small, photos, tmp_path, refused, squeeze):
    folder = photos(tmp_path / "data", {str(i): 5 for i in range(10)})
    data = load_data(folder)
    broken = [data.split("train").samples[3], data.split("test").samples[1]]
    for path in broken:
        path.write_bytes(b"\x89PNG no image")
    out = tmp_path / "out"
    with refused(DataError, str(broken[0]), hint="--skip-bad"):
        squeeze(small.path, out, data=folder, steps=[INT8])
    assert not out.exists()
    bundle = squeeze(small.path, out, data=folder, steps=[INT8], skip_bad=True)
    assert bundle.manifest.steps[0].plan["samples"] == 29  # of 30 to calibrate on
    assert [r.samples for r in bundle.manifest.measurements] == [9, 9, 9]  # of 10 to measure


@pytest.mark.parametrize("step", [PRUNE, LOW_RANK, INT8], ids=["prune", "low-rank", "int8"])
def test_an_image_left_out_is_counted_once_however_often_samples_are_read(step, small, photos, tmp_path, squeeze):
    folder = photos(tmp_path / "data", {str(i): 5 for i in range(10)})
    load_data(folder).split("train").samples[3].write_bytes(b"no image")
    bundle = squeeze(small.path, tmp_path / "out", data=folder, steps=[step], skip_bad=True)
    record = bundle.manifest.provenance["calibration"]
    assert record["skipped"] == 1
    assert record["samples"] == 29


def test_samples_limit_what_is_calibrated_on(small, digits, rehearse):
    assert rehearse(small.path, data=digits, steps=[INT8], samples=7)[0].plan["samples"] == 7


def test_a_class_the_model_does_not_know_is_refused(small, few, refused, rehearse):
    other = replace(few, labels=(*[str(i) for i in range(9)], "nine"))
    with refused(DataError, "classes unknown to the model: nine"):
        rehearse(small.path, data=other, steps=[PRUNE])


def test_calling_the_package_is_the_verb(small, few, tmp_path, refused):
    import pocketzoo

    with refused(RecipeError, "no steps are given"):
        pocketzoo.compress(small.path, tmp_path / "out", data=few)


def test_inputs_can_be_read_as_often_as_one_likes(small, few):
    from pocketzoo.compress.pipeline.job import Inputs

    inputs = Inputs.of(Batches(few.split("train"), small.manifest.input, size=10, limit=24))
    one, two = ([first(x) for x in copy.copy(inputs)] for _ in range(2))
    assert [len(b) for b in one] == [10, 10, 4]
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
