"""Chaos: that it notices what it is for, that a seed gives the same trials, and that every command is drawn."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools")]

import campaign_chaos  # noqa: E402
import campaign_words  # noqa: E402
from campaign_chaos import Ended, Trial, faults  # noqa: E402

from pocketzoo.cli.endings import EXIT_CODES  # noqa: E402

TWO = "  a step\nerror: it is not\nhint:  do\n"


def test_the_codes_are_those_that_are_documented():
    assert set(EXIT_CODES) == campaign_chaos.CODES


@pytest.mark.parametrize(
    ("ended", "found"),
    [
        (Ended(0, "out", "", 1.0, 1), []),
        (Ended(1, "", TWO, 1.0, 1), []),
        (Ended(3, "rows", TWO, 1.0, 1), []),
        (Ended(130, "", "  a step\ninterrupted\n", 1.0, 1), []),
        (Ended(2, "", "Usage: ...\n\nError: no\n", 1.0, 1), []),
        (Ended(1, "", "", 1.0, 1), ["not two lines"]),
        (Ended(1, "", "error: only this\n", 1.0, 1), ["not two lines"]),
        (Ended(1, "", TWO + TWO, 1.0, 1), ["not two lines"]),
        (Ended(130, "", TWO, 1.0, 1), ["not two lines"]),
        (Ended(70, "", "Traceback (most recent call last):\n  x\n", 1.0, 1), ["traceback"]),
        (Ended(-11, "", "", 1.0, 1), ["exit code -11"]),
        (Ended(0, "", "", 61.0, 1), ["61 s"]),
        (Ended(0, "", "", 1.0, 7 << 30), ["7168 MB"]),
    ],
)
def test_what_is_wrong_with_an_end_is_noticed(ended, found):
    assert faults(ended, Trial(["list"])) == found


def test_of_a_closed_pipe_nothing_has_to_be_said():
    assert faults(Ended(1, "", "", 1.0, 1), Trial(["list"], streams={1: "broken"})) == []
    assert faults(Ended(1, "", "", 1.0, 1), Trial(["list"], streams={2: "closed"})) == []


def test_a_seed_gives_the_same_words_and_all_commands_are_drawn(tmp_path):
    def draw(seed: int, number: int) -> list[list[str]]:
        chance = random.Random(seed)
        return [campaign_words.draw(chance, tmp_path) for _ in range(number)]

    assert draw(1, 50) == draw(1, 50) != draw(2, 50)
    drawn = {" ".join(words) for words in draw(3, 1500)}
    missing = [name for name in campaign_words.commands() if not any(line.startswith(name) for line in drawn)]
    assert missing == [*campaign_words.LONG]


def test_what_a_command_leaves_is_noticed(tmp_path):
    (tmp_path / "fifo").write_text("a file in its place")
    (tmp_path / ".x.tmp").write_text("")
    torn = tmp_path / "B"
    torn.mkdir()
    (torn / "pocketzoo.json").write_text("{}")
    found = campaign_words.left(tmp_path, crowd=False)
    assert [line.partition(":")[0] for line in found] == [
        "a temporary is left", "a bundle is torn", "fifo was replaced by a file"
    ]  # fmt: skip
