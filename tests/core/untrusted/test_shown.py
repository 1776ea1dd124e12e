"""Characters that act on whoever reads them are shown as their escapes; all others as they are."""

from __future__ import annotations

import unicodedata

import pytest

from pocketzoo.core.untrusted.shown import shown

BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_every_control_and_bidirectional_character_is_escaped():
    for code in range(0x110000):
        char = chr(code)
        kind = unicodedata.category(char)
        acts = kind in ("Cc", "Cs", "Zl", "Zp") and char not in "\t\n"
        if acts or unicodedata.bidirectional(char) in BIDIRECTIONAL:
            assert shown(char) != char
        if kind[0] in "LMNPS" or char in "\t\n ":
            assert shown(char) == char


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\bc", "a\\x0db\\x08c"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\x9b2J", "\\x9b2J"),
        ("\ud83d", "\\ud83d"),
        ("cat\u200b", "cat\\u200b"),
        ("c\xadat\u2060\ufeff", "c\\xadat\\u2060\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("two\nlines\tapart", "two\nlines\tapart"),
    ],
)
def test_what_is_shown(text, expected):
    assert shown(text) == expected
    assert shown(shown(text)) == expected
