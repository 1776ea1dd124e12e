"""Keep Python's garbage collector out of calls into TensorRT."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect nothing meanwhile. TensorRT calls its logger, which is Python, while it holds a lock.

    If the collector ran just then and found an engine or builder that a reference cycle (an exception's traceback, for
    one) has kept, its destructor would wait for that lock for ever. Also a decorator.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
