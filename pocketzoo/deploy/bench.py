"""Measure bundles side by side in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pocketzoo.errors import DataError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle, updating
from pocketzoo.zoo.data import Batches, Dataset, Skipped, Split, aligned
from pocketzoo.zoo.measure import BATCHES, Candidate, Measurement, candidates, measure
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry
from pocketzoo.zoo.sources import load_data
from pocketzoo.zoo.specs import Input, TextSpec
from pocketzoo.zoo.typed import to_plain


def bench(
    models: Sequence[str | Path],
    *,
    data: str | Path | Dataset | None = None,
    batch_sizes: Sequence[int] = BATCHES,
    seconds: float = 0.5,
    threads: int = 1,
    save: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Measurement]:
    """Measure every graph of the bundles; the first bundle's float graph is the reference for agreement and SQNR.

    Without ``data`` the samples are random, so there is no accuracy, and agreement says little. With ``save`` the rows
    go into the manifest of every bundle that is no registered model.

    Raises:
        DataError: bundles of different input shapes or classes, or data that does not fit them.
    """
    if not models:
        raise DataError("there is nothing to measure", "name one or more bundles")
    bundles = [open_model(m, registry=registry, progress=progress) for m in models]
    first = bundles[0].manifest
    for other in (b.manifest for b in bundles[1:]):
        shapes = (other.input.shape, other.model.outputs, other.gives)
        if shapes != (first.input.shape, first.model.outputs, first.gives):
            raise DataError(
                f"{other.name} and {first.name} do not read or give the same shapes", "measure them in two runs"
            )
    if data is None:
        batches = _random(first.input)
    else:
        skipped = Skipped() if skip_bad else None
        dataset = (
            data
            if isinstance(data, Dataset)
            else load_data(data, seed=seed, numeric=first.gives == "values", skipped=skipped, registry=registry)
        )
        split = aligned(dataset, first.labels).split("test")
        batches = Batches(split, first.input, skipped=skipped, files=bundles[0].travelled())
    rows = measure(
        _distinct(bundles),
        batches,
        batch_sizes=batch_sizes,
        seconds=seconds,
        threads=threads,
        progress=progress,
    )
    if save:
        for bundle, model in zip(bundles, models, strict=True):
            if Path(model).exists():
                with updating(bundle) as draft:
                    draft.manifest = replace(bundle.manifest, measurements=tuple(to_plain(row) for row in rows))
    return rows


def _distinct(bundles: Sequence[Bundle]) -> list[Candidate]:
    """Every graph of the bundles once: a step that only quantises leaves the float graph as it was."""
    found: dict[str, Candidate] = {}
    for bundle in bundles:
        for candidate in candidates(bundle):
            found.setdefault(bundle.manifest.files[candidate.graph.name].sha256, candidate)
    return list(found.values())


def _random(spec: Input) -> Batches:
    generator = np.random.default_rng(0)
    if isinstance(spec, TextSpec):
        ids = generator.integers(0, spec.vocabulary, (64, min(64, spec.max_length)))
        return Batches(Split(np.where(ids == spec.pad, (spec.pad + 1) % spec.vocabulary, ids)), spec)
    return Batches(Split(generator.normal(size=(64, *spec.size)).astype(np.float32)), spec)
