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


# -- by hand


def row(place: int, classes: int) -> np.ndarray:
    """Logits (1, classes) of which so many are above that of class 0."""
    return np.where(np.arange(classes) == 0, 0.0, np.where(np.arange(classes) <= place, 1.0, -1.0))[None]


@pytest.mark.parametrize(("place", "near", "shown"), [(0, 1, 1), (4, 1, 1), (5, 0, 1), (9, 0, 1), (10, 0, 0)])
def test_five_are_near_and_ten_are_shown(place, near, shown):
    counts = ClassCounts([str(i) for i in range(21)])
    counts.add(row(place, 21), np.array([0]))
    assert (counts.near, counts.shown, counts.samples) == (near, shown, 1)
    assert counts.gain == pytest.approx(1 / np.log2(place + 2) if shown else 0.0)
    found = counts.scores()
    assert (found["top-5"], found["recall@10"], found["ndcg@10"]) == (near, shown, pytest.approx(counts.gain))
    counts.add(row(place, 21), np.array([0]))
    assert (counts.near, counts.shown) == (2 * near, 2 * shown)
    assert counts.scores()["ndcg@10"] == found["ndcg@10"]


@pytest.mark.parametrize(
    ("classes", "more"), [(5, set()), (6, {"top-5"}), (20, {"top-5"}), (21, {"top-5", "recall@10", "ndcg@10"})]
)
def test_scores_of_rank_are_for_many_classes(classes, more):
    found = counted(np.eye(classes), np.arange(classes))
    plain = ["samples", "accuracy", "precision", "recall", "f1", "calibration error", "classes", "confusion"]
    assert set(found) == set(plain) | more
    assert (found["precision"], found["recall"], found["f1"], found["samples"]) == (1.0, 1.0, 1.0, classes)


def test_only_classes_that_occur_count():
    """Of three of a two are right, the one of b is taken for c, and no c occurs."""
    logits = np.eye(3)[[0, 0, 1, 2]]
    counts = ClassCounts(["a", "b", "c"])
    counts.add(logits, np.array([0, 0, 0, 1]))
    found = counts.scores()
    assert found["accuracy"] == 0.5
    assert found["classes"] == {"a": pytest.approx(2 / 3), "b": 0.0}
    assert found["confusion"] == {"a": {"a": 2, "b": 1}, "b": {"c": 1}}
    assert found["precision"] == pytest.approx((1.0 + 0.0) / 2)
    assert found["recall"] == pytest.approx((2 / 3 + 0.0) / 2)
    assert found["f1"] == pytest.approx((2 * 2 / (3 + 2) + 0.0) / 2)


def test_certainty_is_binned_by_fifteenths():
    logits = np.log(np.array([[0.5, 0.5], [0.62, 0.38], [0.99, 0.01], [1.0, 1e-30]]))
    counts = ClassCounts(["a", "b"])
    counts.add(logits, np.array([1, 0, 0, 1]))
    assert BINS == 15
    count, certainty, right = counts.certain
    assert count.tolist() == [*[0] * 7, 1, 0, 1, *[0] * 4, 2]
    assert certainty[14] == pytest.approx(1.99)
    assert (right[7], right[14], right.sum()) == (0.0, 1.0, 2.0)
    assert counts.scores()["calibration error"] == pytest.approx((0.5 + 0.38 + 0.99) / 4, abs=1e-6)
