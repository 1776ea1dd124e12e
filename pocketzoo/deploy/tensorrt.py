"""Public names for scripts that build and run engines."""

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
