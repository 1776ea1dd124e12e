"""Draw what was measured of bundles as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pocketzoo.zoo.registry import Registry


def report(models: Sequence[str | Path], out: str | Path, *, registry: Registry | None = None) -> Path:
    """Write the page; returns its path."""
    raise NotImplementedError
