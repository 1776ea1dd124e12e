"""The ``new_plugin`` function: write a plugin package of a kind, with its tests."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from pocketzoo.core.errors import PluginError, UnknownNameError, nearest
from pocketzoo.core.files import replacing_folder
from pocketzoo.core.names import check_folder_name
from pocketzoo.core.version import __version__
from pocketzoo.zoo.catalog.plugin_manager import BUILT_IN, create_manager
from pocketzoo.zoo.catalog.registry import Registry

TEMPLATE = Path(__file__).with_name("plugin_template")
SHARED = TEMPLATE / "shared"  # what the packages of all kinds have
# Kind -> what the package is, and what it needs of pocketzoo. "": a backbone and a head for it.
TEMPLATES = {
    "": ("A backbone and a head", "pocketzoo[compress]"),
    "backbone": ("A backbone", "pocketzoo[compress]"),
    "head": ("A head", "pocketzoo[compress]"),
    "task": ("A task with its decoder and a head", "pocketzoo[compress]"),
    "processor": ("A processor and a backbone that reads what it makes", "pocketzoo[compress]"),
    "backend": ("A back end and its target", "pocketzoo[compress]"),
    "compressor": ("A compressor", "pocketzoo[compress]"),
    "target": ("A target", "pocketzoo"),
}
KINDS = tuple(kind for kind in TEMPLATES if kind)
LONGEST = 40


def new_plugin(name: str, out: str | Path | None = None, *, kind: str | None = None) -> Path:
    """Write a plugin package to the folder ``out``, by default ``name`` in the current one; returns the folder.

    ``name`` is the name of the distribution, the entry point and of what it declares; with "_" for "-" that of the
    module. ``kind`` is what it declares, one of KINDS; without one a backbone and a head for it.

    Raises:
        PluginError: the name cannot be used, or the folder holds something.
        ExportError: the folder is called as if it were a file.
        StorageError: the folder cannot be written.
        UnknownNameError: there is no such kind to start from.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownNameError(f"there is no package of a {kind!r} to start from", nearest(kind, KINDS))
    module = _module(name, kind or "backbone")
    folder = Path(name if out is None else out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(f"{folder} exists and is not empty", "choose another folder with -o; nothing was written")
    check_folder_name(folder, "a plugin package")
    what, needs = TEMPLATES[kind or ""]
    work_on_it = (SHARED / "work_on_it.md.in").read_text("utf8")
    values = {"@work on it@": work_on_it, "@what@": what, "@needs@": needs}
    values |= {"@name@": name, "@module@": module, "@version@": __version__}
    with replacing_folder(folder) as temporary:
        for template in templates(kind):
            path = temporary / _place(template, module)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_filled(template.read_text("utf8"), values), "utf8")
    return folder


def templates(kind: str | None) -> list[Path]:
    """The files that a package of a kind is made of."""
    own = sorted((TEMPLATE / (kind or "default")).glob("*.in"))
    return [SHARED / "pyproject.toml.in", SHARED / "test_plugin.py.in", *own]


def _place(template: Path, module: str) -> str:
    """Where a template goes: tests by themselves, other Python files into the package."""
    name = template.name.removesuffix(".in")
    if not name.endswith(".py"):
        return name
    return f"tests/{name}" if name.startswith("test_") else f"{module}/{'__init__.py' if name == 'init.py' else name}"


def _module(name: str, kind: str) -> str:
    """The package's name, if nothing else is called so."""
    module = name.replace("-", "_")
    rule = "use lowercase letters and digits joined by -, such as my-backbone"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise PluginError(f"a plugin cannot be called {name!r}", rule)
    if len(name) > LONGEST:
        raise PluginError(f"a name of {len(name)} characters is too long", f"use {LONGEST} or fewer")
    if iskeyword(module) or module in sys.stdlib_module_names:
        raise PluginError(f"{name!r} is a Python keyword", "prefix it with your own name")
    ships = Registry(create_manager(points=()))
    if name in BUILT_IN or module == "pocketzoo" or name in ships.entries(kind):
        raise PluginError(f"{name!r} is reserved by pocketzoo", "prefix it with your own name")
    module_spec = find_spec(module)
    if module_spec is not None and module_spec.origin is not None:  # a folder that happens to be called so has none
        raise PluginError(f"a package {module!r} is installed already", "choose another name")
    return module


def _filled(text: str, values: dict[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text
