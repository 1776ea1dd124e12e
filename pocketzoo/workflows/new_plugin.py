"""The ``new_plugin`` function: write a plugin package with a backbone, a head and a test."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from pocketzoo.core.errors import PluginError
from pocketzoo.core.files import replacing_folder
from pocketzoo.core.version import __version__
from pocketzoo.zoo.catalog.plugin_manager import BUILT_IN

TEMPLATE = Path(__file__).with_name("plugin_template")
# Template -> where it goes. "@module@" in a path or text is the name of the Python package.
FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "init.py.in": "@module@/__init__.py",
    "module.py.in": "@module@/module.py",
    "test_plugin.py.in": "tests/test_plugin.py",
}
LONGEST = 40


def new_plugin(name: str, out: str | Path | None = None) -> Path:
    """Write a plugin package to the folder ``out``, by default ``name`` in the current one; returns the folder.

    ``name`` is the name of the distribution, the entry point and the backbone; with "_" for "-" that of the module.

    Raises:
        PluginError: the name cannot be used, or the folder holds something.
        StorageError: the folder cannot be written.
    """
    module = _module(name)
    folder = Path(name if out is None else out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(f"{folder} exists and is not empty", "choose another folder with -o; nothing was written")
    values = {"@name@": name, "@module@": module, "@version@": __version__}
    with replacing_folder(folder) as temporary:
        for template, place in FILES.items():
            path = temporary / _filled(place, values)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_filled((TEMPLATE / template).read_text("utf8"), values), "utf8")
    return folder


def _module(name: str) -> str:
    """The package's name, if nothing else is called so."""
    module = name.replace("-", "_")
    rule = "use lowercase letters and digits joined by -, such as my-backbone"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise PluginError(f"a plugin cannot be called {name!r}", rule)
    if len(name) > LONGEST:
        raise PluginError(f"a name of {len(name)} characters is too long", f"use {LONGEST} or fewer")
    if iskeyword(module) or module in sys.stdlib_module_names:
        raise PluginError(f"{name!r} is a Python keyword", "prefix it with your own name")
    if name in BUILT_IN or module == "pocketzoo":
        raise PluginError(f"{name!r} is reserved by pocketzoo", "prefix it with your own name")
    module_spec = find_spec(module)
    if module_spec is not None and module_spec.origin is not None:  # a folder that happens to be called so has none
        raise PluginError(f"a package {module!r} is installed already", "choose another name")
    return module


def _filled(text: str, values: dict[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text
