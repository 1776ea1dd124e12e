"""The example package in examples/image-and-table for tests: importable, and installed as pip would for a process."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

PACKAGE = Path(__file__).parents[1] / "examples" / "image-and-table"
sys.path.insert(0, str(PACKAGE))


def registry() -> Registry:
    """What ships, and the package."""
    point = EntryPoint("image-and-table", "pocketzoo_image_and_table", "pocketzoo")
    return Registry(create_manager(points=[point]))


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH with the package's entry point, as an editable installation has it."""
    info = folder / "pocketzoo_image_and_table-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pocketzoo-image-and-table\nVersion: 0.1.0\n", "utf8")
    (info / "entry_points.txt").write_text("[pocketzoo]\nimage-and-table = pocketzoo_image_and_table\n", "utf8")
    return folder
