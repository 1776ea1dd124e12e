"""JSON and TOML that anyone may have written: what is beyond the bounds is one error, whatever a reader says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.reading import documents
from pocketzoo.core.reading.documents import (
    DEEPEST,
    MOST_DIGITS,
    MalformedError,
    parse_json,
    parse_toml,
    read_bytes,
    read_json,
)
from pocketzoo.core.reading.utf8 import encoded, is_utf8

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
BAD_JSON = {
    "[" * 100_000: "nested",
    '{"a":' * 5000 + "1" + "}" * 5000: "nested",
    "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1): "nested",
    "9" * 5000: "digits",
    "-" + "1" * (MOST_DIGITS + 1): "digits",
    '["\\ud83d"]': "half a character",
    '{"\\udc80": 1}': "half a character",
    '"\ud83d"': "UTF-8",
    "": "Expecting value",
    "{": "Expecting",
    "nul": "Expecting value",
}
BAD_TOML = {
    "x = " + "[" * 20_000: "nested",
    "x = " + "{a=" * 20_000: "nested",
    ".".join("a" * 50_000) + " = 1": "nested",
    "[" + ".".join("a" * 50_000) + "]": "nested",
    "x = {" + ".".join("a" * 50_000) + " = 1}": "nested",
    "x = " + "9" * 5000: "digits",
    "x = " + "9_" * 5000 + "9": "digits",
    "x = 2020-01-01": "a date or a time",
    "x = [{y = 07:32:00}]": "a date or a time",
    'x = "\\ud83d"': "Escaped character",
    "x": "Expected",
}


@given(VALUES)
def test_what_json_writes_is_read_back(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf8")) == value


@pytest.mark.parametrize("depth", [1, DEEPEST - 1, DEEPEST])
def test_nesting_up_to_the_bound_is_read(depth):
    assert json.dumps(parse_json("[" * depth + "]" * depth)) == "[" * depth + "]" * depth
    assert parse_json('{"a":' * (depth - 1) + "1" + "}" * (depth - 1))


@pytest.mark.parametrize("text", BAD_JSON, ids=[f"{text[:12]}{len(text)}" for text in BAD_JSON])
def test_what_is_beyond_the_bounds_of_json(text):
    with pytest.raises(MalformedError, match=BAD_JSON[text]):
        parse_json(text)


@pytest.mark.parametrize("text", BAD_TOML, ids=[f"{text[:12]}{len(text)}" for text in BAD_TOML])
def test_what_is_beyond_the_bounds_of_toml(text):
    with pytest.raises(MalformedError, match=BAD_TOML[text]):
        parse_toml(text)


@pytest.mark.parametrize("data", [b"\xff\xfe", b'{"a": "\xe9"}', b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8(data):
    for parse in (parse_json, parse_toml):
        with pytest.raises(MalformedError, match="UTF-8"):
            parse(data)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_it(data):
    assert parse_json(data + b'{"a": 1}') == {"a": 1}
    assert parse_toml(data + b"a = 1\r\nb = 2\r\n") == {"a": 1, "b": 2}


def test_whole_numbers_that_a_float_holds_are_read():
    """Settings of tokenizers have 10 ** 30 for "no limit"."""
    assert parse_json("1000000000000000019884624838656") == 10**30 + 19884624838656
    assert parse_json("9" * MOST_DIGITS) == int("9" * MOST_DIGITS)
    assert math.isfinite(float(parse_json("9" * MOST_DIGITS)))


def test_a_pair_of_surrogates_is_a_character():
    assert parse_json('["\\ud83d\\ude00", "\\u00e9"]') == ["\U0001f600", "\u00e9"]


def test_a_key_that_appears_twice():
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(MalformedError, match="'a' appears twice"):
        parse_json('{"b": [{"a": 1, "a": 2}]}', once=True)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "LARGEST", 1 << 20)
    path = tmp_path / "x.json"
    path.write_text('"' + "a" * ((1 << 20) - 2) + '"')
    assert len(read_json(path)) == (1 << 20) - 2
    path.write_text('"' + "a" * ((1 << 20) - 1) + '"')
    with pytest.raises(MalformedError, match="larger than 1 MiB"):
        read_json(path)


@given(st.text(st.characters(categories=("L", "Cs"))))
def test_texts_that_are_not_utf8(text):
    assert is_utf8(text) == (not any("\ud800" <= letter <= "\udfff" for letter in text))
    assert encoded(text) == "".join("?" if "\ud800" <= c <= "\udfff" else c for c in text).encode("utf8")


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PATIENCE", 0.01)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="nobody writes"):
        read_bytes(tmp_path / "pipe")


def test_a_pipe_whose_writer_had_nothing_is_empty():
    reading, writing = os.pipe()
    os.close(writing)
    assert read_bytes(Path(f"/dev/fd/{reading}")) == b""
    os.close(reading)


def test_a_pipe_is_read_until_its_writer_is_done(tmp_path):
    reading, writing = os.pipe()

    def write() -> None:
        for _ in range(3):
            os.write(writing, b"x" * 100_000)
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    assert read_bytes(Path(f"/dev/fd/{reading}")) == b"x" * 300_000
    thread.join()
    os.close(reading)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_device_without_an_end_has_too_many_bytes():
    with pytest.raises(MalformedError, match="larger than 1 MiB"):
        read_bytes(Path("/dev/zero"), 1 << 20)


def test_a_byte_order_mark_needs_no_module_that_is_read_at_its_first_use():
    """Where no descriptor is left, a codec that is not loaded yet is "unknown"."""
    code = "import sys; from pocketzoo.core.reading.documents import parse_toml; "
    code += "sys.modules['encodings.utf_8_sig'] = None; print(parse_toml(b'\\xef\\xbb\\xbfa = 1'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "{'a': 1}\n"
