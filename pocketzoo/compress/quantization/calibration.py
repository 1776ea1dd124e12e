"""One pass over the calibration samples: histograms of activations and second moments of layer inputs."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pocketzoo.compress.quantization.layer_inputs import ColumnMoments, Im2col
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.core.arrays import Array, Arrays, first, named, rows
from pocketzoo.core.errors import DataError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.malloc_trim import large_mapped
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.index import GraphIndex, graph_inputs
from pocketzoo.zoo.graphs.signature import signature_of

if TYPE_CHECKING:
    from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession

FEW, MANY = 128, 512  # samples that second moments are taken from at the least, and at most;
ENOUGH = 64  # in between, until a layer has seen so many columns for each of its inputs
SMALL = 4096  # values of a tensor up to which samples are counted together,
AT_ONCE = 2**29  # bytes of one sample's tensors that a pass gives
WAITING = 2**25  # while they have no more bytes than these


@dataclass
class Observed:
    """What one pass over the samples saw."""

    histograms: dict[str, Histogram]
    moments: dict[Im2col, ColumnMoments]
    samples: int
    ends: dict[str, tuple[Array, Array]]  # least and largest of each sample, by the tensors that have a histogram


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Arrays], layer_inputs: Collection[Im2col] = ()
) -> Observed:
    """Histograms of the named tensors and second moments of what layers read, in one pass.

    Memory is that of one sample and of the moments. Where the tensors of one sample take more than ``AT_ONCE`` bytes,
    they are looked at in parts, each with a pass of its own.

    Raises:
        DataError: there are no samples, or an activation is not finite.
    """
    counters = {name: _Counter(name) for name in tensors}
    moments: dict[Im2col, ColumnMoments] = {}
    by_tensor: dict[str, list[Im2col]] = {}
    for im2col in layer_inputs:
        by_tensor.setdefault(im2col.tensor, []).append(im2col)
    watched = list(dict.fromkeys([*tensors, *sorted(by_tensor)]))
    feeds = one_by_one(model, samples)
    first_feed = next(feeds, None)
    if first_feed is None:
        raise DataError("there are no samples to calibrate on", "give a data set with a training split")
    feeds = chain([first_feed], feeds)
    with large_mapped():
        for part in parts(model, watched, first_feed):
            count = waiting = 0
            for values in _values(model, part, feeds, finite=False):
                for name in part:  # each value goes before the next sample comes
                    value = values.pop(name)
                    if name in counters:
                        waiting += counters[name].add(value)
                    else:
                        _check_finite(name, *_ends(value))
                    for im2col in by_tensor.get(name, ()) if value.size else ():
                        if im2col in moments and not _wants(moments[im2col], count):
                            continue
                        columns = im2col.columns(value, count)
                        if im2col not in moments:
                            moments[im2col] = ColumnMoments.empty(*columns.shape[:2])
                        moments[im2col].add(columns)
                    del value
                count += 1
                if waiting > WAITING:
                    _flush(counters, part)
                    waiting = 0
            _flush(counters, part)
            feeds = one_by_one(model, samples)
    for moment in moments.values():
        moment.flush()
    ends = {
        name: (np.frombuffer(c.lows, np.float32), np.frombuffer(c.highs, np.float32)) for name, c in counters.items()
    }
    return Observed({name: counter.histogram for name, counter in counters.items()}, moments, count, ends)


class _Counter:
    """The histogram of one tensor. What is small waits until there is more of it: calls cost more than counting."""

    def __init__(self, name: str) -> None:
        self.name, self.histogram = name, Histogram()
        self.lows, self.highs = array("f"), array("f")  # of each sample so far
        self._waiting: list[Array] = []
        self._ends: list[tuple[np.generic, np.generic]] = []  # the least and the largest of each

    def add(self, value: Array) -> int:
        """Count a sample, now or at the next ``flush``; returns the bytes that wait for it.

        Raises:
            DataError: a value is not finite.
        """
        ends = _ends(value)
        _check_finite(self.name, *ends)
        self.lows.append(float(ends[0]))
        self.highs.append(float(ends[1]))
        if self._waiting and (value.size, value.dtype) != (self._waiting[0].size, self._waiting[0].dtype):
            self.flush()
        self._waiting.append(value.reshape(-1))
        self._ends.append(ends)
        if value.size > SMALL:
            self.flush()
        return value.nbytes if self._waiting else 0

    def flush(self) -> None:
        """Count what waits."""
        if self._waiting:
            rows = np.stack(self._waiting) if len(self._waiting) > 1 else self._waiting[0][None]
            lows, highs = np.array(self._ends).T
            self._waiting.clear()
            self._ends.clear()
            self.histogram.add_samples(rows, lows, highs)


def _flush(counters: Mapping[str, _Counter], names: Iterable[str]) -> None:
    for name in names:
        if name in counters:
            counters[name].flush()


def _wants(moments: ColumnMoments, samples: int) -> bool:
    """Whether one more sample would make a difference: ranges need all of them, second moments do not."""
    return samples < FEW or (samples < MANY and moments.count + moments.held < ENOUGH * moments.second.shape[1])


def activations(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Iterable[Arrays],
    *,
    as_written: bool = False,
    finite: bool = True,
) -> Iterator[dict[str, Array]]:
    """The named tensors for each sample in turn, a batch of one.

    ``as_written``: of the graph as it is, without onnxruntime's rewriting; and values may be infinite, as in masks.

    Raises:
        DataError: one of them is not finite.
    """
    finite = finite and not as_written
    yield from _values(model, tensors, one_by_one(model, samples), as_written=as_written, finite=finite)


def activations_in_parts(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Iterable[Arrays], *, as_written: bool = False
) -> Iterator[dict[str, Array]]:
    """As ``activations``, but some of the tensors for all samples, then others, where not all fit at once."""
    feeds = one_by_one(model, samples)
    if (first_feed := next(feeds, None)) is None:
        return
    feeds = chain([first_feed], feeds)
    for part in parts(model, tensors, first_feed):
        yield from _values(model, part, feeds, as_written=as_written, finite=not as_written)
        feeds = one_by_one(model, samples)


def values_of(model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Arrays]) -> Iterator[dict[str, Array]]:
    """The named tensors, of any type and value, for what a graph reads at each call."""
    return _values(model, tensors, feeds, finite=False)


def _values(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterable[Arrays],
    *,
    as_written: bool = False,
    finite: bool,
) -> Iterator[dict[str, Array]]:
    """``activations`` for what the graph reads at each call. ``finite``: see that all of them are."""
    inputs = {value.name for value in graph_inputs(model)}
    names = [name for name in tensors if name not in inputs]
    session = _session(model, names, as_written=as_written)
    for feed in feeds:
        # Asked for no outputs, onnxruntime would give all.
        values = dict(zip(names, session.run(names, dict(feed)) if names else (), strict=True))
        values |= {name: feed[name] for name in tensors if name in inputs}
        for name, value in values.items() if finite else ():
            _check_finite(name, *_ends(value))
        yield values


def parts(model: onnx.ModelProto, tensors: Sequence[str], feed: Arrays) -> list[list[str]]:
    """The tensors in as few parts as take no more than ``AT_ONCE`` bytes each, for what the graph reads in a call.

    Those whose size nobody knows take none.
    """
    sizes = GraphIndex(model).sizes({name: np.shape(value) for name, value in feed.items()})
    divided: list[list[str]] = [[]]
    room = AT_ONCE
    for name in tensors:
        size = 4 * sizes.get(name, 0)
        if size > max(room, 0) and divided[-1]:
            divided.append([])
            room = AT_ONCE
        divided[-1].append(name)
        room -= size
    return divided


def one_by_one(model: onnx.ModelProto, samples: Iterable[Arrays]) -> Iterator[Arrays]:
    """Samples in batches of one, by the names of the graph's inputs; of a graph without a batch axis each as it is.

    Raises:
        DataError: they lack an input of the graph, or have one more.
    """
    axes = signature_of(model).batch_axes
    inputs = list(axes)
    for batch in samples:
        arrays = named(batch)
        if len(inputs) == len(arrays) == 1:  # whatever it is called
            arrays = {inputs[0]: first(arrays)}
        if set(arrays) != set(inputs):
            raise DataError(
                f"calibration: the samples have {', '.join(arrays)}, the graph reads {', '.join(inputs)}",
                "give an array for each input",
            )
        counted = next((name for name, axis in axes.items() if axis is not None), None)
        if counted is None:
            yield arrays
            continue
        count = arrays[counted].shape[axes[counted] or 0]
        yield from (rows(arrays, slice(row, row + 1), axes) for row in range(count))


def _ends(value: Array) -> tuple[np.generic, np.generic]:
    """The least and the largest; zero of what has no values."""
    return (value.min(), value.max()) if value.size else (value.dtype.type(0), value.dtype.type(0))


def _check_finite(name: str, low: Any, high: Any) -> None:
    """Raises:
    DataError: the least or the largest value is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"calibration: the activation {name!r} is not finite",
            "check the samples, and the weights of the model, for NaN or infinity",
        )


def _session(model: onnx.ModelProto, tensors: Sequence[str], *, as_written: bool) -> BoundedSession:
    """A session that also gives the named tensors."""
    outputs = model.graph.output
    present = {o.name for o in outputs}
    extra = [onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in present]
    outputs.extend(extra)  # a copy would double what a large model takes
    with scratch_folder() as folder:  # from a file: its bytes are gone when the session unpacks them
        path = folder / "watched.onnx"
        try:
            save_graph(model, path)
        finally:
            del outputs[len(present) :]
        # The arena would keep the largest sample's memory.
        return open_session(path, optimization="none" if as_written else "all", arena=False)
