"""Metrics of classes against scikit-learn's, batch by batch or all at once."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pocketzoo.zoo.tasks.classification_metrics import BINS, ClassCounts


@pytest.fixture(params=[(3, 40), (10, 300), (7, 25)], ids=str)
def answers(request) -> tuple[np.ndarray, np.ndarray]:
    classes, count = request.param
    generator = np.random.default_rng(classes)
    targets = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), targets] += 1.5
    return logits, targets


def counted(logits: np.ndarray, targets: np.ndarray, size: int = 1000) -> dict:
    found = ClassCounts([f"c{i}" for i in range(logits.shape[1])])
    for i in range(0, len(logits), size):
        found.add(logits[i : i + size], targets[i : i + size])
    return found.scores()


def test_they_are_those_of_scikit_learn(answers):
    logits, targets = answers
    found, said = counted(logits, targets), logits.argmax(1)
    used = np.unique(targets)
    wanted = metrics.precision_recall_fscore_support(targets, said, labels=used, average="macro", zero_division=0)
    assert [found[k] for k in ("precision", "recall", "f1")] == pytest.approx(list(wanted[:3]))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(targets, said))
    if logits.shape[1] > 5:
        labels = range(logits.shape[1])
        assert found["top-5"] == pytest.approx(metrics.top_k_accuracy_score(targets, logits, k=5, labels=labels))
    matrix = metrics.confusion_matrix(targets, said, labels=range(logits.shape[1]))
    assert all(matrix[int(a[1:]), int(b[1:])] == n for a, row in found["confusion"].items() for b, n in row.items())
    assert sum(n for row in found["confusion"].values() for n in row.values()) == len(targets) == found["samples"]


def test_batches_change_nothing(answers):
    whole, parts = counted(*answers), counted(*answers, size=7)
    assert {k: v for k, v in parts.items() if k != "calibration error"} == {
        k: v for k, v in whole.items() if k != "calibration error"
    }
    assert parts["calibration error"] == pytest.approx(whole["calibration error"])


def test_the_calibration_error_is_the_gap_in_each_bin(answers):
    logits, targets = answers
    p = np.exp(logits - logits.max(1, keepdims=True))
    certainty = (p / p.sum(1, keepdims=True)).max(1)
    right = logits.argmax(1) == targets
    place = np.clip(np.ceil(certainty * BINS) - 1, 0, BINS - 1)
    gaps = [abs(certainty[place == b].sum() - right[place == b].sum()) for b in range(BINS)]
    assert counted(logits, targets)["calibration error"] == pytest.approx(sum(gaps) / len(right), abs=1e-6)


def test_certain_and_right_is_without_error():
    found = counted(np.eye(4, dtype=np.float32) * 100, np.arange(4))
    assert (found["accuracy"], found["f1"], found["calibration error"]) == (1.0, 1.0, pytest.approx(0.0))
    wrong = counted(np.eye(4, dtype=np.float32) * 100, np.roll(np.arange(4), 1))
    assert (wrong["accuracy"], wrong["f1"], wrong["calibration error"]) == (0.0, 0.0, pytest.approx(1.0))


def test_a_ranking_is_scored_as_scikit_learn_does():
    generator = np.random.default_rng(0)
    targets, logits = generator.integers(0, 40, 200), generator.normal(size=(200, 40)).astype(np.float32)
    logits[np.arange(200), targets] += 1
    found, one = counted(logits, targets, 64), np.eye(40)[targets]
    assert found["ndcg@10"] == pytest.approx(metrics.ndcg_score(one, logits, k=10))
    assert found["recall@10"] == pytest.approx(metrics.top_k_accuracy_score(targets, logits, k=10, labels=range(40)))
    assert not {"ndcg@10", "recall@10"} & set(counted(logits[:, :20], targets % 20))
