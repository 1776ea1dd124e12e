from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.tasks.text_generator import TEXTS, TOKENS, Likeness, alike, with_room


@pytest.mark.parametrize(
    ("length", "positions"), [(5, 0), (5, 40), (24, 40), (25, 40), (40, 40), (3, 2), (100, TOKENS)]
)
def test_the_end_of_a_text_leaves_room_to_write(length, positions):
    ids = np.arange(length)[None]
    (cut,) = with_room([ids], positions)
    wanted = length if not positions else min(length, max(positions - TOKENS, 1))
    assert cut.tolist() == [list(range(length - wanted, length))]


class Scripted:
    """Writes what it is told to, and notes what it is asked."""

    def __init__(self, *scripts: list[int]) -> None:
        self.scripts, self.asked = iter(scripts), []

    def begin(self, ids):
        self.script = iter(next(self.scripts))
        self.asked.append(ids.tolist())
        return np.eye(9)[[next(self.script)]]

    def add(self, ids):
        self.asked.append(ids.tolist())
        return np.eye(9)[[next(self.script)]]


def test_each_token_is_compared_after_the_references_own():
    """The first text ends after three tokens, of which two are the same; the second is the same to the end."""
    reference = Scripted([1, 2, 8, 0], [3, 8, 0])
    other = Scripted([1, 5, 8], [3, 8])
    texts = [np.array([[4, 4]]), np.array([[6]])]
    assert alike(reference, other, texts, (8,)) == Likeness(texts=2, tokens=5, agreement=4 / 5, same_texts=1 / 2)
    assert other.asked == [[[4, 4]], [[1]], [[2]], [[6]], [[3]]]


def test_texts_that_do_not_end_are_of_sixteen_tokens():
    found = alike(Scripted([1] * 99), Scripted([1] * 99), [np.array([[4]])], ())
    assert found == Likeness(texts=1, tokens=16, agreement=1.0, same_texts=1.0)
    assert alike(Scripted(), Scripted(), [], ()) == Likeness(texts=0, tokens=0, agreement=0.0, same_texts=0.0)
    assert (TEXTS, TOKENS) == (16, 16)


def test_every_text_gets_room():
    texts = [np.arange(30)[None], np.arange(3)[None]]
    assert [ids.shape[1] for ids in with_room(texts, 20)] == [4, 3]
