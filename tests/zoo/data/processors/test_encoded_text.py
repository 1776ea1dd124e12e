"""One meaning of a line, wherever texts are read, and encodings by their byte order mark."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.encoded_text import lines_of, text_of

NO_ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("character", NO_ENDS)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".tsv"])
def test_other_characters_end_no_line(character, suffix, tmp_path):
    texts = [f"one{character}still {i}" for i in range(5)]
    content = {
        ".txt": "".join(f"{text}\n" for text in texts),
        ".csv": "text\n" + "".join(f"{text}\n" for text in texts),
        ".tsv": "text\n" + "".join(f"{text}\n" for text in texts),
        ".jsonl": "".join(f'{{"text": "one\\u{ord(character):04x}still {i}"}}\n' for i in range(5)),
    }[suffix]
    (tmp_path / f"a{suffix}").write_text(content, "utf8", newline="")
    data = load_data(tmp_path / f"a{suffix}")
    assert sorted(text for name in SPLITS for text in data.split(name).samples) == texts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_ends_and_blank_lines_are_no_text(end, suffix, tmp_path):
    head, line = {".txt": ("", "{}"), ".csv": ("text{end}", "{}"), ".jsonl": ("", '{{"text": "{}"}}')}[suffix]
    lines = [line.format(f"t{i}") for i in range(5)]
    content = head.replace("{end}", end) + end + f"{end}{end}".join(lines) + f"{end}  {end}"
    (tmp_path / f"a{suffix}").write_bytes(content.encode())
    data = load_data(tmp_path / f"a{suffix}")
    assert sorted(text for name in SPLITS for text in data.split(name).samples) == [f"t{i}" for i in range(5)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_is_its_text(encoding, end):
    assert text_of(f"caf\xe9\r\ntwo{end}".encode(encoding), "a") == "caf\xe9\ntwo"


@pytest.mark.parametrize("data", [b"caf\xe9", b"ok\n\xff\xfe", b"a\0b"])
def test_a_file_that_is_no_text_is_named_with_its_line(data, refused):
    with refused(DataError, "cannot read the text a: line"):
        text_of(data, "a")


TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), min_size=1)


@given(st.lists(TEXT, min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_come_back_as_they_were_written(texts, end):
    read = lines_of("".join(text + end for text in texts).encode(), "a")
    if not texts[0].startswith("\ufeff"):
        assert [line for _, line in read.lines] == [text + end for text in texts]
    assert [number for number, _ in read.lines] == list(range(1, len(texts) + 1))
