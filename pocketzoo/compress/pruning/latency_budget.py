"""Prune to a fraction of the measured latency: cut multiply-accumulates, time the graph, correct, repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pocketzoo.compress.statistics.calibration_batches import Inputs, take
from pocketzoo.core.errors import UnsupportedLayerError
from pocketzoo.core.files import scratch_folder
from pocketzoo.measure.measure_graphs import median_milliseconds
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.models.export_graph import quiet, translations_kept

if TYPE_CHECKING:
    from onnx import ModelProto

TRIES = 4
SECONDS = 0.1  # that each graph is timed for


def fitting(
    model: nn.Module,
    share: float,
    x: Inputs,
    at: Callable[[float], list[int]],
    cut: Callable[[list[int]], nn.Module],
    shipped: Callable[[ModelProto], ModelProto] | None = None,
) -> list[int]:
    """The counts of ``at`` for the largest fraction of multiply-accumulates whose latency is within ``share``.

    What is timed are the graphs that ``shipped`` makes of those of the module, or these.

    Latency need not follow multiply-accumulates, and may not fall at all below some point: after ``TRIES`` the fastest
    that was tried is taken.

    Raises:
        UnsupportedLayerError: the model does not export.
    """
    with scratch_folder() as folder:
        one = {name: t[:1].numpy() for name, t in zip(_names(x), x, strict=True)}
        original = _export(model, x, folder / "original.onnx", shipped)
        macs, low, tried = share, 0.0, []
        high = 1.0
        for i in range(TRIES):
            counts = at(macs)
            smaller = _export(cut(counts), x, folder / f"{i}.onnx", shipped)
            before, after = median_milliseconds([original, smaller], one, SECONDS)
            ratio = after / before
            tried.append((ratio > share, -macs if ratio <= share else ratio, counts))
            if ratio <= share:
                low = macs
            else:
                high = macs
            if high - low < 0.02:
                break
            # Latency = fixed part + macs: aim along the line through (1, 1) and what was found.
            slope = (1 - ratio) / max(1 - macs, 1e-6)
            aimed = 1 - (1 - share) / slope if slope > 0 else 0.0
            margin = 0.2 * (high - low)
            macs = min(max(aimed, low + margin), high - margin)
    return min(tried, key=lambda t: t[:2])[2]


def _names(x: Inputs) -> list[str]:
    return [f"input_{i}" for i in range(len(x))]


def _export(model: nn.Module, x: Inputs, path: Path, shipped: Callable[[ModelProto], ModelProto] | None = None) -> Path:
    try:
        with quiet(), translations_kept(), torch.no_grad():
            program = torch.onnx.export(
                model,
                take(x, slice(1)),
                input_names=_names(x),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types; all of them mean that this module does not export
        raise UnsupportedLayerError(
            "a latency budget needs a model that exports to ONNX", "set macs instead of latency"
        ) from error
    if program is None:
        raise UnsupportedLayerError("torch exported nothing", "set macs instead of latency")
    program.save(str(path))
    if shipped is not None:
        save_graph(shipped(read_graph(path)), path)
    return path
