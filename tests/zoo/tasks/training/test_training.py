"""The losses of tasks: exact small numbers, summed, and what they are divided by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scoring import REGISTRY, TEXT
from torch import nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.training.tokens import next_token_loss

OUT = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
CLASSES = np.array([0, 0, 1])
FACTS = ModelFacts(name="m", labels=(), input=TEXT)


def training(task: str):
    return REGISTRY.get("task", task).training()


def loss_of(targets: np.ndarray, task: str, name: str = "", head=None, **settings):
    begun = training(task)
    begun.begin(head or nn.Identity(), targets, LossSettings(name=name, outputs=2, **settings))
    return (lambda out, y: begun.loss({"logits": out}, y)), begun.weight


def test_the_loss_of_classes_is_summed_and_divided_by_the_samples():
    y = torch.from_numpy(CLASSES)
    logs = OUT.double().log_softmax(1)
    own = -logs[torch.arange(3), y]
    loss, weigh = loss_of(CLASSES, "image-classification")
    assert float(loss(OUT, y)) == pytest.approx(float(own.sum()))
    assert float(weigh(y)) == 3.0
    loss, weigh = loss_of(CLASSES, "image-classification", label_smoothing=0.2)
    assert float(loss(OUT, y)) == pytest.approx(float((0.8 * own - 0.2 * logs.mean(1)).sum()))
    assert float(weigh(y)) == 3.0
    # Class 0 has two samples of three, so one of its counts 3/4, and the one of class 1 counts 3/2.
    loss, weigh = loss_of(CLASSES, "image-classification", balanced=True)
    assert float(loss(OUT, y)) == pytest.approx(float((own * torch.tensor([0.75, 0.75, 1.5])).sum()))
    assert float(weigh(y)) == pytest.approx(3.0)
    assert float(weigh(y[:2])) == pytest.approx(1.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_labels_is_that_of_each_on_its_own(smoothing):
    y = torch.tensor([[1, 0], [1, 1], [0, 0]])
    wanted = y * (1 - smoothing) + smoothing / 2
    p = OUT.double().sigmoid()
    loss, weigh = loss_of(y.numpy(), "multi-label-classification", label_smoothing=smoothing)
    expected = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum()
    assert float(loss(OUT, y)) == pytest.approx(float(expected), rel=1e-6)
    assert float(weigh(y)) == 6.0


def test_the_loss_of_tokens_counts_those_that_are_known():
    y = torch.tensor([[1, IGNORED, 0]])
    out = OUT[None]
    logs = OUT.double().log_softmax(1)
    loss, weigh = loss_of(y.numpy(), "text-generation")
    assert float(loss(out, y)) == pytest.approx(float(-logs[0, 1] - logs[2, 0]))
    assert float(weigh(y)) == 2.0
    smooth, _ = loss_of(y.numpy(), "text-generation", label_smoothing=0.5)
    assert float(smooth(out, y)) == pytest.approx(
        float(-(logs[0, 1] + logs[2, 0]) / 2 - (logs[0].mean() + logs[2].mean()) / 2)
    )


def test_the_loss_of_token_classes_is_that_of_the_first_tokens_of_words():
    y = torch.tensor([[1, IGNORED, 0, IGNORED]])  # longer than the outputs: filled up
    out = OUT[None]
    logs = OUT.double().log_softmax(1)
    loss, weigh = loss_of(y.numpy(), "token-classification")
    assert float(loss(out, y)) == pytest.approx(float(-logs[0, 1] - logs[2, 0]))
    assert float(weigh(y)) == 2.0
    # Of three tokens two are of class 0, so that counts 3/4, and class 1 counts 3/2.
    y = torch.tensor([[0, 1, 0]])
    loss, weigh = loss_of(y.numpy(), "token-classification", balanced=True)
    assert float(loss(out, y)) == pytest.approx(float(-0.75 * logs[0, 0] - 1.5 * logs[1, 1] - 0.75 * logs[2, 0]))
    assert float(weigh(y)) == pytest.approx(3.0)
    assert float(weigh(y[:, 1:2])) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("labels", "y", "count"), [(("O", "B-X", "I-X"), [[0, 1]], 3), ((), [[0, 4], [IGNORED, 1]], 5)]
)
def test_there_is_an_output_for_each_tag(labels, y, count):
    data = Dataset("d", labels, {name: Split([""] * len(y), np.array(y)) for name in SPLITS})
    assert training("token-classification").outputs(data, FACTS) == count


@pytest.mark.parametrize(
    ("labels", "y", "why"),
    [
        (("O",), [[0, 0]], "one tag, and no other"),
        (("O", "B-X"), [[IGNORED]], "no tags of words"),
        (("a", "b"), [0, 1], "no tags of words"),
    ],
)
def test_without_tags_there_is_nothing_to_learn(labels, y, why, refused):
    data = Dataset("d", labels, {name: Split([""] * len(y), np.array(y)) for name in SPLITS})
    with refused(DataError, why, hint=""):
        training("token-classification").outputs(data, FACTS)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_tokens_after_all_texts_may_be_missing_of_the_outputs(smoothing):
    out = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[0, 1, IGNORED, 2], [4, 3, 2, 1]])
    logs = torch.log_softmax(out, -1).numpy()
    wanted = 0.0
    for i in range(2):
        for t in range(3):
            if y[i, t] != IGNORED:
                wanted -= (1 - smoothing) * logs[i, t, y[i, t]] + smoothing * np.mean(logs[i, t])
    assert float(next_token_loss(out, y, smoothing)) == pytest.approx(wanted, rel=1e-5)


def test_the_loss_of_numbers_is_in_their_standard_deviations():
    """Columns 0 and 4, and 5 alone: means 2 and 5, deviations 2 and, of what does not vary, 1."""
    targets = np.array([[0.0, 5.0], [4.0, 5.0]], np.float32)
    y, out = torch.from_numpy(targets), torch.tensor([[1.0, 5.0], [6.0, 8.0]])
    loss, weigh = loss_of(targets, "regression", "mse_loss")
    assert float(loss(out, y)) == pytest.approx(0.5**2 + 0.0 + 1.0**2 + 3.0**2)
    assert float(weigh(y)) == 4.0
    absolute, _ = loss_of(targets, "regression", "l1_loss")
    assert float(absolute(out, y)) == pytest.approx(0.5 + 0.0 + 1.0 + 3.0)
    huber, _ = loss_of(targets, "regression", "huber_loss")
    assert float(huber(out, y)) == pytest.approx(float(F.huber_loss((out - y) / torch.tensor([2.0, 1.0]),
                                                                    torch.zeros(2, 2), reduction="sum")))  # fmt: skip


@pytest.mark.parametrize("name", ["standardize", "standardise"])
def test_a_head_that_can_is_told_where_the_targets_are(name):
    told = []
    head = nn.Identity()
    setattr(head, name, lambda offset, scale: told.append((offset.tolist(), scale.tolist())))
    loss_of(np.array([[0.0, 5.0], [4.0, 5.0]], np.float32), "regression", head=head)
    assert told == [([2.0, 5.0], [2.0, 1.0])]


# -- outputs


def dataset(labels=("a", "b"), targets=None) -> Dataset:
    return Dataset("set", labels, {name: Split(np.zeros((5, 8, 8), np.uint8), targets) for name in SPLITS})


def test_as_many_outputs_as_the_data_has():
    classes, numbers = training("image-classification"), training("regression")
    assert classes.outputs(dataset(("a", "b", "c"), np.zeros(5, np.int64)), FACTS) == 3
    assert classes.outputs(dataset(("a", "b"), np.zeros(5, np.int64)), FACTS) == 2
    assert numbers.outputs(dataset((), np.zeros((5, 4), np.float32)), FACTS) == 4
    labels = training("multi-label-classification")
    assert labels.outputs(dataset(("a", "b", "c"), np.zeros((5, 3), np.int64)), FACTS) == 3
    tokens = training("text-generation")
    assert tokens.outputs(dataset(), replace(FACTS, input=TEXT)) == TEXT.vocabulary


@pytest.mark.parametrize(
    ("task", "data", "text", "hint"),
    [
        ("regression", dataset((), None), "set has no regression targets", "give an .npz with y, or a .csv"),
        ("regression", dataset(("a",), np.zeros(5, np.int64)), "set has no regression targets",
         "give an .npz with y, or a .csv"),
        ("image-classification", dataset((), None), "set has no classes",
         "make one sub-folder per class, or name the label column of a table: --label-column"),
        ("image-classification", dataset(("a",), np.zeros(5, np.int64)), "set has one class, 'a'",
         "fit needs two or more labeled classes"),
        ("multi-label-classification", dataset(("a", "b"), np.zeros(5, np.int64)), "set does not say of each label",
         "give an .npz whose y is (samples, labels) of 0 and 1, or a .csv with several label columns: "
         "--label-column a,b,c"),
    ],
)  # fmt: skip
def test_data_without_what_the_head_needs_is_refused(refused, task, data, text, hint):
    with refused(DataError, text) as caught:
        training(task).outputs(data, FACTS)
    assert caught.value.hint == hint
