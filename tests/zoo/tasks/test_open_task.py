"""Tasks of heads and bundles: by name, by what the model reads, by words of earlier releases; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, MissingPluginError, PluginError, UnknownNameError
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.catalog.described import Described
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import HeadSpec, InputSpec, TextSpec
from pocketzoo.zoo.catalog.task import DecoderSpec, Estimate, MetricSpec, ModelFacts, TaskSpec
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.processors.open_processor import describe_config
from pocketzoo.zoo.tasks.open_task import need_task, open_task, task_of_head

REGISTRY = Registry(create_manager(points=[]))
IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.0,), std=(1.0,), resize=8)
ROWS = InputSpec(shape=("batch", 4), mean=(), std=(), resize=0, layout="NC")
TEXT = TextSpec(vocabulary=9, pad=1, max_length=8)
HEAD = HeadSpec(name="h", summary="s", takes=("map",), build=lambda f, n: None, task="*-classification")
MANIFEST = Manifest(
    name="m", model=ModelRef(backbone="b", head="h", outputs=2), processor=describe_config(IMAGE), labels=(),
    license="", parameters=1, macs=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("model_input", "name"),
    [(IMAGE, "image-classification"), (ROWS, "tabular-classification"), (TEXT, "text-classification")],
)
def test_a_star_stands_for_what_the_model_reads(model_input, name):
    opened = task_of_head(HEAD, model_input, ("a", "b"), REGISTRY)
    assert (opened.spec.name, opened.decoder.name, opened.labels) == (name, "class-scores", ("a", "b"))


def test_a_task_that_no_plugin_declares_is_refused_with_those_that_are_near(refused):
    with refused(UnknownNameError, "no task is called 'image-clasification'", hint="'image-classification'"):
        task_of_head(replace(HEAD, task="*-clasification"), IMAGE, (), REGISTRY)


def test_a_decoder_for_another_task_is_refused_with_those_for_this(refused):
    with refused(PluginError, "'values' is for regression, not for image-classification", hint="class-scores"):
        task_of_head(replace(HEAD, decoder="values"), IMAGE, (), REGISTRY)


@pytest.mark.parametrize(
    ("returns", "labels", "model_input", "task"),
    [
        ("logits", ("a", "b"), IMAGE, "image-classification"),
        ("", ("a", "b"), TEXT, "text-classification"),
        ("values", (), IMAGE, "regression"),
        ("q-values", (), ROWS, "reinforcement-learning"),
        ("embedding", (), TEXT, "feature-extraction"),
        ("", (), IMAGE, "feature-extraction"),
        ("token-logits", ("a", "b"), TEXT, "token-classification"),
        ("next-token-logits", (), TEXT, "text-generation"),
        ("first-token-logits", (), TEXT, "text2text-generation"),
    ],
)
def test_bundles_of_before_say_what_they_return(returns, labels, model_input, task):
    opened = open_task(
        replace(MANIFEST, returns=returns, labels=labels, processor=describe_config(model_input)), REGISTRY
    )
    assert opened is not None
    assert opened.spec.name == task
    assert opened.decoder.config.get("pad", 1) == 1


def test_a_graph_from_elsewhere_without_labels_has_no_task(refused):
    foreign = replace(MANIFEST, model=ModelRef(backbone="onnx:net.onnx", head="", outputs=2))
    assert open_task(foreign, REGISTRY) is None
    with refused(DataError, "m has no task", hint="--labels"):
        need_task(foreign, REGISTRY)


@pytest.mark.parametrize(
    ("task", "model_input", "tag"),
    [
        ("image-classification", IMAGE, "image-classification"),
        ("regression", ROWS, "tabular-regression"),
        ("regression", TEXT, "text-classification"),
        ("multi-label-classification", IMAGE, "image-classification"),
        ("text-generation", TEXT, "text-generation"),
    ],
)
def test_the_hub_has_its_own_words(task, model_input, tag):
    opened = open_task(replace(MANIFEST, task=task, processor=describe_config(model_input, REGISTRY)), REGISTRY)
    assert opened is not None
    assert (opened.facts.task, opened.facts.tag or task) == (task, tag)


def test_a_bundle_whose_plugin_is_missing_says_what_to_install(refused):
    described = Described(name="heatmaps", provider="pocketzoo-keypoints 1.2")
    for manifest in (
        replace(MANIFEST, task="keypoint-detection", decoder=described),
        replace(MANIFEST, task="image-classification", decoder=described),
        # A task of a plugin, with a decoder that ships.
        replace(
            MANIFEST,
            task="ranking",
            task_provider="pocketzoo-keypoints 1.2",
            decoder=Described(name="values", provider="pocketzoo"),
        ),
    ):
        with refused(MissingPluginError, "of pocketzoo-keypoints 1.2, which is not", hint="pocketzoo-keypoints==1.2"):
            open_task(manifest, REGISTRY)


# -- a plugin's task


class Odd:
    """A metric that counts what is odd."""

    def __init__(self, name: str = "oddness", fails: str = "") -> None:
        self.name, self.fails, self.seen = name, fails, 0

    def update(self, answers: Any, targets: Any) -> None:
        if self.fails == "update":
            raise KeyError("x")
        self.seen += 1

    def merge(self, other: Odd) -> None:
        self.seen += other.seen

    def result(self) -> Any:
        return 0.5 if self.fails == "result" else {self.name: Estimate(0.5)}


class OddTask:
    metric = MetricSpec(name="oddness")

    def __init__(self, name: str = "oddness", fails: str = "") -> None:
        self.arguments = name, fails

    def scores(self, labels: Any) -> Odd:
        return Odd(*self.arguments)


def registry_with(task: Any, **facts: Any) -> Registry:
    plugin = ModuleType("odd")
    spec = TaskSpec(name="odd", summary="s", open=task, decoder="odds", **facts)

    @hookimpl
    def pocketzoo_tasks():
        return [spec]

    @hookimpl
    def pocketzoo_decoders():
        return [DecoderSpec(name="odds", summary="s", tasks=("odd",), open=lambda config: lambda o, i: o["missing"])]

    plugin.pocketzoo_tasks, plugin.pocketzoo_decoders = pocketzoo_tasks, pocketzoo_decoders
    return Registry(create_manager(points=[], extra=[plugin]))


def test_a_plugins_task_is_opened_by_name():
    opened = open_task(replace(MANIFEST, task="odd"), registry_with(OddTask))
    assert opened is not None
    scores = opened.scores()
    scores.update(None, None)
    assert opened.headline(scores.result()) == Estimate(0.5)
    assert scores.details() == {}
    assert scores.confusion() is None
    assert opened.reads == ("",)


class Taken(OddTask):
    """A task that takes any data set as it is."""

    def prepared(self, dataset: Any, labels: Any) -> Any:
        return dataset


TARGETS = {
    "classes": np.arange(20) % 2,
    "numbers": np.arange(40, dtype=np.float32).reshape(20, 2),
    "flags": np.arange(40).reshape(20, 2) % 2,
}


@pytest.mark.parametrize("data", TARGETS)
@pytest.mark.parametrize("kind", ["numbers", "flags"])
def test_targets_of_another_kind_do_not_reach_a_plugins_task(kind, data):
    """The number of a class is not a number to be met."""
    registry = registry_with(Taken, targets=kind)
    opened = open_task(replace(MANIFEST, task="odd"), registry)
    labels = () if data == "numbers" else ("a", "b")
    dataset = from_arrays("d", labels, np.zeros((20, 1, 8, 8), np.float32), TARGETS[data])
    prepared = opened.prepared(dataset, ModelFacts(name="m", labels=labels, input=None))
    assert len(prepared.split("train")) == len(dataset.split("train"))
    assert (prepared.split("train").targets is not None) == (kind == data)


def test_a_metric_that_raises_is_named_with_its_owner(refused):
    opened = open_task(replace(MANIFEST, task="odd"), registry_with(lambda: OddTask(fails="update")))
    assert opened is not None
    with refused(PluginError, "the metric of the task odd of odd failed: KeyError: 'x'", hint="pocketzoo plugins"):
        opened.scores().update(None, None)


def test_a_metric_that_returns_something_else_is_named(refused):
    opened = open_task(replace(MANIFEST, task="odd"), registry_with(lambda: OddTask(fails="result")))
    assert opened is not None
    with refused(PluginError, "the metric of the task odd of odd gives 0.5", hint="Estimate"):
        opened.scores().result()


def test_a_metric_without_the_one_that_counts_is_named(refused):
    opened = open_task(replace(MANIFEST, task="odd"), registry_with(lambda: OddTask(name="evenness")))
    assert opened is not None
    with refused(PluginError, "has no result 'oddness', only evenness", hint="result"):
        opened.headline(opened.scores().result())


def test_a_task_that_does_not_open_and_a_decoder_that_fails_are_named(refused):
    with refused(PluginError, "the task odd of odd failed: ZeroDivisionError", hint="pocketzoo plugins"):
        open_task(replace(MANIFEST, task="odd"), registry_with(lambda: 1 / 0))
    opened = open_task(replace(MANIFEST, task="odd"), registry_with(OddTask))
    assert opened is not None
    with refused(PluginError, "the decoder odds of the task odd of odd failed: KeyError: 'missing'", hint="plugins"):
        opened.answers({"out": np.zeros(1)}, {})
