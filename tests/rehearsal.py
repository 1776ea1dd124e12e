"""``dry_run`` and ``prepare`` with settings that are given by name, as ``compress`` takes them."""

from __future__ import annotations

from typing import Any

from pocketzoo.compress.pipeline import compress_model, job
from pocketzoo.compress.pipeline.settings import CompressSettings


def rehearse(model: Any, *, data: Any, registry: Any = None, progress: Any = compress_model.SILENT, **settings: Any):
    """``dry_run``."""
    asked = CompressSettings(**settings)
    return compress_model.dry_run(model, asked, data=data, registry=registry, progress=progress)


def prepared(model: Any, *, data: Any, registry: Any = None, progress: Any = compress_model.SILENT, **settings: Any):
    """``prepare``."""
    return job.prepare(model, CompressSettings(**settings), data=data, registry=registry, progress=progress)
