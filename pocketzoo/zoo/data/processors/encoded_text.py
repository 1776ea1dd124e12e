"""Bytes of a file as text: its encoding, and what a line of it is, the same wherever texts are read."""

from __future__ import annotations

import codecs
import encodings.utf_8_sig  # noqa: F401  # at its first use, descriptors may be spent
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pocketzoo.core.errors import DataError, message_of

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # no other character ends one: \x0b, \x85 and \u2028 are text
BYTE_ORDER_MARKS = (  # the longest first, since that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


NAMELESS = "has a zero byte, as UTF-16 without its mark has (FILE?encoding=utf-16-le, or utf-16-be)"
RENAME = "save it as UTF-8, or name its encoding: FILE.csv?encoding=cp1252"
GIVE = "give the text itself, or a file in UTF-8"


@dataclass(frozen=True, slots=True)
class TextLines:
    """The lines of a file with their numbers and ends, and those that its encoding does not have."""

    encoding: str  # as Python calls it
    lines: list[tuple[int, str]]
    bad: dict[int, str]  # number of a line -> what is wrong with it

    def texts(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank, without what is blank at their ends."""
        return ((number, line.strip()) for number, line in self.lines if line.strip())


def lines_of(data: bytes, name: str, encoding: str = "") -> TextLines:
    """The lines of a file: in ``encoding``, as its byte order mark says, or in UTF-8.

    Raises:
        DataError: there is no such encoding, or one whose lines cannot be told apart has other bytes.
    """
    encoding = _checked(encoding) if encoding else encoding_of(data)
    try:
        return _split(encoding, data.decode(encoding))
    except UnicodeDecodeError as error:
        if "\n".encode(encoding) != b"\n" and encoding != "utf-8-sig":
            number = data[: error.start].decode(encoding, "ignore").count("\n") + 1
            raise DataError(f"line {number} of {name} is not {encoding.upper()}: {error.reason}", RENAME) from error
    lines, bad = list[tuple[int, str]](), dict[int, str]()
    # Bytes are split where the text would be: no other character of such an encoding has those bytes in it.
    for number, line in enumerate(re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data), start=1):
        try:
            lines.append((number, line.decode(encoding if number == 1 else encoding.removesuffix("-sig"))))
        except UnicodeDecodeError as error:
            bad[number] = f"is not {encoding.removesuffix('-sig').upper()}: it has the byte 0x{line[error.start]:02x}"
    return TextLines(encoding, lines, bad)


def _split(encoding: str, text: str) -> TextLines:
    lines = list(enumerate(LINE.findall(text), start=1))
    if "\0" not in text:
        return TextLines(encoding, lines, {})
    bad = {number: NAMELESS for number, line in lines if "\0" in line}
    return TextLines(encoding, [each for each in lines if each[0] not in bad], bad)


def text_of(data: bytes, name: str) -> str:
    """A file that is one text, with \\n between its lines and none after the last.

    Raises:
        DataError: it is neither UTF-8 nor has a byte order mark.
    """
    read = lines_of(data, name)
    for number, what in read.bad.items():
        raise DataError(f"cannot read the text {name}: line {number} {what}", GIVE)
    text = "".join(line for _, line in read.lines).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n")


def encoding_of(data: bytes) -> str:
    """What its byte order mark says, else UTF-8."""
    return next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")


def _checked(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # LookupError of what is no encoding of text: hex, zlib
    except (LookupError, ValueError) as error:
        raise DataError(
            f"there is no encoding {encoding!r}: {message_of(error)}", "name one of Python's: utf-8, cp1252, latin-1"
        ) from error
    return encoding
