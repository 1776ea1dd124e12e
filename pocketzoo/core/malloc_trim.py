"""Return freed memory to the system: glibc keeps it after many small tensors."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

ARENAS, MAPPED = -8, -3  # M_ARENA_MAX and M_MMAP_THRESHOLD of mallopt(3)
LARGE = 256 * 1024  # bytes of what is mapped by itself
USUAL = 32 * 1024 * 1024  # where glibc's own threshold ends up, as it follows what is freed


def share_arenas() -> None:
    """Let threads take memory from two pools: glibc gives each its own, and what one frees the others cannot use.

    With 64 of them that was more than a gigabyte. Other C libraries have no such pools, nor the function.
    """
    _tell(ARENAS, 2)


@contextlib.contextmanager
def large_mapped() -> Iterator[None]:
    """In here every large array is mapped by itself, and given back when it is freed.

    Activations of all layers come and go with each sample, in all sizes: in the pools they leave holes, more with every
    sample and never the same. Where arrays are used more than once the faults of mapping each cost a tenth of the time.
    """
    _tell(MAPPED, LARGE)
    try:
        yield
    finally:
        _tell(MAPPED, USUAL)


def return_memory() -> None:
    """Give back what is free in the pools, holes as well; mapping each tensor by itself would cost a fault a page."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _tell(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(option, value)
