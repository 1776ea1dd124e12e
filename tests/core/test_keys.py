"""Keys: whatever a fact consists of changes them, in turn, and what it does not consist of does not."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import threading
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketzoo.core.keys import cache_key, digest_of


class Kind(Enum):
    ONE = "x"
    TWO = "y"


@dataclasses.dataclass(frozen=True)
class Point:
    x: object = 0
    y: object = 0


@dataclasses.dataclass(frozen=True)
class Place:
    x: object = 0
    y: object = 0


def one():
    pass


def two():
    pass


def holding(factor):
    def call():
        return factor

    return call


def defaulting(x=1):
    return lambda y=x, *, z=0: (x, y, z)


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def method(self):
        return self.factor

    @classmethod
    def alternative(cls):
        return cls(1)


def image(value, orientation=1):
    made = Image.new("L", (2, 2), value)
    made.getexif()[0x0112] = orientation
    return made


DISTINCT = [
    None, True, False, 0, 1, 1.0, -0.0, 0.0, float("nan"), "", "1", b"", b"1", "None", (), ("",), ("", ""), ((),),
    ({},), {}, {"": None}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, ["ab", "c"], ["a", "bc"], {"a"}, {"a", "b"},
    Kind.ONE, Kind.TWO, Point(1, 2), Point(2, 1), Place(1, 2), one, two, Kind, Point,
    functools.partial(one, 1), functools.partial(one, 2), functools.partial(one, a=1), Scaled(2), Scaled(3),
    holding(1), holding(2), holding([1]), defaulting(1), defaulting(2), Scaled(2).method, Scaled(3).method,
    Scaled.method, Scaled.alternative, holding(holding(1)), holding(holding(2)),
    np.zeros(4, np.float32), np.zeros(4, np.float64), np.zeros((2, 2), np.float32), np.zeros(4, np.int32),
    np.array([0, 0, 0, -0.0], np.float32), np.float32(0), np.array(0.0), np.array(["a", None], object),
    np.array(["b", None], object), torch.zeros(4), torch.zeros(2, 2), torch.zeros(0),
    torch.zeros(4, dtype=torch.bfloat16), torch.ones(4, dtype=torch.bfloat16), image(0), image(1), image(0, 6),
]  # fmt: skip


def test_no_two_values_have_one_digest():
    digests = [digest_of(value) for value in DISTINCT]
    assert len(set(digests)) == len(DISTINCT)
    assert digests == [digest_of(value) for value in DISTINCT]


def test_an_order_that_means_nothing_changes_nothing():
    assert digest_of({"a": 1, "b": {"x", "y"}}) == digest_of({"b": {"y", "x"}, "a": 1})
    assert digest_of([1, 2]) == digest_of((1, 2)) != digest_of([2, 1])
    turned = np.arange(6).reshape(2, 3).T
    assert digest_of(turned) == digest_of(turned.copy())


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(plain, plain)
def test_values_are_told_apart_as_json_tells_them(a, b):
    def text(value):
        return json.dumps(value, sort_keys=True, default=lambda raw: {"bytes": raw.hex()})

    assert (digest_of(a) == digest_of(b)) == (text(a) == text(b))


def test_purposes_and_versions_do_not_meet(monkeypatch):
    keys = [cache_key("a", x=1), cache_key("b", x=1), cache_key("a", y=1), cache_key("a", x=1, y=None)]
    monkeypatch.setattr("pocketzoo.core.keys.__version__", "0.0")
    keys.append(cache_key("a", x=1))
    assert len(set(keys)) == len(keys)


def test_what_a_value_consists_of_is_not_guessed():
    with pytest.raises(TypeError, match="a key cannot hold"):
        digest_of({"a": [object()]})


def test_files_count_by_content_and_folders_by_what_is_in_them(tmp_path):
    first, second = tmp_path / "a", tmp_path / "sub" / "b"
    second.parent.mkdir()
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    assert digest_of(first) == digest_of(second)
    assert digest_of([first, second]) == digest_of((second, first)) != digest_of([first])
    before = digest_of(tmp_path)
    second.rename(tmp_path / "sub" / "c")
    renamed = digest_of(tmp_path)
    (tmp_path / "sub" / "c").write_bytes(b"else")
    assert len({before, renamed, digest_of(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "none")


def test_the_same_in_another_process():
    facts = "{'a': [1, 2.5, {'x', 'y', 'z'}], 'b': frozenset('pq')}"
    code = f"from pocketzoo.core.keys import cache_key; print(cache_key('p', **{facts}))"
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == cache_key("p", a=[1, 2.5, {"x", "y", "z"}], b=frozenset("pq"))


CODE = """
import threading
def holding(factor):
    def call():
        return factor, call
    return call
lock = threading.Lock()
"""


def test_what_code_holds_that_cannot_be_read_is_nobody_else_s():
    """A function that refers to itself is no such: it is the same everywhere."""
    code = f"from pocketzoo.core.keys import digest_of\n{CODE}\nprint(digest_of(holding(1)), digest_of(holding(lock)))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    first, second = (subprocess.check_output(command, env=env, text=True).split() for _ in range(2))
    assert first[0] == second[0]
    assert first[1] != second[1]
    held = holding(threading.Lock())
    assert digest_of(held) == digest_of(held) != digest_of(holding(threading.Lock()))


def test_a_file_that_is_open_is_no_value(tmp_path):
    with (tmp_path / "x").open("wb") as file, pytest.raises(TypeError, match="a key cannot hold"):
        digest_of(file)
