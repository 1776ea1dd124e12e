"""Sentences by document: what the modules of installed libraries say of themselves, a module being a document.

Usage: python benchmarks/documents.py FOLDER [--count 512]. Writes calibration.txt, test.txt and third.txt, a sentence a
line, of which no two are of one document.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import random
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

from sides import SEED, Side, side_of

LIBRARIES = ("sklearn", "scipy", "skimage")


@cache
def documents(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, list[str]]:
    """Module -> its sentences; one that several say is of the first, and a module without any is left out."""
    found: dict[str, list[str]] = {}
    said: set[str] = set()
    for library in libraries:
        package: Any = importlib.util.find_spec(library)
        root = Path(package.submodule_search_locations[0])
        for file in sorted(root.rglob("*.py")):
            if "tests" in file.parts:
                continue
            own = [text for text in dict.fromkeys(_sentences(file)) if text not in said]
            said.update(own)
            if own:
                found[f"{library}/{file.relative_to(root).as_posix()}"] = own
    return found


def sentences_of(library: str) -> list[str]:
    """The sentences of one library, sorted."""
    return sorted(text for own in documents((library,)).values() for text in own)


def sentences(side: Side, count: int | None, limit: int | None = None) -> tuple[list[str], list[int]]:
    """Sentences of the documents of one side (the first ``limit`` of them), shuffled, and the document of each.

    ``count``: the first so many; None: all.

    Raises:
        SystemExit: there are not so many.
    """
    known = documents()
    chosen = side_of(sorted(known), side, limit)
    rows = [(text, i) for i, name in enumerate(chosen) for text in known[name]]
    random.Random(SEED).shuffle(rows)
    if count is not None and len(rows) < count:
        raise SystemExit(
            f"{len(rows)} sentences of the side {side!r} in {', '.join(LIBRARIES)}, and {count} are needed"
        )
    return [text for text, _ in rows[:count]], [i for _, i in rows[:count]]


def _sentences(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            summary = (ast.get_docstring(node) or "").split("\n\n")
            for text in re.split(r"(?<=[.;:])\s", " ".join(" ".join(summary[:2]).split())):
                if 30 <= len(text) <= 250 and sum(c.isalpha() or c == " " for c in text) > 0.85 * len(text):
                    found.append(text)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=512)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for side in get_args(Side):
        texts, ids = sentences(side, args.count)
        (args.folder / f"{side}.txt").write_text("\n".join(texts) + "\n", "utf8")
        print(f"{side}: {len(texts)} sentences of {len(set(ids))} documents")


if __name__ == "__main__":
    main()
