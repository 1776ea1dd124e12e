"""zoo.lock: the same entries are the same bytes, and what is damaged is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pocketzoo.core.errors import LockError
from pocketzoo.zoo.hub.lock_file import Locked, LockedFile, read_lock, write_lock
from pocketzoo.zoo.hub.reference import is_inside

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
PRINTABLE = st.characters(exclude_categories=["C", "Z"])
PATH = st.text(PRINTABLE, min_size=1, max_size=30).filter(is_inside)
FILE = st.builds(LockedFile, path=PATH, size=st.integers(0, 2**50), sha256=HEX)
ENTRY = st.builds(
    Locked,
    ref=st.text(PRINTABLE, min_size=1, max_size=40),
    commit=HEX.map(lambda h: h[:40]),
    file=st.lists(FILE, max_size=4, unique_by=lambda f: f.path).map(tuple),
)
GOOD = Locked(ref="hf://a/b", commit="a" * 40, file=(LockedFile(path="x", size=1, sha256="b" * 64),))


@given(st.lists(ENTRY, max_size=5, unique_by=lambda e: e.ref))
def test_what_is_written_is_read_and_the_order_does_not_matter(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("lock") / "zoo.lock"
    write_lock(path, entries)
    first = path.read_bytes()
    found = read_lock(path)
    assert list(found) == sorted(e.ref for e in entries)
    assert {r: (e.commit, set(e.file)) for r, e in found.items()} == {e.ref: (e.commit, set(e.file)) for e in entries}
    write_lock(path, reversed(list(found.values())))
    assert path.read_bytes() == first


@given(st.text(st.characters(codec="utf8"), min_size=1))
@example("".join(map(chr, range(0x20))))
@example('"\\\x7f\x80\u2028\ufeff\U0010ffff')
def test_a_reference_is_quoted_whatever_is_in_it(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lock") / "zoo.lock"
    write_lock(path, [replace(GOOD, ref=text), replace(GOOD, ref=f"{text}z")])
    assert set(read_lock(path)) == {text, f"{text}z"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"), ("version = 1", ""), ('commit = "' + "a" * 40, 'commit = "' + "a" * 39),
        ("b" * 64, "z" * 64), ('path = "x"', 'path = "../x"'), ('path = "x"', 'path = "/x"'),
        ("size = 1", 'size = "1"'),
        ("size = 1", "sise = 1"), ("[[model]]", "[[model"), ("ref =", "reff ="),
    ],
)  # fmt: skip
def test_a_damaged_lock_is_refused(old, new, tmp_path, refused):
    path = tmp_path / "zoo.lock"
    write_lock(path, [GOOD])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with refused(LockError, str(path)):
        read_lock(path)


def test_a_missing_lock_names_the_command_that_makes_one(tmp_path, refused):
    with refused(LockError, "there is no", hint="pocketzoo lock REF"):
        read_lock(tmp_path / "zoo.lock")
