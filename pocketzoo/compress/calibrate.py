"""Ranges of a graph's activations, streamed: one sample at a time, a histogram a tensor, nothing kept of the sample."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.patches import Moments, Reading
from pocketzoo.compress.plans import Range
from pocketzoo.errors import DataError
from pocketzoo.zoo.preprocess import Array

BINS = 2048  # on each side of zero
VALUES = 16384  # of one tensor and sample that enter the histogram, evenly spread; minimum and maximum see all


@dataclass
class Histogram:
    """Counts of values in equal bins around zero. When a value lies outside, bins are merged in pairs."""

    width: float = 0.0  # of a bin; 0 until the first value that is not 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    low: float = 0.0  # zero is always representable, so it is always inside
    high: float = 0.0

    def add(self, values: Array) -> None:
        flat = values.ravel()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        reach = max(-self.low, self.high)
        if reach == 0.0:
            return
        if self.width == 0.0:
            self.width = max(reach / BINS, 1e-30)  # its inverse must stay finite for activations of a dead layer
        while self.width * BINS < reach:
            # Bins are merged outwards from the middle: the left half's first pair and the right half's.
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            self.width *= 2
        step = max(1, flat.size // VALUES)
        index = (flat[::step] * (1.0 / self.width)).astype(np.float32)
        index = np.clip(np.floor(index).astype(np.int64) + BINS, 0, 2 * BINS - 1)
        self.counts += np.bincount(index, minlength=2 * BINS)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        return np.asarray((np.arange(2 * BINS) - BINS + 0.5) * self.width, np.float64)

    def range(self, config: Int8Config) -> Range:
        """The range that the config's rule picks. It always holds zero."""
        if config.ranges == "minmax" or self.width == 0.0:
            return Range(low=self.low, high=self.high, magnitude=max(-self.low, self.high))
        if config.ranges == "percentile":
            share = self.counts.cumsum() / self.counts.sum()
            tail = (1 - config.percentile / 100) / 2 if self.low < 0 else 1 - config.percentile / 100
            low = min(0.0, float(self.centres[np.searchsorted(share, tail, side="right")])) if self.low < 0 else 0.0
            high = max(0.0, float(self.centres[min(int(np.searchsorted(share, 1 - tail)), 2 * BINS - 1)]))
            return Range(low=low, high=high, magnitude=max(-low, high))
        return self._least_error()

    def _least_error(self) -> Range:
        """The range with the least mean squared error after 8-bit rounding and saturation (Sung et al. 2015)."""
        used = self.counts > 0
        values, counts = self.centres[used], self.counts[used]
        shrink = np.concatenate([np.linspace(1.0, 0.5, 26), np.linspace(0.48, 0.1, 20)])
        best = (np.inf, self.low, self.high)
        # First both ends shrink together, then each alone from there: the error is close to separable.
        for lows, highs in ((shrink, shrink), (shrink, None), (None, shrink)):
            base_low, base_high = best[1], best[2]
            for i in range(len(shrink)):
                low = base_low if lows is None else self.low * lows[i]
                high = base_high if highs is None else self.high * highs[i]
                error = _error(values, counts, low, high, 255)
                if error < best[0]:
                    best = (error, low, high)
        reach = max(-self.low, self.high)
        magnitude = min(shrink, key=lambda s: _error(values, counts, -reach * s, reach * s, 254))
        return Range(low=float(best[1]), high=float(best[2]), magnitude=float(reach * magnitude))


def _error(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], low: float, high: float, levels: int
) -> float:
    """Mean squared error of rounding ``values`` to ``levels`` steps between ``low`` and ``high``."""
    if high <= low:
        return float("inf")
    scale = (high - low) / levels
    zero = round(-low / scale)
    rounded = (np.clip(np.round(values / scale) + zero, 0, levels) - zero) * scale
    return float(np.dot(counts, (values - rounded) ** 2))


@dataclass
class Observed:
    """What one pass over the samples saw."""

    histograms: dict[str, Histogram]
    moments: dict[Reading, Moments]
    samples: int

    def ranges(self, config: Int8Config) -> dict[str, Range]:
        """The range of each tensor by the config's rule."""
        return {name: histogram.range(config) for name, histogram in self.histograms.items()}


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Array], readings: Collection[Reading] = ()
) -> Observed:
    """Histograms of the named tensors and second moments of what layers read, in one pass.

    Memory is that of one sample and of the moments.

    Raises:
        DataError: there are no samples, or an activation is not finite.
    """
    histograms = {name: Histogram() for name in tensors}
    moments: dict[Reading, Moments] = {}
    watched = list(dict.fromkeys([*tensors, *sorted({r.tensor for r in readings})]))
    count = 0
    for values in activations(model, watched, samples):
        for name, histogram in histograms.items():
            histogram.add(values[name])
        for reading in readings:
            columns = reading.columns(values[reading.tensor], count)
            moments.setdefault(reading, Moments.empty(*columns.shape[:2])).add(columns)
        count += 1
    if count == 0:
        raise DataError("there are no samples to calibrate on", "give a data set with a training split")
    for moment in moments.values():
        moment.flush()
    return Observed(histograms, moments, count)


def activations(model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Array]) -> Iterator[dict[str, Array]]:
    """The named tensors for each sample in turn, a batch of one.

    Raises:
        DataError: one of them is not finite.
    """
    input_name = model.graph.input[0].name
    names = [name for name in tensors if name != input_name]
    session = _session(model, names)
    for batch in samples:
        for row in range(len(batch)):
            x = batch[row : row + 1]
            # Asked for no outputs, onnxruntime would give all.
            values = dict(zip(names, session.run(names, {input_name: x}) if names else (), strict=True))
            if input_name in tensors:
                values[input_name] = x
            for name, value in values.items():
                _check_finite(name, value)
            yield values


def _check_finite(name: str, value: Array) -> None:
    if not (np.isfinite(value.min()) and np.isfinite(value.max())):
        raise DataError(f"calibration: the activation {name!r} is not finite", "check the samples for NaN or infinity")


def _session(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that also gives the named tensors."""
    outputs = model.graph.output
    present = {o.name for o in outputs}
    extra = [onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in present]
    outputs.extend(extra)  # a copy would double what a large model takes
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena would keep the largest sample's memory
    with tempfile.TemporaryDirectory() as folder:  # from a file: its bytes are gone when the session unpacks them
        path = Path(folder) / "watched.onnx"
        try:
            onnx.save(model, path)
        finally:
            del outputs[len(present) :]
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
