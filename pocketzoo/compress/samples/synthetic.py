"""A data set for who has none: samples made of what a model tells of those that it was trained on.

Images are made for the batch norms of its module, where it has one (``batch_norms.py``); for a graph alone they are
shapes and noise in the range that its input states. Token ids are drawn from its vocabulary, other arrays are random.
What is measured on such samples is how far a compressed model is from its source on them, and not what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.samples.images import Image, black_and_white, is_image
from pocketzoo.compress.samples.leaves import leaves
from pocketzoo.core.arrays import Arrays, own_memory
from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.measured_on import SYNTHETIC
from pocketzoo.zoo.catalog.dataset import Dataset, Groups, Split
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.random_samples import random_samples, sample_of

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

CALIBRATING, JUDGING = 64, 16  # images are costly, and more of them say little more
NORMS = "the model's batch-norm statistics"
SHAPES = "shapes and noise in the range of its input"
TOKENS = "random tokens of its vocabulary"
ARRAYS = "random arrays of the form of its inputs"
RESEMBLING = (NORMS,)  # what is like the samples that a model was trained on, so that weights may be fitted to it

Module = Callable[[], "nn.Module | None"]
Graph = Callable[[], "ModelProto"]


def synthetic_data(
    processor: Processor, samples: int, graph: Graph, module: Module, seed: int = 0, progress: Progress = SILENT
) -> Dataset:
    """Samples that nobody took: at most ``CALIBRATING`` to calibrate, and others to judge and to measure.

    ``graph`` and ``module`` give the model's, or no module where it has none; each is asked where it is needed.
    """
    counts = min(samples, CALIBRATING), JUDGING, JUDGING
    batch, of = _batch(processor, sum(counts), graph, module, seed, progress)
    rows = [sample_of(batch, row, processor.inputs) for row in range(sum(counts))]
    ends = np.cumsum((0, *counts))
    splits = [
        Split([own_memory(row) for row in rows[start:end]], groups=Groups(np.zeros(end - start, np.int64), "synthetic"))
        for start, end in pairwise(ends)
    ]
    train, val, test = splits
    return Dataset(
        name=SYNTHETIC, labels=(), splits={"train": train, "val": val, "test": test}, seed=seed, synthetic=of
    )


def _batch(
    processor: Processor, count: int, graph: Graph, module: Module, seed: int, progress: Progress
) -> tuple[Arrays, str]:
    """A batch of samples, and what they are made of."""
    batch = dict(random_samples(processor, count))
    places = {t.name: place for t in processor.inputs if t.batch == 0 and (place := _channels(batch[t.name]))}
    images = [t for t in processor.inputs if t.name in places]
    if not images:
        ids = [t for t in processor.inputs if batch[t.name].dtype.kind in "iu"]
        drawn = _tokens(processor, ids, batch, graph, seed)
        if drawn or processor.text is not None:
            return {**batch, **drawn}, TOKENS
        return {**batch, **_bytes(processor, batch, seed)}, ARRAYS
    for number, tensor in enumerate(images):
        shape = np.moveaxis(batch[tensor.name][0], places[tensor.name] - 1, 0).shape
        low, high = _ends(processor, tensor, shape[0], graph)
        x = low + leaves(count, shape, seed + number) * (high - low)
        batch[tensor.name] = np.moveaxis(x, 1, places[tensor.name]).astype(tensor.dtype)
    if len(images) == len(processor.inputs) == 1 and places[tensor.name] == 1 and (net := module()) is not None:
        # Here, because a graph alone needs no torch.
        from pocketzoo.compress.samples.batch_norms import batch_norms, resembling

        if batch_norms(net):
            return {tensor.name: resembling(net, batch[tensor.name], low, high, progress=progress)}, NORMS
    return batch, SHAPES


def _channels(x: npt.NDArray[Any]) -> int | None:
    """The axis of the channels of a batch of images, 1 or 3; None where they are no images."""
    if x.ndim != 4 or not (x.dtype.kind == "f" or x.dtype == np.uint8):
        return None
    return next((axis for axis in (1, 3) if is_image(np.moveaxis(x[:1].astype(np.float32), axis, 1))), None)


def _bytes(processor: Processor, batch: Arrays, seed: int) -> Arrays:
    """Arrays of whole numbers of one byte, of all values that these have.

    Raises:
        DataError: the model reads wider ones alone, of which nothing tells how large they are.
    """
    kinds = {tensor.name: np.dtype(tensor.dtype) for tensor in processor.inputs}
    if all(kind.kind in "iu" and kind.itemsize > 1 for kind in kinds.values()):
        raise DataError(
            f"nothing in the graph tells which whole numbers its input {next(iter(kinds))!r} takes, and what is"
            " calibrated on others would be wrong",
            "give --data, such as an .npz file with an array x",
        )
    generator = np.random.default_rng(seed)
    return {
        name: generator.integers(np.iinfo(kind).min, np.iinfo(kind).max, batch[name].shape, kind, endpoint=True)
        for name, kind in kinds.items()
        if kind.kind in "iu" and kind.itemsize == 1
    }


def _ends(processor: Processor, tensor: TensorSpec, channels: int, graph: Graph) -> tuple[Image, Image]:
    """The values (C, 1, 1) of black and white: as the input states them, else as the graph's constants tell."""
    if (stated := black_and_white(processor.image, tensor.name, channels)) is not None:
        return stated
    if tensor.dtype == "uint8":
        return np.zeros((channels, 1, 1), np.float32), np.full((channels, 1, 1), 255, np.float32)
    from pocketzoo.compress.samples.input_values import pixel_range  # which needs onnx

    low, high = (np.full((channels, 1, 1), end, np.float32) for end in pixel_range(graph(), tensor.name))
    return low, high


def _tokens(processor: Processor, inputs: list[TensorSpec], batch: Arrays, graph: Graph, seed: int) -> Arrays:
    """Codes of the inputs of which the graph tells how many there are, where nobody says it."""
    if not inputs or (processor.text is not None and processor.text.vocabulary > 1):
        return {}
    from pocketzoo.compress.samples.input_values import code_count  # which needs onnx

    model, generator = graph(), np.random.default_rng(seed)
    known = {tensor.name: code_count(model, tensor.name) for tensor in inputs}
    most = max((rows for rows in known.values() if rows is not None), default=0)
    return {
        tensor.name: generator.integers(0, rows, batch[tensor.name].shape).astype(batch[tensor.name].dtype)
        for tensor in inputs
        if (rows := known[tensor.name]) is not None and rows == most  # not types of tokens, of which most are 0
    }
