"""One name, one thing: no two classes of the package are called the same."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent / "pocketzoo"
# Name -> why two classes have it.
EXCEPTIONS = {
    "_Writer": "of one file each, and nobody else's: what a graph in another precision is written with",
    **dict.fromkeys(
        ["Channels", "Effect", "Encoder", "Group", "Moments", "Reading"], "of quantization and of another room"
    ),
}


def homes() -> dict[str, list[str]]:
    """The files that define a class of each name at their top level."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path.relative_to(ROOT).as_posix())
    return found


def test_no_two_classes_share_a_name():
    shared = {name: files for name, files in homes().items() if len(files) > 1}
    assert not {name: files for name, files in shared.items() if name not in EXCEPTIONS}, "give each a telling name"
    assert not EXCEPTIONS.keys() - shared.keys(), "mended: take it out of EXCEPTIONS"
