"""How the sources that were left out did, beside those that calibrated: recounted, kept, printed and shown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from pocketzoo.cli.render import print_decisions
from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.job import SCORED
from pocketzoo.measure.calibration_sources import source_sentences
from pocketzoo.reports.report import report
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.step_record import CalibrationScores, Change, StepReport
from pocketzoo.zoo.catalog.dataset import Groups
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.load_data import load_data


def pictures(sources, each, seed=0):
    """Noisy copies of a few digits: a source is a digit with its copies."""
    digits = load_data("digits").split("train")
    generator = np.random.default_rng(seed)
    x = np.repeat(np.asarray(digits.samples[:sources]), each, 0).astype(int)
    x = (x + generator.integers(-25, 25, x.shape)).clip(0, 255).astype(np.uint8)
    groups = Groups(np.repeat(np.arange(sources), each), "folder")
    return from_arrays("pictures", tuple("0123456789"), x, np.repeat(digits.targets[:sources], each), groups=groups)


@pytest.fixture(scope="module")
def compressed(small, small_registry, tmp_path_factory):
    """The data, and int8 of the small network calibrated on them, by how many sources there are."""
    made = {}

    def make(sources):
        if sources not in made:
            data, out = pictures(sources, 60 // sources), tmp_path_factory.mktemp("sources") / "small"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("pocketzoo.compress.pipeline.compress_model.SECONDS", 0.0)
                made[sources] = data, compress(
                    small.path, out, data=data, steps=[Int8Config()], keep_slower=True, accept=True,
                    registry=small_registry,
                )  # fmt: skip
        return made[sources]

    return make


def outputs(graph, x):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].astype(np.float64)


def recounted(small, bundle, samples):
    """SQNR and agreement of samples, through onnxruntime alone."""
    x = ((np.asarray(samples, np.float32) / 255 - 0.3) / 0.4)[:, None]
    whole, made = outputs(small.graph(""), x), outputs(bundle.graph("cpu"), x)
    sqnr = 10 * math.log10((whole**2).sum() / ((whole - made) ** 2).sum())
    return sqnr, float((whole.argmax(1) == made.argmax(1)).mean())


def test_what_is_printed_of_both_is_what_recounting_gives(compressed, small, capsys, tmp_path):
    data, bundle = compressed(12)
    train, val = data.split("train"), data.split("val")
    (step,) = bundle.manifest.steps
    calibration = bundle.manifest.provenance["calibration"]
    assert calibration["sources"] == train.groups.count
    assert calibration["left_out_sources"] == step.report.sources == val.groups.count
    assert calibration["grouped_by"] == "folder"
    scores = step.report.calibration
    assert scores.samples == min(SCORED, len(train))
    assert scores.sources == train.groups.count
    for samples, sqnr, agreement, metric in (
        (val, step.report.sqnr, step.report.agreement.after, step.report.metric.after),
        (train, scores.sqnr, scores.agreement, scores.metric),
    ):
        found = recounted(small, bundle, samples.samples)
        assert found == (pytest.approx(sqnr, abs=0.05), pytest.approx(agreement))
        x = ((np.asarray(samples.samples, np.float32) / 255 - 0.3) / 0.4)[:, None]
        right = outputs(bundle.graph("cpu"), x).argmax(1) == samples.targets
        assert right.mean() == pytest.approx(metric)
    print_decisions(bundle.manifest)
    shown = capsys.readouterr().out
    assert (
        f"calibrated on {len(train)} samples of {train.groups.count} sources, told apart by folder; "
        f"judged on {len(val)} samples of {val.groups.count} sources left out"
    ) in shown
    assert f"SQNR {step.report.sqnr:.1f} dB and {scores.sqnr:.1f} dB" in shown
    page = report([bundle.path], tmp_path / "r.html").read_text()
    assert f"SQNR {step.report.sqnr:.1f} dB and {scores.sqnr:.1f} dB" in page
    assert ">on calibration samples</th>" in page
    assert f'data-key="steps.0.report.calibration.sqnr" data-value="{scores.sqnr!r}"' in page
    assert read_bundle(bundle.path).manifest.steps == bundle.manifest.steps


@pytest.mark.usefixtures("untimed")
def test_each_step_says_how_samples_of_calibration_did(small, small_registry, tmp_path):
    data = pictures(12, 5)
    bundle = compress(
        small.path, tmp_path / "out", data=data, steps=[PruneConfig(ratio=0.3, multiple=1), Int8Config()],
        keep_slower=True, accept=True, registry=small_registry,
    )  # fmt: skip
    train = data.split("train").samples
    for step, target in zip(bundle.manifest.steps, ("", "cpu"), strict=True):
        x = ((np.asarray(train, np.float32) / 255 - 0.3) / 0.4)[:, None]
        whole, made = outputs(small.graph(""), x), outputs(bundle.graph(target), x)
        sqnr = 10 * math.log10((whole**2).sum() / ((whole - made) ** 2).sum())
        assert step.report.calibration.sqnr == pytest.approx(sqnr, abs=0.05)
    page = report([bundle.path], tmp_path / "r.html").read_text()
    assert "both timed in turn, those of prune after int8 for cpu. Scores" in page


def test_of_three_sources_the_figures_are_said_to_be_those_of_calibration(compressed, capsys):
    _, bundle = compressed(3)
    assert bundle.manifest.provenance["calibration"]["left_out_sources"] == 0
    assert bundle.manifest.steps[-1].report.sources == 0
    print_decisions(bundle.manifest)
    shown = capsys.readouterr().out
    assert (
        "of 3 sources, told apart by folder, too few to leave any out: the figures are those of the calibration"
        in shown
    )
    assert "give 4 sources or more (a photo, a document or a recording is one)" in shown
    assert "left out, and on" not in shown


def test_of_four_sources_one_judges_and_is_said_to_say_little(compressed, capsys):
    """Two calibrate and one tests."""
    _, bundle = compressed(4)
    assert bundle.manifest.provenance["calibration"]["left_out_sources"] == 1
    print_decisions(bundle.manifest)
    shown = capsys.readouterr().out
    assert "of 2 sources, told apart by folder; judged on " in shown
    assert " of 1 source left out" in shown
    assert shown.rstrip().endswith(("more sources would help", "so few say little of others"))
    few = replace(
        bundle.manifest.steps[-1].report, sqnr=30.0, calibration=CalibrationScores(samples=9, sources=2, sqnr=30.0)
    )
    steps = (replace(bundle.manifest.steps[-1], report=few),)
    *_, last = source_sentences(replace(bundle.manifest, steps=steps))
    assert last.endswith("so few say little of others")


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("given", "said"), [(3, "too few to leave any out: the figures"), (4, "; judged on 1 sample of 1 source left out")]
)
def test_photos_that_lie_in_a_folder_are_counted_as_they_were_given(
    photos, small, small_registry, tmp_path, capsys, given, said
):
    bundle = compress(
        small.path, tmp_path / "out", data=photos(tmp_path / "few", {"": given}, size=(8, 8), mode="L"),
        steps=[Int8Config()], keep_slower=True, accept=True, registry=small_registry,
    )  # fmt: skip
    print_decisions(bundle.manifest)
    assert said in capsys.readouterr().out


@pytest.mark.usefixtures("untimed")
def test_a_user_with_three_photos_is_told_what_their_figures_are(photos, small, small_registry, tmp_path, capsys):
    bundle = compress(
        small.path, tmp_path / "out", data=photos(tmp_path / "three", {"": 3}, size=(8, 8), mode="L"),
        steps=[Int8Config()], keep_slower=True, accept=True, registry=small_registry,
    )  # fmt: skip
    print_decisions(bundle.manifest)
    assert (
        "calibrated on 2 samples of 2 sources, told apart by near-duplicates, too few to leave any out: the figures "
        "are those of the calibration data, and what was never seen may do far worse; give 4 sources or more"
    ) in capsys.readouterr().out


def with_scores(manifest, left_out, calibration):
    """The manifest of a compression with other figures: (SQNR, agreement) of each."""
    told = StepReport(
        samples=400, sources=6, sqnr=left_out[0], agreement=Change(before=1.0, after=left_out[1]),
        calibration=CalibrationScores(samples=400, sources=20, sqnr=calibration[0], agreement=calibration[1]),
    )  # fmt: skip
    return replace(manifest, steps=(replace(manifest.steps[-1], report=told),))


@pytest.mark.parametrize(
    ("left_out", "calibration", "helps"),
    [
        ((25.0, 0.98), (27.0, 0.98), True),
        ((26.1, 0.98), (27.0, 0.98), False),
        ((27.0, 0.98), (25.0, 0.98), False),
        ((30.0, 0.80), (30.0, 0.95), True),
        ((30.0, 0.94), (30.0, 0.95), False),
        ((30.0, 0.97), (None, 1.0), True),
        ((None, 1.0), (None, 1.0), False),
    ],
)
def test_more_sources_are_said_to_help_where_those_left_out_do_worse(compressed, left_out, calibration, helps):
    _, bundle = compressed(12)
    told = list(source_sentences(with_scores(bundle.manifest, left_out, calibration)))
    assert told[-1].endswith("more sources would help" if helps else "more sources would change little")


def test_a_bundle_that_says_nothing_of_sources_is_as_it_was(compressed, small):
    _, bundle = compressed(12)
    assert list(source_sentences(small.manifest)) == []
    before = replace(bundle.manifest, provenance={"calibration": {"samples": 5}})
    assert list(source_sentences(before)) == []


def test_shapes_beside_few_sources_are_said_with_what_they_did_on_one_left_out(compressed):
    _, bundle = compressed(12)
    tried = {"made": 36, "real": 10**-2.41, "joined": 10**-2.55, "used": True}

    def said(further):
        step = bundle.manifest.steps[-1]
        step = replace(step, plan={**step.plan, "further": further})
        return list(source_sentences(replace(bundle.manifest, steps=(step,))))

    assert said(tried)[0] == (
        "36 images of shapes and noise were added: on a source left out, SQNR 24.1 dB without them, 25.5 dB with them"
    )
    assert "were tried, and not added: " in said({**tried, "used": False})[0]
    assert not any("shapes" in sentence for sentence in said(None))
