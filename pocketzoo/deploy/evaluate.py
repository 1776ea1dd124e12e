"""Score a bundle on labelled data, with the graph that will run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.errors import DataError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.data import Batches, Dataset, Skipped, aligned, load_data
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.runner import OnnxRunner


def evaluate(
    model: str | Path,
    *,
    data: str | Path | Dataset,
    target: str = "cpu",
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Accuracy on the test split, in all and for each class.

    Raises:
        UnknownNameError: no such model, data set or target.
        DataError: the data cannot be read, has no classes, or classes the model does not know.
    """
    registry = registry or default_registry()
    registry.get("target", target)
    bundle = open_model(model, registry=registry, progress=progress)
    labels = bundle.manifest.labels
    dataset = data if isinstance(data, Dataset) else load_data(data, seed=seed, registry=registry)
    known = aligned(dataset, labels)
    skipped = Skipped()
    batches = Batches(
        known.split("test"),
        bundle.manifest.input,
        skipped=skipped if skip_bad else None,
        files=bundle.travelled(),
    )
    if batches.split.targets is None:
        raise DataError(
            f"{dataset.name} has none of the model's classes ({', '.join(labels[:5])}, ...)",
            "name the class folders as the model's labels; see pocketzoo info",
        )
    hits, totals = np.zeros(len(labels), int), np.zeros(len(labels), int)
    with OnnxRunner(bundle.graph(target)) as runner:
        for x, y in progress.track(batches, "scoring", len(batches)):
            assert y is not None
            right = runner.logits(x).argmax(-1) == y
            np.add.at(hits, y[right], 1)
            np.add.at(totals, y, 1)
    if not totals.any():
        raise DataError(f"the test split of {dataset.name} is empty", "give each class at least five samples")
    return {
        "bundle": bundle.manifest.name,
        "graph": bundle.graph(target).name,
        "data": dataset.name,
        "split": "test",
        "samples": int(totals.sum()),
        "skipped": len(skipped.names),
        "accuracy": float(hits.sum() / max(totals.sum(), 1)),
        "classes": {labels[i]: float(hits[i] / totals[i]) for i in np.flatnonzero(totals)},
    }
