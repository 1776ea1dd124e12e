"""Engines, where scripts import their functions from."""

from pocketzoo.zoo.backends.tensorrt.build_engine import (
    DEFAULT,
    check_axes,
    check_engine,
    layer_precisions,
    refit_engine,
    refusals,
    save_engine,
)

__all__ = [
    "DEFAULT",
    "check_axes",
    "check_engine",
    "layer_precisions",
    "refit_engine",
    "refusals",
    "save_engine",
]
