"""Texts that are not UTF-8, as names of files and arguments may be: Python has halves of characters for their bytes."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded, printed and kept in a file."""
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        return False
    return True


def encoded(text: str) -> bytes:
    """A text for a file in UTF-8, with "?" in place of what is not UTF-8."""
    return text.encode("utf8", "replace")
