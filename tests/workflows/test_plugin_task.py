"""A plugin's task whose metric is an error: less is better, from early stopping to budgets, bench and the report."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import smallnet

import pocketzoo
from pocketzoo.api import DecoderSpec, HeadSpec, MetricSpec, TaskSpec, hookimpl
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.core.errors import HeadMismatchError, PluginError, RejectedError, UnknownNameError
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig
from pocketzoo.zoo.tasks.decoders.vectors import ValuesDecoder
from pocketzoo.zoo.tasks.regression import RegressionTask
from pocketzoo.zoo.tasks.training.values import ValueTraining


class ErrorTask(RegressionTask):
    """Regression that is judged by its error, in the unit of the targets."""

    metric = MetricSpec(name="mean absolute error", higher_is_better=False, unit="number")

    def chance(self, targets):
        return float(np.abs(targets - np.median(targets, 0)).mean())


def registry_of(**changes: object) -> Registry:
    plugin = ModuleType("errors")

    def build(features, outputs):
        from pocketzoo.plugins.head_modules import Regression

        return Regression(features, outputs)

    @hookimpl
    def pocketzoo_tasks():
        facts = {"decoder": "plain", "training": ValueTraining, "targets": "numbers", **changes}
        return [TaskSpec(name="error-regression", summary="numbers by their error", open=ErrorTask, **facts)]

    @hookimpl
    def pocketzoo_decoders():
        tasks = ("error-regression",)
        return [DecoderSpec(name="plain", summary="s", tasks=tasks, open=ValuesDecoder, config=OutputConfig)]

    @hookimpl
    def pocketzoo_heads():
        takes = ("map", "vector")
        return [HeadSpec(name="errors", summary="s", takes=takes, task="error-regression", build=build, loss="l1_loss")]

    plugin.pocketzoo_tasks, plugin.pocketzoo_decoders = pocketzoo_tasks, pocketzoo_decoders
    plugin.pocketzoo_heads = pocketzoo_heads
    return Registry(create_manager(points=[], extra=[smallnet, plugin]))


REGISTRY = registry_of()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("errors") / "d.npz"
    x = np.random.default_rng(0).normal(size=(160, 1, 8, 8)).astype(np.float32)
    np.savez(path, x=x, y=10 * x.mean((1, 2, 3)))
    return path


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("errors") / "m"
    return pocketzoo.fit("smallnet", place, data=data, head="errors", epochs=12, registry=REGISTRY)


def test_the_best_epoch_is_that_of_the_least_error(fitted):
    history = fitted.manifest.provenance["training"]["val_mean_absolute_error"]
    assert all(value > 0 for value in history)
    assert fitted.manifest.metrics["val_mean_absolute_error"] == pytest.approx(min(history), rel=1e-4)


def test_a_budget_is_what_the_error_may_rise_by(fitted, data, tmp_path):
    asked = {"data": data, "steps": [PruneConfig(ratio=0.9, refit=False)], "keep_slower": True, "registry": REGISTRY}
    with pytest.raises(RejectedError) as caught:
        pocketzoo.compress(fitted.path, tmp_path / "a", max_drop=0.0, **asked)
    assert "mean absolute error rises by" in caught.value.message
    small = pocketzoo.compress(
        fitted.path, tmp_path / "b", max_drop=0.9, **{**asked, "steps": [PruneConfig(ratio=0.3)]}
    )
    (step,) = small.manifest.steps
    assert (step.report.metric.name, step.report.metric.higher_is_better) == ("mean absolute error", False)
    rows = pocketzoo.bench([fitted.path, small.path], data=data, seconds=0.0, save=True, registry=REGISTRY)
    assert [row.accuracy for row in rows] == [None, None]
    assert all(row.metric.low < row.metric.value < row.metric.high for row in rows)
    page = pocketzoo.report([small.path], tmp_path / "r.html", data=data, registry=REGISTRY).read_text("utf8")
    assert "mean absolute error" in page
    assert "Answers that are furthest from right" in page


def test_a_task_with_metrics_alone_is_not_fitted(data, tmp_path, refused):
    with refused(HeadMismatchError, "head 'errors' is for error-regression, which fit cannot train", hint="linear"):
        pocketzoo.fit("smallnet", tmp_path / "m", data=data, head="errors", registry=registry_of(training=None))


def test_a_task_without_its_decoder_and_one_with_anothers_are_refused(data, tmp_path, refused):
    with refused(UnknownNameError, "no decoder is called 'plane'", hint="'plain'"):
        pocketzoo.fit("smallnet", tmp_path / "m", data=data, head="errors", registry=registry_of(decoder="plane"))
    with refused(PluginError, "'class-scores' is for", "not for error-regression", hint="plain"):
        pocketzoo.fit(
            "smallnet", tmp_path / "m", data=data, head="errors", registry=registry_of(decoder="class-scores")
        )
