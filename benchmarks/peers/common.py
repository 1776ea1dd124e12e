"""What the peers' scripts share: samples, and how each says what it took. numpy and the standard library only.

A script is run by the python of its tool's environment as ``script.py METHOD GRAPH SAMPLES OUT``: it reads an ONNX
graph and an array of samples, writes an ONNX graph, and prints a line of JSON last.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = (
    "pocketzoo", "nncf", "nvidia-modelopt", "olive-ai", "torch-pruning", "onnxruntime", "onnxruntime-gpu", "onnx",
    "torch", "numpy",
)  # fmt: skip


class Samples:
    """The samples of a file in batches, read as they are asked for, as often as one likes.

    Token ids come one text at a time and without their padding, which is zeros at the end. ``count``: so many, the
    file's over and over; without it, each once.
    """

    def __init__(self, path: Path, size: int = 8, count: int | None = None) -> None:
        self.path = path
        rows = self._rows()
        self.size = 1 if rows.dtype == np.int64 else size
        self.count = len(rows) if count is None else count

    def _rows(self) -> np.ndarray:
        """The file, mapped for one batch only: pages that were read count as the process's memory while it is."""
        return np.load(self.path, mmap_mode="r")

    @property
    def groups(self) -> np.ndarray | None:
        """The source of each sample, a photo or a document; None where nobody wrote them."""
        known = self.path.with_name(f"{self.path.stem}_groups.npy")
        return np.load(known)[np.arange(self.count) % len(self._rows())] if known.exists() else None

    def __len__(self) -> int:
        return (self.count + self.size - 1) // self.size

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.count, self.size):
            rows = self._rows()
            batch = rows[np.arange(start, min(start + self.size, self.count)) % len(rows)]
            del rows
            yield batch[:, : np.flatnonzero(batch[0])[-1] + 1] if batch.dtype == np.int64 else batch


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Time what is inside and print it with the process's peak memory; what is put into the dict is printed as well.

    The peak is all that the process held, imports included; ``start_mb`` is what it held before.
    The time of all cores is told alongside that of the clock: it says less of what else the machine was doing.
    """
    said: dict[str, Any] = {"start_mb": memory_mb("VmRSS")}
    start, cpu = time.perf_counter(), time.process_time()
    yield said
    said |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(said | {"peak_mb": peak_mb(), "versions": versions()}), flush=True)


def peak_mb() -> float:
    """Of this process alone: what ``getrusage`` tells begins with the memory of the process that started it."""
    return memory_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def memory_mb(field: str) -> float:
    """A line of /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field)), 0.0)


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
