from __future__ import annotations

from pathlib import Path

import pytest

from pocketzoo.cli.render import print_decisions
from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.job import prepare
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.compress.samples.no_data import is_none
from pocketzoo.compress.samples.synthetic import CALIBRATING, JUDGING, NORMS
from pocketzoo.core.errors import DataError
from pocketzoo.reports.measured.bench_runs import bench_headline, read_runs
from pocketzoo.reports.report import report
from pocketzoo.zoo.bundles.measured_on import SYNTHETIC
from pocketzoo.zoo.data.load_data import load_data


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def job(small, small_registry, *steps, **settings):
    return prepare(small.path, CompressSettings(steps=steps, **settings), data="none", registry=small_registry)


def test_int8_without_data_says_what_it_was_calibrated_on(small, small_registry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pocketzoo.compress.pipeline.compress_model.SECONDS", 0.0)
    bundle = compress(
        small.path, tmp_path / "out", data="none", steps=[Int8Config()], samples=12, keep_slower=True, accept=True,
        registry=small_registry,
    )  # fmt: skip
    facts = bundle.manifest.provenance["calibration"]
    assert (facts["samples"], facts["synthetic"], facts["left_out_sources"]) == (12, NORMS, 0)
    (step,) = bundle.manifest.steps
    assert step.plan["samples"] == 12
    assert (step.report.samples, step.report.sources) == (12, 0)
    assert not bundle.manifest.metrics  # no accuracy
    print_decisions(bundle.manifest)
    said = capsys.readouterr().out
    assert f"calibrated on 12 synthetic samples (from {NORMS}): no accuracy was measured" in said
    assert "source" not in said


def test_wherever_figures_show_they_are_said_to_be_of_synthetic_samples(small, small_registry, tmp_path, monkeypatch):
    """The table, the model card, the headline and the outputs of the report; nothing of bundles with data."""
    monkeypatch.setattr("pocketzoo.compress.pipeline.compress_model.SECONDS", 0.0)
    bundle = compress(
        small.path, tmp_path / "out", data="none", steps=[Int8Config()], samples=12, keep_slower=True, accept=True,
        registry=small_registry,
    )  # fmt: skip
    assert {row.made_samples for row in bundle.manifest.measurements} == {SYNTHETIC}
    card = [line for line in (bundle.path / "README.md").read_text("utf8").splitlines() if "measured:" in line]
    assert card
    assert all(line.endswith(f" on {JUDGING} synthetic samples") for line in card), card
    (run,) = read_runs([bundle], [bundle.path])
    assert bench_headline(run).endswith(", on synthetic samples")
    page = report([bundle.path], tmp_path / "r.html").read_text("utf8")
    assert "synthetic samples on onnxruntime" in page
    assert " (synthetic samples)</td>" in page


def test_as_many_samples_as_are_worth_their_time(small, small_registry):
    made = job(small, small_registry, Int8Config())
    assert made.samples.batches.samples == CALIBRATING
    assert made.task is None or made.tests.split.targets is None
    assert not made.counts.fair
    assert made.key == job(small, small_registry, Int8Config()).key  # an interrupted run goes on


@pytest.mark.parametrize(
    ("steps", "settings", "said"),
    [
        ([Int8Config()], {"max_drop": 0.01}, "max_drop is of what"),
        ([Int8Config(max_drop=0.01)], {}, "max_drop is of what"),
        ([DistillConfig()], {}, "distill learns from data"),
        ([PruneConfig(), DistillConfig(), Int8Config()], {}, "distill learns from data"),
    ],
)
def test_what_cannot_do_without_data_is_refused_by_name(small, small_registry, steps, settings, said):
    with pytest.raises(DataError, match=said) as error:
        job(small, small_registry, *steps, **settings)
    assert "--data" in error.value.hint


@pytest.mark.parametrize("step", [PruneConfig(), LowRankConfig(energy=0.9)])
def test_weights_are_fitted_only_to_what_resembles_the_samples_of_training(small, small_registry, monkeypatch, step):
    assert job(small, small_registry, step).dataset.synthetic == NORMS
    monkeypatch.setattr("pocketzoo.compress.samples.batch_norms.batch_norms", lambda _: [])
    with pytest.raises(DataError, match="fits weights to samples"):
        job(small, small_registry, step)
    assert job(small, small_registry, Int8Config()).dataset.synthetic != NORMS


def test_none_is_no_data_and_no_path():
    assert is_none("none")
    assert not is_none(Path("none"))
    assert not is_none("nonesuch")
    with pytest.raises(DataError, match="columns or sources"):
        is_none("none?group=folder")
    Path("none").mkdir()
    with pytest.raises(DataError, match="also a path"):
        is_none("none")
    assert not is_none("./none")


def test_no_other_command_does_without_data():
    with pytest.raises(DataError, match="compress alone"):
        load_data("none")
