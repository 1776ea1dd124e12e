"""One name, one thing: no two classes of the package are called the same."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent / "pocketzoo"


def homes() -> dict[str, list[str]]:
    """The files that define a class of each name at their top level."""
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.ClassDef):
                files[node.name].append(path.relative_to(ROOT).as_posix())
    return files


def test_no_two_classes_share_a_name():
    assert len(homes()) > 200
    assert not {name: files for name, files in homes().items() if len(files) > 1}, "give each a telling name"
