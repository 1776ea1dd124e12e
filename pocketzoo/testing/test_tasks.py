"""Conformance of tasks: targets, metrics, agreement, chance, answers as plain data and as HTML, loss."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from pocketzoo.core.errors import DataError, PocketzooError, message_of
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.task_examples import COUNT, LABELS, example_of, taken
from pocketzoo.train.augment.specification import MOVES
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.task import Estimate, LossSettings, MetricSpec, ModelFacts, TaskExample
from pocketzoo.zoo.data.target_kinds import of_kind

METHODS = ("prepared", "scores", "agreement", "chance", "rows", "draw")
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
LEAST = 1e-6
MANY = 300  # samples: what compares neighbors takes so many


class TaskTrial:
    """A task that was opened, with an example, and its answers."""

    def __init__(self, entry: Entry, registry: Registry) -> None:
        self.spec, self.registry = entry.spec, registry
        try:
            self.task = self.spec.open()
            lacking = [name for name in METHODS if not callable(getattr(self.task, name, None))]
            decoder = registry.get("decoder", self.spec.decoder)
        except Exception as error:
            pytest.skip(f"see test_it_is_whole and test_its_decoder_is_there ({type(error).__name__})")
        if lacking or self.spec.name not in decoder.tasks:
            pytest.skip("see test_it_is_whole and test_its_decoder_is_there")
        self.example = example_of(self.spec)

    def answers(self, example: TaskExample) -> Any:
        """What its default decoder makes of an example."""
        decoder = self.registry.get("decoder", self.spec.decoder)
        with blaming("its decoder does not read the outputs of its example", "mend the two, or give TaskSpec.example"):
            return decoder.open(decoder.config() if decoder.config else None)(example.outputs, example.inputs)

    def scores(self, *examples: TaskExample) -> Any:
        metric = self.task.scores(self.example.labels)
        for example in examples:
            metric.update(self.answers(example), example.targets)
        return metric

    def result(self) -> Mapping[str, Estimate]:
        """The metrics of the example; skips where there is nothing that could be scored."""
        try:
            with blaming("its metrics fail", "take answers and targets as its decoder and prepared() give them"):
                result: Mapping[str, Estimate] = self.scores(self.example).result()
        except pytest.fail.Exception:
            try:
                self.scores(self.example).result()
            except DataError as error:  # no data set has targets for it: what can be compared is agreement
                pytest.skip(f"it is not scored on data: {error.message}")
            except Exception:
                pass
            raise
        return result


@pytest.fixture
def trial(task: Entry, registry: Registry) -> TaskTrial:
    """Of one task."""
    return TaskTrial(task, registry)


def test_it_is_whole(task: Entry) -> None:
    """It opens, and has what a task has."""
    with blaming("open() fails", "mend open()"):
        opened = task.spec.open()
    if lacking := [name for name in METHODS if not callable(getattr(opened, name, None))]:
        wrong(f"it has no method {lacking[0]!r}", f"a task has {', '.join(METHODS)}, and metric")
    if not isinstance(getattr(opened, "metric", None), MetricSpec):
        wrong(f"its metric is {getattr(opened, 'metric', None)!r}", 'state MetricSpec(name="accuracy")')


def test_its_decoder_is_there(task: Entry, registry: Registry) -> None:
    """The one of a model that names none, and it is for this task."""
    with blaming(f"its decoder {task.spec.decoder!r}", "declare it in pocketzoo_decoders, or name one that ships"):
        decoder = registry.get("decoder", task.spec.decoder)
    if task.name not in decoder.tasks:
        wrong(f"its decoder {decoder.name!r} is for {', '.join(decoder.tasks)}", f"put {task.name!r} into its tasks")


def test_its_answers_are_scored(trial: TaskTrial) -> None:
    """The metric is among the results, with intervals that hold the value; a fraction is at most 1."""
    if len(answers := trial.answers(trial.example)) != COUNT:
        wrong(f"of {COUNT} samples there are {len(answers)} answers", "let len(answers) be the number of samples")
    result = trial.result()
    name = trial.task.metric.name
    if name not in result:
        wrong(f"its metric {name!r} is not among its results: {', '.join(result)}", "let result() give it")
    for each, estimate in result.items():
        if not isinstance(estimate, Estimate) or not math.isfinite(estimate.value):
            wrong(f"{each} is {estimate!r}", "let result() give a finite Estimate for each")
        low = estimate.value if estimate.low is None else estimate.low
        high = estimate.value if estimate.high is None else estimate.high
        if not low - LEAST <= estimate.value <= high + LEAST:
            wrong(f"{each} is {estimate.value}, outside its interval of {low} to {high}", "mend the interval")
    if trial.task.metric.unit == "" and result[name].value > 1 + LEAST:
        wrong(f"{name} is {result[name].value}, and is shown in percent", 'state MetricSpec(unit="number")')


def test_no_sample_is_refused(trial: TaskTrial) -> None:
    """A metric that has seen nothing says so, and is neither 0 nor NaN."""
    for what, metric in (("scores", trial.task.scores(trial.example.labels)), ("agreement", trial.task.agreement())):
        try:
            result = metric.result()
        except PocketzooError:
            continue
        wrong(f"{what}() that has seen nothing gives {dict(result)!r:.80}", "raise DataError")


def test_parts_make_the_whole(trial: TaskTrial) -> None:
    """Batches one by one, and what two processes have seen put together, are as one pass."""
    whole = trial.result()
    parts = [taken(trial.example, slice(i, i + 10)) for i in range(0, COUNT, 10)]
    merged = trial.scores(parts[0])
    with blaming("merge() fails", "take in what another has seen"):
        merged.merge(trial.scores(*parts[1:]))
    for what, result in (("in batches", trial.scores(*parts).result()), ("merged", merged.result())):
        for name, estimate in whole.items():
            if not math.isclose(result[name].value, estimate.value, rel_tol=1e-6, abs_tol=1e-9):
                wrong(f"{name} is {estimate.value} at once and {result[name].value} {what}", "add up counts or sums")


def test_its_metrics_can_be_sent(trial: TaskTrial) -> None:
    """Several processes that train one model send what they have seen."""
    before = trial.result()
    metric = trial.scores(trial.example)
    with blaming("its metric is not pickled", "use a class at the top of a module, and no lambdas in it"):
        again = pickle.loads(pickle.dumps(metric))
    if {name: e.value for name, e in again.result().items()} != {name: e.value for name, e in before.items()}:
        wrong("its metric gives other results after it was pickled", "keep all that was seen in its fields")


def test_a_model_agrees_with_itself(trial: TaskTrial) -> None:
    """Agreement is 1 of a model with itself, and of two from 0 to 1, put together as at once."""
    one, two = (trial.answers(example_of(trial.spec, seed, MANY)) for seed in (0, 1))
    for answers, what in ((one, "itself"), (two, "another")):
        metric = trial.task.agreement()
        with blaming("agreement() fails", "take the answers of two models to the same samples"):
            metric.update(answers, one)
            value = metric.result()["agreement"].value
        if not -LEAST <= value <= 1 + LEAST:
            wrong(f"its agreement with {what} is {value}", "let it be from 0 to 1")
        if what == "itself" and abs(value - 1) > LEAST:
            wrong(f"a model's agreement with itself is {value}", "let it be 1")


def test_chance_is_a_score(trial: TaskTrial) -> None:
    """What who knows nothing reaches is a number, and a model that is mostly right is better."""
    with blaming("chance() fails", "take targets as prepared() gives them"):
        chance = float(trial.task.chance(trial.example.targets))
    if not math.isfinite(chance):
        wrong(f"chance() is {chance}", "give a finite number")
    metric, result = trial.task.metric, trial.result()
    if metric.name not in result:
        pytest.skip("its metric is not among its results (see test_its_answers_are_scored)")
    value = result[metric.name].value
    if (value <= chance) if metric.higher_is_better else (value >= chance):
        wrong(
            f"its example reaches a {metric.name} of {value:.3g}, and chance is {chance:.3g}",
            "let the outputs of its example be mostly right; or correct chance() or higher_is_better",
        )


def test_targets_of_another_kind_are_left_out(trial: TaskTrial) -> None:
    """Data without targets is good for calibration; what is given is not changed."""
    samples = np.zeros((4, 3), np.float32)
    bare = Dataset("bare", (), {name: Split(samples) for name in SPLITS})
    with blaming("prepared() fails on data without targets", "give it back as it is"):
        prepared = trial.task.prepared(bare, trial.example.labels)
    if any(prepared.splits[name].targets is not None for name in SPLITS) or len(prepared.split("test")) != 4:
        wrong("prepared() changes data without targets", "give it back as it is")


def test_labels_are_no_targets_of_another_kind(trial: TaskTrial) -> None:
    """Data with a class for each sample, given to a task of numbers or arrays, is refused by fit in two lines."""
    if trial.spec.targets == "classes" or trial.spec.training is None:
        pytest.skip("its targets are classes, or models of this task are not fitted here")
    split = Split(np.zeros((12, 3), np.float32), np.arange(12) % 3)
    given = of_kind(Dataset("photos", ("a", "b", "c"), dict.fromkeys(SPLITS, split)), trial.spec.targets)
    hint = "let prepared() leave out what it cannot use, and outputs() raise DataError where nothing is left to learn"
    try:
        dataset = trial.task.prepared(given, given.labels)
        facts = ModelFacts(name="m", labels=given.labels, input=None)
        outputs = trial.spec.training().outputs(dataset, facts)
    except PocketzooError:
        return
    except Exception as error:
        wrong(f"classes as targets end in {type(error).__name__}: {message_of(error)}", hint)
    wrong(f"it takes class numbers for its targets, and asks for {outputs} outputs", hint)


def test_answers_are_plain_data(trial: TaskTrial) -> None:
    """One row per answer, which JSON can hold."""
    rows = _rows(trial)
    if len(rows) != COUNT:
        wrong(f"of {COUNT} answers there are {len(rows)} rows", "give one for each")
    with blaming("a row is not plain data", "use texts, Python's own numbers, lists and mappings of them"):
        json.dumps(rows, allow_nan=False)


def test_what_is_drawn_is_safe(trial: TaskTrial) -> None:
    """Labels and texts are of whoever made the data: none becomes a tag, and nothing is fetched or run."""
    labels = tuple(f"{HOSTILE}{i}" for i in range(len(trial.example.labels)))
    answers = trial.answers(trial.example)
    with blaming("rows() fails with other labels", "take any text as a label"):
        try:
            rows = trial.task.rows(answers, labels, 3)
        except DataError as error:
            pytest.skip(f"it has no rows: {error.message}")
    samples = trial.example.samples or [HOSTILE] * COUNT
    for i in range(3):
        for target in (trial.example.targets[i], None):
            with blaming("draw() fails", "take a sample, a row, a target or None, and labels"):
                page = trial.task.draw(samples[i], rows[i], target, labels)
            if not isinstance(page, str):
                wrong(f"draw() returns a {type(page).__name__}", "return HTML as a text")
            if found := _unsafe(page):
                wrong(f"what it draws has {found}", "escape labels and texts: html.escape")


def test_its_loss_can_be_learned_from(trial: TaskTrial) -> None:
    """A number that parts add up to, with a gradient for the outputs."""
    if trial.spec.training is None:
        pytest.skip("models of this task are not fitted here")
    example = trial.example
    outputs = {name: torch.tensor(x, requires_grad=x.dtype.kind == "f") for name, x in example.outputs.items()}
    targets = torch.as_tensor(np.asarray(example.targets))
    with blaming("its training fails", "let loss() take outputs by name and targets, and return a scalar"):
        training = trial.spec.training()
        training.begin(torch.nn.Identity(), example.targets, LossSettings(outputs=len(LABELS)))
        loss = training.loss(outputs, targets)
        weight = float(training.weight(targets))
        halves = [slice(0, COUNT // 2), slice(COUNT // 2, COUNT)]
        parts = [training.loss({n: x[h].detach() for n, x in outputs.items()}, targets[h]).item() for h in halves]
        loss.backward()
    if loss.ndim or not torch.isfinite(loss) or not weight > 0:
        wrong(f"its loss is {loss.detach()} over a weight of {weight}", "return a finite scalar, and a weight above 0")
    if not math.isclose(sum(parts), loss.item(), rel_tol=1e-3):
        wrong(f"its loss is {loss.item():.4g}, that of two halves {sum(parts):.4g} together", "sum over the samples")
    if not any(x.grad is not None and x.grad.any() for x in outputs.values()):
        wrong("its loss gives no output a gradient", "compute it from the outputs, without detach")


def test_its_targets_go_with_their_images(trial: TaskTrial) -> None:
    """Where augmentations move them: each is one that there is, and an image that stays keeps its targets."""
    ways = trial.spec.moved_by
    if not ways:
        pytest.skip("no augmentation moves its targets")
    if unknown := [way for way in ways if way not in MOVES]:
        wrong(f"moved_by names {unknown[0]!r}", f"name some of: {', '.join(MOVES)}")
    move = getattr(trial.spec.training() if trial.spec.training else None, "move", None)
    if move is None:
        wrong("moved_by is given, and its training has no move", "write move(targets, matrix)")
    targets = torch.as_tensor(np.asarray(trial.example.targets))
    with blaming("move() fails", "take targets (B, ...) and matrices (B, 3, 3)"):
        stayed = move(targets, torch.eye(3).repeat(len(targets), 1, 1))
    if stayed.shape != targets.shape or not torch.allclose(stayed.float(), targets.float(), atol=1e-6):
        wrong("move() changes the targets of images that stay where they are", "apply the matrix to (x, y, 1)")


def _rows(trial: TaskTrial) -> list[Any]:
    answers = trial.answers(trial.example)
    try:
        with blaming("rows() fails", "give plain data for each answer"):
            return list(trial.task.rows(answers, trial.example.labels, 3))
    except pytest.fail.Exception:
        try:
            trial.task.rows(answers, trial.example.labels, 3)
        except DataError as error:  # a language model: a text is generated, not read off its outputs
            pytest.skip(f"it has no rows: {error.message}")
        except Exception:
            pass
        raise


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link", "style", "base", "form", "meta"):
            self.found.append(f"a tag <{tag}>")
        for name, value in attrs:
            if name.startswith("on"):
                self.found.append(f"an attribute {name}")
            fetched = name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")
            if fetched and not (value or "").startswith(("data:image/", "#")):
                self.found.append(f"{name}={value!r:.40}")


def _unsafe(page: str) -> str:
    """What in it would be fetched or run, or came from a label; empty where nothing is."""
    parser = _Tags()
    parser.feed(page)
    return parser.found[0] if parser.found else ""
