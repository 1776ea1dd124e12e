"""What speaks against int8 graphs that write. How they are made and write: tests/workflows/test_run_generation.py."""

from __future__ import annotations

import pytest

from pocketzoo.compress.pipeline.generation_graphs import _against, writes_text
from pocketzoo.compress.pipeline.judge import SLACK

GOOD = {"bytes_before": 100, "bytes_after": 50, "agreement": 0.95, "ms_a_token_before": 2.0, "ms_a_token_after": 1.0}


@pytest.mark.parametrize(
    ("report", "max_drop", "keep_slower", "why"),
    [
        ({}, None, False, ""),
        ({}, 0.05, False, ""),
        ({"agreement": 0.9}, 0.05, False, "10.0% of the tokens change, at most 5.0% are allowed"),
        ({"agreement": 0.9}, 0.05, True, "10.0% of the tokens change, at most 5.0% are allowed"),
        ({"bytes_after": 101}, None, False, "larger: 100 -> 101 bytes"),
        ({"bytes_after": 101}, None, True, ""),
        ({"ms_a_token_after": 2.0 * SLACK + 0.1}, None, False, "slower: 2.00 -> 2.16 ms a token"),
        ({"ms_a_token_after": 2.0 * SLACK - 0.01}, None, False, ""),
        ({"ms_a_token_after": 9.0}, None, True, ""),
    ],
)
def test_what_speaks_against_them(report, max_drop, keep_slower, why):
    assert _against({**GOOD, **report}, max_drop, keep_slower) == why


def test_a_target_that_does_not_run_here_is_not_timed():
    report = {name: value for name, value in GOOD.items() if not name.startswith("ms")}
    assert _against(report, None, keep_slower=False) == ""


def test_a_classifier_writes_nothing(fitted, registry):
    assert not writes_text(fitted, registry)
