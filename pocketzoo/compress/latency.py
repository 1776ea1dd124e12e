"""Hold a model to a share of its measured latency: cut multiply-accumulates, time the graph, correct, a few times."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from pocketzoo.errors import UnsupportedLayerError
from pocketzoo.zoo.graph import quiet

TRIES = 4
ROUNDS = 30  # runs of both graphs, in turn


def fitting(
    model: nn.Module,
    share: float,
    x: Tensor,
    at: Callable[[float], list[int]],
    cut: Callable[[list[int]], nn.Module],
) -> list[int]:
    """The counts that ``at`` gives for the largest share of multiply-accumulates found with a latency within ``share``.

    Latency need not follow multiply-accumulates, and may not fall at all below some point: after ``TRIES`` the fastest
    that was tried is taken.

    Raises:
        UnsupportedLayerError: the model does not export.
    """
    with tempfile.TemporaryDirectory() as folder:
        original = _export(model, x, Path(folder) / "original.onnx")
        macs, low, tried = share, 0.0, []
        high = 1.0
        for i in range(TRIES):
            counts = at(macs)
            found = _ratio(original, _export(cut(counts), x, Path(folder) / f"{i}.onnx"), x)
            tried.append((found > share, -macs if found <= share else found, counts))
            if found <= share:
                low = macs
            else:
                high = macs
            if high - low < 0.02:
                break
            # Latency = fixed part + macs: aim along the line through (1, 1) and what was found.
            slope = (1 - found) / max(1 - macs, 1e-6)
            aimed = 1 - (1 - share) / slope if slope > 0 else 0.0
            margin = 0.2 * (high - low)
            macs = min(max(aimed, low + margin), high - margin)
    return min(tried, key=lambda t: t[:2])[2]


def _export(model: nn.Module, x: Tensor, path: Path) -> Path:
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(model, (x[:1],), dynamo=True, external_data=False, verbose=False)
    except Exception as error:  # the exporter raises many types; all of them mean that this module does not export
        raise UnsupportedLayerError(
            "a latency budget needs a model that exports to ONNX", "give macs instead of latency"
        ) from error
    if program is None:
        raise UnsupportedLayerError("torch exported nothing", "give macs instead of latency")
    program.save(str(path))
    return path


def _ratio(before: Path, after: Path, x: Tensor) -> float:
    """Time of ``after`` over that of ``before``, one sample, one thread: the median of runs in turn."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(str(p), options, ["CPUExecutionProvider"]) for p in (before, after)]
    feed = {sessions[0].get_inputs()[0].name: x[:1].numpy()}
    spent: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 3):
        for session, times in zip(sessions, spent, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
    old, new = (float(np.median(times[3:])) for times in spent)
    return new / old
