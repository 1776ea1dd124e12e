"""Data augmentation."""

from typing import TYPE_CHECKING

from pocketzoo.core.former_names import names_before

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
