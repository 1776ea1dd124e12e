"""The confusion matrix of a bundle on labeled data, and samples it misclassifies."""

from __future__ import annotations

import heapq
import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import first
from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import predicted, softmax
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches, Skipped, aligned
from pocketzoo.zoo.data.processors.image_preprocessing import read_image
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.tasks.classification_metrics import ClassCounts

MOST = 24  # wrong answers that are kept: the surest
SIDE = 96  # pixels of a thumbnail's longer side
LETTERS = 240  # of a text


@renamed(picture="image")
@dataclass(frozen=True, slots=True)
class Mistake:
    """A sample that was taken for another class."""

    label: str
    taken_for: str
    certainty: float  # the probability the wrong class was given, 0-1
    text: str = ""  # of a text, or the file's name
    image: bytes = b""  # JPEG

    @property
    def source(self) -> str:
        """The image as a URL that holds it."""
        return f"data:image/jpeg;base64,{b64encode(self.image).decode()}" if self.image else ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one bundle, on the test split of one data set."""

    data: str
    labels: tuple[str, ...]
    confusion: npt.NDArray[np.int64]  # (C, C), row by true class
    mistakes: tuple[Mistake, ...]  # surest first

    @property
    def wrong(self) -> int:
        """How many answers were wrong, kept or not."""
        return int(self.confusion.sum() - self.confusion.diagonal().sum())


def measure_confusion(
    bundle: Bundle,
    data: Dataset,
    *,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Answers:
    """Run the graph for the CPU over the test split.

    Raises:
        DataError: the bundle has no classes, the data has none of them, or a sample cannot be read.
    """
    labels = bundle.manifest.labels
    known = aligned(data, labels).split("test")
    if bundle.manifest.gives != "logits" or not labels or known.targets is None:
        raise DataError(
            f"{data.name} and {bundle.manifest.name} have no classes in common", "leave out --data, or give other data"
        )
    skipped = Skipped() if skip_bad else None
    batches = Batches(known, processor_of(bundle, registry), skipped=skipped)
    counts, surest = ClassCounts(labels), list[tuple[float, int, int, int]]()
    with OnnxRunner(bundle.graph("cpu")) as runner:
        for row, logits, target in progress.track(
            _answered(batches, runner), "finding misclassified samples", len(known)
        ):
            counts.add(logits[None], np.array([target]))
            (taken,) = map(int, predicted(logits[None]))
            if taken != target:
                mistake = (float(softmax(logits)[taken]), -row, int(target), taken)
                (heapq.heappush if len(surest) < MOST else heapq.heappushpop)(surest, mistake)
    mistakes = tuple(
        Mistake(labels[target], labels[taken], certainty, *_shown(known.samples[-row]))
        for certainty, row, target, taken in sorted(surest, reverse=True)
    )
    return Answers(data.name, labels, counts.confusion, mistakes)


def _answered(batches: Batches, runner: OnnxRunner) -> Iterator[tuple[int, npt.NDArray[np.float32], int]]:
    """Every sample that can be read: its row, its logits, its class."""
    targets = batches.split.targets
    assert targets is not None
    rows = list(range(batches.samples))
    bad = batches.skipped
    for start in range(0, len(rows), batches.size):
        part = rows[start : start + batches.size]
        for x, _ in batches.of([part]):
            if bad is not None and bad.names:
                part = [i for i in part if str(batches.split.samples[i]) not in bad.names]
            for row, logits in zip(part, first(runner.infer(x)), strict=True):
                yield row, logits, int(targets[row])


def _shown(sample: Any) -> tuple[str, bytes]:
    """A sample as a person sees it: a text, and a small image."""
    if isinstance(sample, str):
        return sample if len(sample) <= LETTERS else f"{sample[:LETTERS]}\u2026", b""
    name = f"{sample.parent.name}/{sample.name}" if isinstance(sample, Path) else ""
    if not isinstance(sample, Path) and (sample.dtype != np.uint8 or sample.ndim not in (2, 3)):
        return name, b""
    image = read_image(sample, 3)
    scale = SIDE / max(image.size)
    resampling = require("PIL.Image", extra="data").Resampling
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, resampling.NEAREST if scale > 2 else resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return name, out.getvalue()
