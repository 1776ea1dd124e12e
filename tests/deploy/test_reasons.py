"""Reasons in few words."""

from __future__ import annotations

from pocketzoo.deploy.reasons import NAMED, by_reason, listed


def test_names_go_together_by_reason_and_the_first_are_listed():
    assert by_reason({"a": "one", "b": "two", "c": "one"}) == {"one": ["a", "c"], "two": ["b"]}
    names = [f"n{i}" for i in range(NAMED + 2)]
    assert listed(names[:NAMED]) == "n0, n1, n2, n3"
    assert listed(names) == "n0, n1, n2, n3 and 2 more"
