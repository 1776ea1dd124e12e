from __future__ import annotations

import pytest

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.core.name_patterns import check_skip, matches

NAMES = ["stem.0", "stage1.0.conv1", "stage1.0.conv2", "head.linear"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("stem.0", ["stem.0"]),
        ("stage1.*", ["stage1.0.conv1", "stage1.0.conv2"]),
        ("*.conv?", ["stage1.0.conv1", "stage1.0.conv2"]),
        ("*", NAMES),
        ("[hs]*.[0l]*", ["stem.0", "stage1.0.conv1", "stage1.0.conv2", "head.linear"]),
        ("STEM.0", []),
        ("stem", []),
    ],
)
def test_patterns_are_names_or_globs(pattern, matched, refused):
    assert [n for n in NAMES if matches(n, [pattern])] == matched
    if matched:
        check_skip([pattern], NAMES)
    else:
        with refused(UnknownNameError, f"{pattern!r}"):
            check_skip([pattern], NAMES)


def test_no_patterns_match_nothing():
    check_skip((), NAMES)
    assert not matches("stem.0", ())


@pytest.mark.parametrize(("typo", "near"), [("stem.1", "stem.0"), ("head.liner", "head.linear")])
def test_the_first_wrong_pattern_is_named_with_its_nearest_layer(typo, near, refused):
    with refused(UnknownNameError, repr(typo), hint=repr(near)):
        check_skip(["stem.0", typo, "nonsense"], NAMES)
