"""Text that comes from elsewhere, as it is shown: control and bidirectional characters are written out.

A label, a name or a library's message may hold a character that moves the cursor, rings, sets the terminal's title or
turns the reading direction, so that what is read is not what is there (CVE-2021-42574, "Trojan Source").
"""

from __future__ import annotations

import re

# C0 but tab and newline, DEL and C1, the marks and overrides of bidirectional text, separators of lines, halves of
# pairs, and what is not shown at all: soft hyphens, spaces without width, tags. Joiners stay: Persian and
# emoji need them.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: object) -> str:
    r"""``text`` with every character that acts on its reader as its escape: "\x1b", "\u202e"."""
    return _ACTIVE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown_json(text: str) -> str:
    """JSON with the same characters as JSON's own escapes: what reads it has the same strings."""
    return _ACTIVE.sub(_escaped_in_json, text)


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
