"""How alike two models write: tokens in the same place, and texts to the end."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.tasks.decoders.answers import Texts
from pocketzoo.zoo.tasks.metrics.texts import TextAgreement


def wrote(*rows: list[int]) -> Texts:
    return Texts([np.array(row, np.int64) for row in rows])


@pytest.mark.parametrize(
    ("ours", "theirs", "same", "equal"),
    [
        ([[1, 2, 3]], [[1, 2, 3]], 1.0, 1.0),
        ([[1, 5, 3]], [[1, 2, 3]], 2 / 3, 0.0),
        ([[1]], [[1, 2, 3, 4]], 1 / 4, 0.0),  # it ended early
        ([[1, 2, 3, 4]], [[1, 2]], 1.0, 0.0),  # it went on
        ([[1, 2], [7]], [[1, 2], [8]], 2 / 3, 1 / 2),
        ([[], [4]], [[2], [4]], 1 / 2, 1 / 2),
    ],
)
def test_tokens_in_the_same_place_and_texts_to_the_end(ours, theirs, same, equal):
    metric = TextAgreement()
    metric.update(wrote(*ours), wrote(*theirs))
    result = {name: each.value for name, each in metric.result().items()}
    assert result == pytest.approx({"agreement": same, "equal texts": equal})


def test_parts_that_are_merged_are_the_whole():
    generator = np.random.default_rng(0)
    rows = [[generator.integers(0, 3, generator.integers(1, 9)) for _ in range(30)] for _ in range(2)]
    whole, left, right = TextAgreement(), TextAgreement(), TextAgreement()
    whole.update(Texts(rows[0]), Texts(rows[1]))
    left.update(Texts(rows[0][:11]), Texts(rows[1][:11]))
    right.update(Texts(rows[0][11:]), Texts(rows[1][11:]))
    left.merge(right)
    assert left.result() == whole.result()
    assert whole.result()["agreement"].low < whole.result()["agreement"].value


def test_other_numbers_of_texts_are_refused_and_none_is_no_agreement(refused):
    with refused(DataError, "one model wrote 1 texts, the other 2", hint="same samples"):
        TextAgreement().update(wrote([1]), wrote([1], [2]))
    with refused(DataError, "no text was compared", hint="give texts"):
        TextAgreement().result()
