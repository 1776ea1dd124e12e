"""Entities of tags: enumerated by hand and by their definition, and what is found of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.decoders.answers import TokenClasses
from pocketzoo.zoo.tasks.metrics.entities import EntityScores, entities, has_entities
from pocketzoo.zoo.tasks.metrics.tokens import TokenClassScores

LABELS = ("O", "B-P", "I-P", "E-P", "S-P", "B-L", "I-L")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-P I-P O B-L", [("P", 0, 1), ("L", 3, 3)]),
        ("B-P B-P", [("P", 0, 0), ("P", 1, 1)]),
        ("I-P I-P O I-L", [("P", 0, 1), ("L", 3, 3)]),  # IOB1, or an answer that is not well formed
        ("B-P I-L I-L", [("P", 0, 0), ("L", 1, 2)]),
        ("B-P I-P E-P E-P", [("P", 0, 2), ("P", 3, 3)]),
        ("S-P I-P", [("P", 0, 0), ("P", 1, 1)]),
        ("B-P E-P S-L O", [("P", 0, 1), ("L", 2, 2)]),
        ("B-P L-P U-P", [("P", 0, 1), ("P", 2, 2)]),  # BILOU
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
    ],
)
def test_entities_by_hand(tags, expected):
    assert list(entities(tags.split())) == expected


def by_definition(tags):
    """All runs of one type in which each tag but the first continues the one before, and which no longer run holds."""

    def continues(before, tag):
        return "O" not in (before[0], tag[0]) and before[1:] == tag[1:] and tag[0] not in "BS" and before[0] not in "ES"

    starts = [i for i, tag in enumerate(tags) if tag != "O" and (i == 0 or not continues(tags[i - 1], tag))]
    for start in starts:
        end = start
        while end + 1 < len(tags) and continues(tags[end], tags[end + 1]):
            end += 1
        yield tags[start][2:], start, end


@pytest.mark.parametrize("length", range(1, 5))
def test_all_short_texts_have_the_entities_of_the_definition(length):
    for tags in product(LABELS, repeat=length):
        assert list(entities(tags)) == list(by_definition(tags)), tags


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("O", "B-P", "I-P"), True),
        (("B-P", "I-P"), True),
        (("O",), False),
        (("NOUN", "VERB", "O"), False),
        (("B-P", "X-P"), False),
        (("B-", "O"), False),
        ((), False),
    ],
)
def test_labels_of_words_are_no_entities(labels, expected):
    assert has_entities(labels) == expected


def test_f1_is_that_of_sets_of_entities():
    """As scikit-learn counts: every entity of either side is one answer, right or wrong."""
    generator = np.random.default_rng(0)
    metric, there, found = EntityScores(LABELS), [], []
    for _ in range(40):
        targets = generator.integers(0, len(LABELS), 12)
        answers = np.where(generator.random(12) < 0.7, targets, generator.integers(0, len(LABELS), 12))
        metric.add(answers, targets)
        truth, said = (set(entities([LABELS[i] for i in row])) for row in (targets, answers))
        for each in sorted(truth | said):
            there.append(each in truth)
            found.append(each in said)
    precision, recall, f1, _ = precision_recall_fscore_support(there, found, average="binary")
    result = metric.result()
    values = [result[f"entity {name}"].value for name in ("precision", "recall", "f1")]
    assert values == pytest.approx([precision, recall, f1])
    assert all(each.low < each.value < each.high for each in result.values())


def scores(answers: list[list[str]], targets: list[list[str]], labels=LABELS, width=4) -> dict[str, float]:
    numbers = np.full((len(targets), width), IGNORED)
    outputs, known = np.zeros((len(targets), width, len(labels))), np.zeros((len(targets), width), np.bool_)
    for i, (said, right) in enumerate(zip(answers, targets, strict=True)):
        known[i, : len(said)] = True
        for j, tag in enumerate(said):
            outputs[i, j, labels.index(tag)] = 1.0
        for j, tag in enumerate(right):
            numbers[i, j] = IGNORED if tag == "-" else labels.index(tag)
    metric = TokenClassScores(labels)
    metric.update(TokenClasses(outputs, known), numbers)
    return {name: each.value for name, each in metric.result().items()}


def test_tokens_without_a_target_are_no_part_of_an_entity():
    """The second token of a word is neither right nor wrong, whatever is said of it."""
    result = scores([["B-P", "O", "I-P", "O"]], [["B-P", "-", "I-P", "O"]])
    assert result == {"token accuracy": 1.0, "entity f1": 1.0, "entity precision": 1.0, "entity recall": 1.0}


def test_an_entity_counts_whole_or_not_at_all():
    result = scores([["B-P", "I-P", "O"], ["S-P", "O", "B-L"]], [["B-P", "I-P", "I-P"], ["S-P", "O", "O"]])
    assert result["token accuracy"] == pytest.approx(4 / 6)
    assert (result["entity precision"], result["entity recall"]) == pytest.approx((1 / 3, 1 / 2))
    assert result["entity f1"] == pytest.approx(2 / (3 + 2))


def test_where_nothing_is_found_the_score_is_0_and_where_nothing_is_there_is_none():
    nothing = scores([["O", "O"]], [["B-P", "I-P"]])
    assert (nothing["entity f1"], nothing["entity precision"], nothing["entity recall"]) == (0.0, 0.0, 0.0)
    assert scores([["B-P", "O"]], [["O", "O"]]) == {"token accuracy": 0.5}
    assert scores([["a"]], [["b"]], ("a", "b")) == {"token accuracy": 0.0}
