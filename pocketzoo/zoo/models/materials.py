"""The ``materials`` function: the bill of materials of a bundle or a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.bill_of_materials import bill_of_materials
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver


@survives_exit
def materials(
    model: str | Path, *, registry: Registry | Resolver | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """The bill of materials of a bundle, after its files were verified; of a registered model, that of its bundle.

    Raises:
        BundleError, UnsafeFileError: it is not a bundle, or is damaged.
        UnknownNameError: neither a path nor a registered backbone.
    """
    return bill_of_materials(open_model(model, registry=registry, progress=progress))
