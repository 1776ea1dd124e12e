"""Globs over many names, against fnmatch asked of each name by itself."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.catalog.glob_index import Names

LETTERS = "ab-"
FEW = st.lists(st.text(LETTERS, min_size=1, max_size=6), unique=True, max_size=30)
ODD = st.lists(st.text(st.sampled_from("ab\n\r\x00\x1c\u2028\U0010ffff[]!^\\.$"), min_size=1, max_size=5), unique=True)
MANY = tuple(f"{family}-{i:03}-{size}" for family in ("net", "vit") for i in range(300) for size in ("s", "xl"))


def naive(names: list[str] | tuple[str, ...], pattern: str) -> list[str]:
    return [name for name in sorted(names) if fnmatchcase(name, pattern)]


@given(FEW, st.text(LETTERS + "*?[]!", max_size=8))
def test_it_finds_what_fnmatch_finds(names, pattern):
    assert list(Names(names).matching(pattern)) == naive(names, pattern)


@given(ODD, st.text("ab\n\r*?[]!^\\.$-\U0010ffff", max_size=8))
def test_odd_characters_change_nothing(names, pattern):
    assert list(Names(names).matching(pattern)) == naive(names, pattern)


@given(st.lists(st.sampled_from(["*", "?", "net", "vit", "-", "0", "17", "[0-4]", "[!v]", "s", "xl", "["]), max_size=6))
def test_many_names_are_searched_the_same(parts):
    """So many that a rare text is looked for first, and all other patterns are searched in one text."""
    pattern = "".join(parts)
    assert list(Names(MANY).matching(pattern)) == naive(MANY, pattern)


@pytest.mark.parametrize(
    "pattern",
    ["net-017-s", "net-01*", "*-017-*", "*-xl", "net-*-xl", "[nv]*", "n?t-*[!s]", "*", "**", "", "?", "*n*e*t*-*s",
     "*quantum*", "net", "[", "*\n*", "*s\nnet*", "*-s\n", "net-[!\n]*", "*[\n-]s", "?\n",
     "net-[0-", "[]]*", "[!]]*", "*-[z-a]*"],
)  # fmt: skip
def test_each_way_to_search(pattern):
    assert list(Names(MANY).matching(pattern)) == naive(MANY, pattern)


def test_no_names():
    assert list(Names([]).matching("*")) == []
    assert list(Names([]).matching("a")) == []
    assert list(Names([]).matching("?a*")) == []


def test_a_pattern_of_many_stars_ends():
    assert list(Names(["a" * 60]).matching("*a" * 20 + "*b")) == []


@pytest.mark.parametrize(("names", "all_of_one"), [((), True), (MANY, True), (("a", "b\nc"), False), (("\n",), False)])
def test_names_of_several_lines_are_told_apart(names, all_of_one):
    """They cannot be searched in one text; others are, which is what it is for."""
    assert Names(names).one_line is all_of_one
