"""Every metric against an oracle or the mathematics, its intervals against simulation, and parts against the whole."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import softmax
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.decoders.answers import Classes, Embeddings, Labels, NextTokens, TokenClasses, Values
from pocketzoo.zoo.tasks.metrics.classification import ClassAgreement, ClassificationScores
from pocketzoo.zoo.tasks.metrics.embeddings import NEIGHBORS, NeighborAgreement, ReturnScores, Unscored
from pocketzoo.zoo.tasks.metrics.intervals import Z, jackknife, mean, proportion, ratio, student
from pocketzoo.zoo.tasks.metrics.multi_label import LabelAgreement, MultiLabelScores, average_precision
from pocketzoo.zoo.tasks.metrics.regression import RegressionScores, ValueAgreement, r2_estimate
from pocketzoo.zoo.tasks.metrics.tokens import LikelihoodScores, TokenAgreement, TokenClassScores

NAMES = [f"c{i}" for i in range(25)]


def classes(rng: np.random.Generator, count: int = 300) -> tuple[Classes, np.ndarray]:
    logits = rng.normal(size=(count, 25)).astype(np.float32)
    y = rng.integers(0, 25, count)
    logits[np.arange(count), y] += 2.0
    return Classes(logits.argmax(-1), logits, softmax(logits)), y


def labels(rng: np.random.Generator, count: int = 300) -> tuple[Labels, np.ndarray]:
    y = (rng.random((count, 6)) < [0.1, 0.2, 0.3, 0.5, 0.7, 0.05]).astype(np.int64)
    return Labels(np.round(1 / (1 + np.exp(-rng.normal(size=y.shape) - 2 * y + 1)), 2)), y


def values(rng: np.random.Generator, count: int = 300) -> tuple[Values, np.ndarray]:
    y = rng.normal(size=(count, 2)).astype(np.float32) * [1, 50] + [0, 1000]
    return Values((y + rng.normal(size=y.shape) * [0.3, 20]).astype(np.float32)), y.astype(np.float32)


def tokens(rng: np.random.Generator, count: int = 60) -> tuple[NextTokens, np.ndarray]:
    y = rng.integers(0, 7, (count, 9))
    y[rng.random(y.shape) < 0.2] = IGNORED
    return NextTokens(rng.normal(size=(count, 9, 7)), y != IGNORED), y


def token_classes(rng: np.random.Generator, count: int = 60) -> tuple[TokenClasses, np.ndarray]:
    answers, y = tokens(rng, count)
    return TokenClasses(answers.logits, rng.random(y.shape) < 0.9), y


def part(answers: Any, rows: slice) -> Any:
    fields = {name: getattr(answers, name) for name in answers.__dataclass_fields__}
    return type(answers)(**{n: v[rows] if isinstance(v, np.ndarray) else v for n, v in fields.items()})


SCORED: list[tuple[Callable[[], Any], Callable[..., tuple[Any, np.ndarray]]]] = [
    (lambda: ClassificationScores(NAMES), classes),
    (lambda: MultiLabelScores(NAMES[:6]), labels),
    (RegressionScores, values),
    (LikelihoodScores, tokens),
    (lambda: TokenClassScores(NAMES[:7]), token_classes),
]


@pytest.mark.parametrize(("build", "draw"), SCORED)
def test_parts_that_are_merged_are_the_whole(build, draw):
    answers, y = draw(np.random.default_rng(0))
    whole, left, right = build(), build(), build()
    whole.update(answers, y)
    for metric, parts in ((left, [slice(0, 17), slice(17, 40)]), (right, [slice(40, None)])):
        for rows in parts:
            metric.update(part(answers, rows), y[rows])
    left.merge(pickle.loads(pickle.dumps(right)))
    expected = whole.result()
    assert left.result().keys() == expected.keys()
    for name, estimate in left.result().items():
        assert estimate.value == pytest.approx(expected[name].value, rel=1e-9), name
        # Groups of a jackknife are of every twentieth sample, in the order that they came in.
        ends = [(each.low, each.high) for each in (estimate, expected[name]) if each.low is not None]
        assert not ends or ends[0] == pytest.approx(ends[1], rel=1e-9)


@pytest.mark.parametrize("build", [build for build, _ in SCORED])
def test_a_metric_that_has_seen_nothing_says_so(build, refused):
    with refused(DataError, "was scored", hint="give"):
        build().result()


@pytest.mark.parametrize(("build", "draw"), SCORED)
def test_every_interval_holds_its_value(build, draw):
    answers, y = draw(np.random.default_rng(1))
    metric = build()
    metric.update(answers, y)
    estimates = [each for each in metric.result().values() if each.low is not None]
    assert estimates
    assert all(each.low < each.value < each.high for each in estimates)


def test_classes_are_scored_as_scikit_learn_does():
    answers, y = classes(np.random.default_rng(2))
    metric = ClassificationScores(NAMES)
    metric.update(answers, y)
    found = {name: each.value for name, each in metric.result().items()}
    said = answers.classes
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(y, said, average="macro", zero_division=0)
    assert found["accuracy"] == oracle.accuracy_score(y, said)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
    assert found["top-5"] == pytest.approx(oracle.top_k_accuracy_score(y, answers.scores, k=5))
    assert found["recall@10"] == pytest.approx(oracle.top_k_accuracy_score(y, answers.scores, k=10))
    truth = np.eye(25)[y]
    assert found["ndcg@10"] == pytest.approx(oracle.ndcg_score(truth, answers.scores, k=10))
    np.testing.assert_array_equal(metric.confusion(), oracle.confusion_matrix(y, said, labels=range(25)))


def test_labels_are_scored_as_scikit_learn_does():
    answers, y = labels(np.random.default_rng(3))
    metric = MultiLabelScores(NAMES[:6])
    metric.update(answers, y)
    found = {name: each.value for name, each in metric.result().items()}
    assert found["mean average precision"] == pytest.approx(
        oracle.average_precision_score(y, answers.probabilities, average="macro"), rel=1e-6
    )
    assert found["f1"] == pytest.approx(oracle.f1_score(y, answers.said, average="micro"))
    assert found["macro f1"] == pytest.approx(oracle.f1_score(y, answers.said, average="macro"))
    assert found["exact match"] == pytest.approx(oracle.accuracy_score(y, answers.said))
    assert found["label accuracy"] == pytest.approx(1 - oracle.hamming_loss(y, answers.said))
    assert metric.details()["labels"]["c3"] == pytest.approx(average_precision(answers.probabilities[:, 3], y[:, 3]))


def test_the_average_precision_of_ties_is_that_of_one_rank():
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    true = np.array([1, 0, 1, 0, 1])
    assert average_precision(scores, true) == pytest.approx(oracle.average_precision_score(true, scores))


def test_a_label_that_is_never_true_does_not_count_and_none_at_all_is_refused(refused):
    answers, y = labels(np.random.default_rng(4))
    y[:, 0] = 0
    metric = MultiLabelScores(NAMES[:6])
    metric.update(answers, y)
    expected = oracle.average_precision_score(y[:, 1:], answers.probabilities[:, 1:], average="macro")
    assert metric.result()["mean average precision"].value == pytest.approx(expected, rel=1e-6)
    none = MultiLabelScores(NAMES[:6])
    none.update(answers, y * 0)
    with refused(DataError, "no label is true", hint="labels"):
        none.result()


def test_numbers_are_scored_as_scikit_learn_does():
    answers, y = values(np.random.default_rng(5))
    metric = RegressionScores()
    metric.update(answers, y)
    found = {name: each.value for name, each in metric.result().items()}
    assert found["r2"] == pytest.approx(oracle.r2_score(y, answers.values), rel=1e-5)
    assert found["mean absolute error"] == pytest.approx(oracle.mean_absolute_error(y, answers.values), rel=1e-5)
    expected = oracle.root_mean_squared_error(y, answers.values)
    assert found["root mean squared error"] == pytest.approx(expected, rel=1e-5)


def test_likelihood_is_that_of_softmax_over_the_tokens_that_are_known():
    answers, y = tokens(np.random.default_rng(6))
    metric = LikelihoodScores()
    metric.update(answers, y)
    known = y != IGNORED
    logs = np.log(softmax(answers.logits[known])[np.arange(known.sum()), y[known]])
    found = metric.result()
    assert found["log_likelihood"].value == pytest.approx(logs.mean())
    assert found["perplexity"].value == pytest.approx(math.exp(-logs.mean()))
    assert found["perplexity"].low == pytest.approx(math.exp(-found["log_likelihood"].high))
    assert metric.details() == {"tokens": known.sum()}


def test_token_classes_are_counted_where_both_the_text_and_the_target_have_one():
    answers, y = token_classes(np.random.default_rng(7))
    metric = TokenClassScores(NAMES[:7])
    metric.update(answers, y)
    known = answers.known & (y != IGNORED)
    assert metric.result()["token accuracy"].value == pytest.approx((answers.best == y)[known].mean())


# -- agreement


def test_answers_of_one_model_agree_whole():
    rng = np.random.default_rng(8)
    for draw, agreement in (
        (classes, ClassAgreement()), (labels, LabelAgreement()), (values, ValueAgreement()), (tokens, TokenAgreement()),
    ):  # fmt: skip
        answers, _ = draw(rng)
        agreement.update(answers, answers)
        assert agreement.result()["agreement"].value == 1.0, agreement


def test_agreement_is_the_fraction_of_equal_answers():
    one = Classes(np.array([1, 2, 3, 4]))
    agreement = ClassAgreement()
    agreement.update(one, Classes(np.array([1, 2, 3, 0])))
    assert agreement.result()["agreement"] == proportion(3, 4)
    assert agreement.about(0.75) == "equal predictions for 75.0% of the samples"


def test_labels_that_neither_says_do_not_make_two_models_agree():
    def said(*rows: list[int]) -> Labels:
        return Labels(np.array(rows, float))

    agreement = LabelAgreement()
    agreement.update(said([1, 0, 0, 0], [0, 1, 0, 0]), said([1, 0, 0, 0], [0, 0, 1, 0]))
    assert agreement.result()["agreement"].value == 0.5
    nothing = LabelAgreement()
    nothing.update(said([0, 0]), said([0, 0]))
    assert nothing.result()["agreement"].value == 1.0


def test_two_models_of_numbers_that_are_both_good_agree_whichever_is_better():
    """sqrt(1 - agreement) is at most the sum of both sqrt(1 - R2), in deviations of the reference."""
    rng = np.random.default_rng(9)
    y = rng.normal(size=(2000, 1))
    for ours, theirs in ((0.02, 0.4), (0.4, 0.02), (0.3, 0.3)):
        a, b = (y + rng.normal(size=y.shape) * error for error in (ours, theirs))
        agreement = ValueAgreement()
        agreement.update(Values(a), Values(b))
        value = agreement.result()["agreement"].value
        spread = b.std() / y.std()
        missing = [math.sqrt(1 - r2_estimate(each, y).value) for each in (a, b)]
        assert math.sqrt(1 - value) <= sum(missing) / spread + 1e-6
        assert value > 0.8


def test_a_model_of_numbers_that_is_no_nearer_than_a_constant_does_not_agree():
    y = np.random.default_rng(10).normal(size=(50, 1))
    agreement = ValueAgreement()
    agreement.update(Values(-y), Values(y))
    assert agreement.result()["agreement"].value == 0.0


def test_few_embeddings_are_not_compared(refused):
    rng = np.random.default_rng(11)
    vectors = rng.normal(size=(NEIGHBORS, 8))
    agreement = NeighborAgreement()
    agreement.update(Embeddings(vectors[:-1]), Embeddings(vectors[:-1]))
    with refused(DataError, f"{NEIGHBORS - 1} embeddings are too few", hint=str(NEIGHBORS)):
        agreement.result()
    agreement.update(Embeddings(vectors[-1:]), Embeddings(vectors[-1:]))
    assert agreement.result()["agreement"].value == 1.0


def test_what_no_data_has_targets_for_is_not_scored(refused):
    with refused(DataError, "no data set has targets for embeddings", hint="bench"):
        Unscored("embeddings").result()


def test_the_return_of_an_agent_is_the_mean_of_its_episodes():
    scores = ReturnScores()
    scores.update(None, np.array([100.0, 110.0]))
    scores.update(None, np.array([90.0]))
    found = scores.result()["return"]
    assert found.value == 100.0
    assert found.high - found.value == pytest.approx(4.303 * 10 / math.sqrt(3), rel=1e-3)


# -- intervals: 95% of them hold what is true, by simulation


def covered(intervals: list[Any], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in intervals]))


def test_wilson_is_the_solution_of_its_quadratic():
    for right, count in ((3, 10), (97, 100), (0, 5), (5, 5)):
        found = proportion(right, count)
        for end in (found.low, found.high):
            assert (found.value - end) ** 2 <= Z**2 * end * (1 - end) / count + 1e-12
    assert (proportion(0, 5).low, proportion(5, 5).high) == (0.0, 1.0)


@pytest.mark.parametrize("truth", [0.5, 0.9])
def test_intervals_of_fractions_cover(truth):
    rng = np.random.default_rng(12)
    found = [proportion(int(rng.binomial(200, truth)), 200) for _ in range(2000)]
    assert 0.93 < covered(found, truth) < 0.97


def test_intervals_of_means_and_of_ratios_cover():
    rng = np.random.default_rng(13)
    draws = rng.normal(2.0, 1.0, (2000, 12))
    assert 0.93 < covered([mean(row.sum(), np.square(row).sum(), 12) for row in draws], 2.0) < 0.97
    sizes = rng.integers(5, 30, (2000, 40))
    right = rng.binomial(sizes, rng.beta(8, 2, sizes.shape))  # texts differ, and tokens of one are alike
    assert 0.92 < covered([ratio(a, b, 0, 1) for a, b in zip(right, sizes, strict=True)], 0.8) < 0.97


def test_intervals_of_r2_cover():
    rng = np.random.default_rng(14)
    found = []
    for _ in range(1000):
        y = rng.normal(size=(200, 1))
        found.append(r2_estimate(y + rng.normal(size=y.shape) * 0.5, y))
    assert 0.92 < covered(found, 0.75) < 0.97


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(15).normal(size=400)
    found = jackknife(float(x.mean()), 400, lambda kept: float(x[kept].mean()))
    expected = student(19) * x.std(ddof=1) / 20
    assert found.high - found.value == pytest.approx(expected, rel=0.4)


def test_one_sample_has_no_interval():
    assert mean(3.0, 9.0, 1).low is None
    assert ratio([1], [2]).low is None
    assert jackknife(1.0, 1, lambda kept: 1.0).low is None
    assert r2_estimate(np.ones((1, 1)), np.ones((1, 1))).low is None
