"""Several labels per sample, from data to predictions: what is said of each is learned on its own."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.load_data import load_data

LABELS = ("positive", "large", "even")


def rows(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return x, np.stack([x[:, 0] > 0, np.abs(x[:, 1]) > 0.8, x[:, 2] > -0.5], 1).astype(int)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, registry):
    folder = tmp_path_factory.mktemp("labels")
    x, y = rows()
    with (folder / "d.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", *LABELS])
        writer.writerows([*values, *flags] for values, flags in zip(x.tolist(), y.tolist(), strict=True))
    data = f"{folder / 'd.csv'}?label={','.join(LABELS)}"
    bundle = pocketzoo.fit("mlp", folder / "m", data=data, head="multi-label", epochs=40, registry=registry)
    return bundle, data


def test_each_label_is_learned_on_its_own(fitted, registry):
    bundle, data = fitted
    manifest = bundle.manifest
    assert (manifest.task, manifest.tag, manifest.labels) == (
        "multi-label-classification", "tabular-classification", LABELS,
    )  # fmt: skip
    assert manifest.metrics["test_mean_average_precision"] > 0.85
    found = pocketzoo.eval(bundle.path, data=data, registry=registry)
    assert found["metric"] == "mean average precision"
    assert found["mean average precision"] == pytest.approx(manifest.metrics["test_mean_average_precision"], abs=1e-4)
    assert set(found["labels"]) == set(LABELS)
    assert found["f1"] > 0.75


def test_a_budget_holds_its_metric(fitted, registry, tmp_path):
    bundle, data = fitted
    small = pocketzoo.compress(bundle.path, tmp_path / "s", data=data, steps=[Int8Config()],
                               max_drop=0.1, keep_slower=True, registry=registry)  # fmt: skip
    (step,) = small.manifest.steps
    assert step.report.metric.name == "mean average precision"
    assert "test_mean_average_precision_cpu" in small.manifest.metrics


def test_what_is_answered_are_labels(fitted):
    bundle, data = fitted
    known = load_data(data, targets="flags").split("test")
    with pocketzoo.load_runtime(bundle.path, provider="cpu") as runtime:
        answers = runtime.answers(known.samples)
        (row, *_) = runtime.answer_rows(known.samples, top=2)
    assert (answers.said == known.targets).mean() > 0.75
    assert set(row) == {"labels", "top"}
    assert len(row["top"]) == 2
    assert row["labels"] == [label for label, said in zip(LABELS, answers.said[0], strict=True) if said]


def test_data_of_one_class_each_is_refused(tmp_path, registry, refused):
    x, y = rows(40)
    np.savez(tmp_path / "d.npz", x=x, y=y[:, 0])
    with refused(DataError, "not 0 or 1 for each label", hint="--label-column a,b"):
        pocketzoo.fit("mlp", tmp_path / "m", data=tmp_path / "d.npz", head="multi-label", registry=registry)
