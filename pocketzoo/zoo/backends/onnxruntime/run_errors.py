"""What onnxruntime's errors of a run mean to the user: memory that was short, or samples that a graph does not take."""

from __future__ import annotations

import re

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, MemoryShortError, PocketzooError

# What onnxruntime and the C++ library below it say when memory is short; the number, where there is one, is in bytes.
_SHORT = re.compile(r"allocate memory|bad_alloc|bad allocation|out of memory|BFCArena|CUDA failure 2\b", re.I)
_DOES_NOT_FIT = re.compile(r"INVALID_ARGUMENT|out of (data )?bounds|broadcast|dimension|shape|\brank\b", re.I)
_BYTES = re.compile(r"(?:buffer of size|requested bytes|allocate) (\d+)|(\d+) bytes", re.I)


def memory_short(error: Exception, doing: str, instead: str) -> MemoryShortError | None:
    """The error to show where a runtime's own says that memory was short, with how much was asked for; else None."""
    text = str(error)
    if not _SHORT.search(text):
        return None
    match = _BYTES.search(text)
    size = f", {int(match[1] or match[2]) / 1e6:,.0f} MB were requested at once" if match else ""
    return MemoryShortError(f"out of memory {doing}{size}", f"try {instead}")


def explained(error: Exception, inputs: Arrays) -> PocketzooError | None:
    """What a run that failed means to the user; None where that is not known."""
    batch = max((len(x) for x in inputs.values() if x.ndim), default=1)
    smaller = f"batches of {batch // 2}" if batch > 1 else "a smaller model, or close other programs"
    if short := memory_short(error, f"with a batch of {batch}", smaller):
        return short
    if not _DOES_NOT_FIT.search(str(error)):
        return None
    shapes = ", ".join(f"{name} {x.dtype} {x.shape}" for name, x in inputs.items())
    return DataError(
        f"the graph does not run on {shapes}: {error}", "give inputs of the shapes and values the graph expects"
    )
