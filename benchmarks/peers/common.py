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

    Token ids come one text at a time and without their padding, which is zeros at the end.
    """

    def __init__(self, path: Path, size: int = 8) -> None:
        self.rows = np.load(path, mmap_mode="r")
        self.size = 1 if self.rows.dtype == np.int64 else size

    def __len__(self) -> int:
        return (len(self.rows) + self.size - 1) // self.size

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.rows), self.size):
            batch = np.array(self.rows[start : start + self.size])
            yield batch[:, : np.flatnonzero(batch[0])[-1] + 1] if batch.dtype == np.int64 else batch


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Time what is inside and print it with the process's peak memory; what is put into the dict is printed as well.

    The time of all cores is told beside that of the clock: it says less of what else the machine was doing.
    """
    said: dict[str, Any] = {}
    start, cpu = time.perf_counter(), time.process_time()
    yield said
    said |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(said | {"peak_mb": peak_mb(), "versions": versions()}), flush=True)


def peak_mb() -> float:
    """Of this process alone: what ``getrusage`` tells begins with the memory of the process that started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
