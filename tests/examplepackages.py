"""The packages in examples/ that need nothing but pocketzoo, found as if they were installed."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import tomllib

from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

EXAMPLES = Path(__file__).parents[1] / "examples"


def on_path(name: str) -> Path:
    """The folder of an example, from which its module imports."""
    folder = EXAMPLES / name
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


def point_of(name: str) -> EntryPoint:
    """Its entry point, as its pyproject.toml declares it."""
    project = tomllib.loads((on_path(name) / "pyproject.toml").read_text("utf8"))["project"]
    ((key, value),) = project["entry-points"]["pocketzoo"].items()
    return EntryPoint(key, value, "pocketzoo")


def registry_with(*names: str, extra: tuple[ModuleType, ...] = ()) -> Registry:
    """What ships, and these examples."""
    return Registry(create_manager(points=[point_of(name) for name in names], extra=extra))


def installed(name: str, folder: Path) -> dict[str, str]:
    """Environment in which a process finds the example installed: its metadata is written to ``folder``."""
    project = tomllib.loads((on_path(name) / "pyproject.toml").read_text("utf8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, "utf8")
    point = point_of(name)
    (info / "entry_points.txt").write_text(f"[pocketzoo]\n{point.name} = {point.value}\n", "utf8")
    root = EXAMPLES.parent
    return {"PYTHONPATH": ":".join(map(str, (root, on_path(name), folder))), "POCKETZOO_PLUGINS": point.name}
