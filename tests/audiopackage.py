"""The example package in examples/audio for tests: importable, and installed as pip would for a process of its own."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parents[1] / "examples" / "audio"
sys.path.insert(0, str(PACKAGE))


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH with the package's entry point, as an editable installation has it."""
    info = folder / "pocketzoo_audio-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pocketzoo-audio\nVersion: 0.1.0\n", "utf8")
    (info / "entry_points.txt").write_text("[pocketzoo]\naudio = pocketzoo_audio\n", "utf8")
    return folder


def plugin() -> ModuleType:
    """The plugin itself, imported."""
    return import_module("pocketzoo_audio")
