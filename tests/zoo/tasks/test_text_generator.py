from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.tasks.text_generator import TOKENS, with_room


@pytest.mark.parametrize(
    ("length", "positions"), [(5, 0), (5, 40), (24, 40), (25, 40), (40, 40), (3, 2), (100, TOKENS)]
)
def test_the_end_of_a_text_leaves_room_to_write(length, positions):
    ids = np.arange(length)[None]
    (cut,) = with_room([ids], positions)
    wanted = length if not positions else min(length, max(positions - TOKENS, 1))
    assert cut.tolist() == [list(range(length - wanted, length))]
