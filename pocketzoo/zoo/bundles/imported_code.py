"""The code that a plugin brings: files of its own distribution and of what stands beside it, and libraries by version.

What a module imports is read off its source, so that a network that is imported only while it is built counts too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from pocketzoo.zoo.catalog.described import SHIPS

_INSTALLED = ("site-packages", "dist-packages")  # folders
_LEFT_OUT = {"__pycache__", ".git", ".venv", "node_modules"}
# Inside functions too; what a docstring seems to import does no harm. Relative ones stay within the package.
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w[\w.]*)[ \t]+import\b|import[ \t]+(\w[\w., \t]*))", re.MULTILINE)
_BY_NAME = re.compile(r"(?:import_module|__import__|lazily|require)\(\s*[\"'](\w[\w.]*)[\"']")


def imported_code(module: ModuleType, more: Iterable[str], origin: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The code of ``module``, of ``more`` by name, and of what they import: files by top-level name, and libraries.

    ``origin`` is the plugin's distribution with its version, or another text for a plugin that has none. The other
    top-level modules of its distribution count as well. A library, "name version", is a distribution that is installed
    for good; a module that is none's, or that is edited in its place, counts by its files, and has [] where it has
    none. A name that nothing has stands for itself: it may be an option that is installed later.
    """
    own = _distribution(origin.rpartition(" ")[0])
    found: dict[str, list[Path]] = {}
    libraries: set[str] = set()
    waiting = [name.partition(".")[0] for name in (module.__name__, *more, *_tops(own))]
    given = {} if module.__name__ in sys.modules else {module.__name__: module}  # one that was loaded by its file
    while waiting:
        top = waiting.pop()
        if top in found or top in libraries or top == SHIPS or top in sys.stdlib_module_names:
            continue
        place = _place(top, given.get(top) or sys.modules.get(top))
        if place is None and top not in sys.modules and top not in given:
            libraries.add(top)
        elif (library := _library(top, place)) and (own is None or library.name != own.name):
            libraries.update((top, f"{library.name} {library.version}"))
        else:
            found[top] = _files(place)
            waiting += _imports(found[top])
    return found, sorted(libraries)


def _place(top: str, module: ModuleType | None) -> Path | None:
    """The file of a top-level module, or the folder of a package."""
    folders = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    if module is None:
        with suppress(ImportError, ValueError, AttributeError):  # what a broken finder raises
            if spec := find_spec(top):
                folders, file = list(spec.submodule_search_locations or ()), spec.origin
    return Path(folders[0]) if folders else Path(file) if file else None


def _files(place: Path | None) -> list[Path]:
    if place is None or not place.exists():
        return []
    if place.is_file():
        return [place]
    # Names are left out below the package alone: it may itself stand in an environment called .venv. A folder without
    # __init__.py is a package of whatever lies there, data as well.
    pattern = "*" if (place / "__init__.py").is_file() else "*.py"
    return sorted(p for p in place.rglob(pattern) if p.is_file() and not set(p.relative_to(place).parts) & _LEFT_OUT)


def _imports(files: Iterable[Path]) -> Iterator[str]:
    """The top-level names that Python files import."""
    for file in files:
        if file.suffix == ".py":
            text = file.read_text("utf8", "replace")
            for name, several in _IMPORT.findall(text):
                yield from (each.split()[0].partition(".")[0] for each in (name or several).split(",") if each.split())
            yield from (name.partition(".")[0] for name in _BY_NAME.findall(text))


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name) if name else None
    except (PackageNotFoundError, ValueError):
        return None


def _tops(own: Distribution | None) -> set[str]:
    """The top-level modules that a distribution says it has."""
    if own is None:
        return set()
    said = (own.read_text("top_level.txt") or "").split()
    files = [file for file in own.files or () if file.suffix == ".py" and ".." not in file.parts]
    return {*said, *(file.parts[0].removesuffix(".py") for file in files)}


def _library(top: str, place: Path | None) -> Distribution | None:
    """The distribution that has a top-level module; None where its files may be edited in their place."""
    if place is None:
        return None
    found = _distribution(top)
    if found is None or Path(str(found.locate_file(""))).resolve() != place.resolve().parent:
        found = _owners(place.parent).get(top)
    # Metadata in a source tree, beside a module that is installed to be edited, tells of no files.
    settled = place.parent.name in _INSTALLED or (found is not None and found.read_text("RECORD") is not None)
    return found if settled else None


@cache
def _owners(folder: Path) -> dict[str, Distribution]:
    return {top: each for each in distributions(path=[str(folder)]) for top in _tops(each)}
