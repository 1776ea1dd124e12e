"""A data set for who has none: samples made of what a model tells of those that it was trained on.

Images are made for the batch norms of its module, where it has one (``batch_norms.py``); for a graph alone they are
shapes and noise in the range that its input states. Token ids are drawn from its vocabulary, other arrays are random.
What is measured on such samples is how far a compressed model is from its source on them, and not what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.samples.images import is_image
from pocketzoo.compress.samples.leaves import leaves
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.progress import SILENT, Progress
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
        Split([_copy(row) for row in rows[start:end]], groups=Groups(np.zeros(end - start, np.int64), "synthetic"))
        for start, end in pairwise(ends)
    ]
    train, val, test = splits
    return Dataset(
        name="synthetic samples", labels=(), splits={"train": train, "val": val, "test": test}, seed=seed, synthetic=of
    )


def _batch(
    processor: Processor, count: int, graph: Graph, module: Module, seed: int, progress: Progress
) -> tuple[Arrays, str]:
    """A batch of samples, and what they are made of."""
    batch = dict(random_samples(processor, count))
    images = [t for t in processor.inputs if t.batch == 0 and is_image(batch[t.name])]
    if not images:
        ids = [t for t in processor.inputs if batch[t.name].dtype.kind in "iu"]
        drawn = _tokens(processor, ids, batch, graph, seed)
        return {**batch, **drawn}, TOKENS if drawn or processor.text is not None else ARRAYS
    for number, tensor in enumerate(images):
        low, high = _ends(processor, tensor, batch[tensor.name].shape[1], graph)
        x = leaves(count, batch[tensor.name].shape[1:], seed + number)
        batch[tensor.name] = (low + x * (high - low)).astype(tensor.dtype)
    if len(images) == len(processor.inputs) == 1 and (net := module()) is not None:
        # Here, because a graph alone needs no torch.
        from pocketzoo.compress.samples.batch_norms import batch_norms, resembling

        if batch_norms(net):
            return {tensor.name: resembling(net, batch[tensor.name], low, high, progress=progress)}, NORMS
    return batch, SHAPES


def _ends(
    processor: Processor, tensor: TensorSpec, channels: int, graph: Graph
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The values (C, 1, 1) of black and white: as the input states them, else as the graph's constants tell."""
    image = processor.image
    if image is not None and image.name == tensor.name and len(image.mean) == channels:
        mean, std = (np.reshape(np.array(each, np.float32), (-1, 1, 1)) for each in (image.mean, image.std))
        return (image.value_range[0] - mean) / std, (image.value_range[1] - mean) / std
    from pocketzoo.compress.samples.input_values import pixel_range  # which needs onnx

    low, high = (np.full((channels, 1, 1), end, np.float32) for end in pixel_range(graph(), tensor.name))
    return low, high


def _tokens(processor: Processor, inputs: list[TensorSpec], batch: Arrays, graph: Graph, seed: int) -> Arrays:
    """Ids of the inputs that pick from a table of the graph, where nobody says how many there are."""
    if not inputs or (processor.text is not None and processor.text.vocabulary > 1):
        return {}
    from pocketzoo.compress.samples.input_values import table_rows  # which needs onnx

    model, generator = graph(), np.random.default_rng(seed)
    known = {tensor.name: table_rows(model, tensor.name) for tensor in inputs}
    most = max((rows for rows in known.values() if rows is not None), default=0)
    return {
        tensor.name: generator.integers(0, rows, batch[tensor.name].shape).astype(batch[tensor.name].dtype)
        for tensor in inputs
        if (rows := known[tensor.name]) is not None and rows == most  # not types of tokens, of which most are 0
    }


def _copy(sample: Arrays) -> Arrays:
    """Or its whole batch would stay in memory."""
    return {name: x.copy() for name, x in sample.items()}
