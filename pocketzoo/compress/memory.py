"""Memory that was freed goes back to the system: small tensors that wait leave glibc's pools full of holes."""

from __future__ import annotations

import contextlib
import ctypes

ARENAS = -8  # M_ARENA_MAX of mallopt(3)


def share_arenas() -> None:
    """Let threads take memory from two pools: glibc gives each its own, and what one frees the others cannot use.

    With 64 of them that was more than a gigabyte. Other C libraries have no such pools, nor the function.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(ARENAS, 2)


def return_memory() -> None:
    """Give back what is free in the pools, holes as well; mapping each tensor by itself would cost a fault a page."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
