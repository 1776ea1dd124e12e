"""Public names of the hooks, for plugins."""

from pocketzoo.zoo.catalog.hookspecs import (
    PROJECT,
    hookimpl,
    hookspec,
    pocketzoo_backbones,
    pocketzoo_compressors,
    pocketzoo_datasets,
    pocketzoo_exporters,
    pocketzoo_heads,
    pocketzoo_loaders,
    pocketzoo_targets,
)

__all__ = [
    "PROJECT",
    "hookimpl",
    "hookspec",
    "pocketzoo_backbones",
    "pocketzoo_compressors",
    "pocketzoo_datasets",
    "pocketzoo_exporters",
    "pocketzoo_heads",
    "pocketzoo_loaders",
    "pocketzoo_targets",
]
