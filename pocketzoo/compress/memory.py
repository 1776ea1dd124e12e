"""Memory that was freed goes back to the system: torch's tensors leave glibc's pools full of holes."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

ARENAS, MMAP_THRESHOLD = -8, -3  # names of mallopt(3)


@contextlib.contextmanager
def memory_returned() -> Iterator[None]:
    """In here threads take memory from two pools, and what is large from none, so that it goes back when it is freed.

    glibc gives each thread a pool of its own, and what one frees the others cannot use. Besides, small tensors that
    wait keep it from giving back the large ones freed below them, up to 32 MB each; together that was more than a
    gigabyte. Other C libraries have no such pools, nor the function.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(ARENAS, 2)
        set_option(MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 32 << 20)  # where it comes to by itself
