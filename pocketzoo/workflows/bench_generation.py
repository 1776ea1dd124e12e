"""Bench of generation graphs side by side: the same texts, token by token, timed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketzoo.core.arrays import first
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.text_generator import TEXTS, GraphWriter, alike, milliseconds_a_token, with_room


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationMeasurement:
    """One row: the generation graphs of a bundle for one target. Fractions are against the first row."""

    bundle: str
    target: str  # "" for the float graphs
    precision: str
    files: tuple[str, ...]
    bytes: int  # of all of them
    texts: int
    tokens: int  # that the first row's graphs wrote after them
    agreement: float  # fraction of these tokens that it would have written there too
    same_texts: float  # fraction of the texts that it writes the same to the end
    ms_a_token: float  # the median of one token after the first text


def bench_generation(
    models: Sequence[str | Path],
    *,
    data: str | Path | Dataset | None = None,
    seconds: float = 0.5,
    threads: int = 1,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[GenerationMeasurement]:
    """Compare generation graphs: greedy decoding after texts of the test split, led by the first bundle's float graphs.

    Without ``data`` the texts are random. Empty where no bundle has generation graphs: ``generate`` and ``compress``
    make them.

    Raises:
        UnknownNameError: no such model or data set.
        DataError: the data are not texts.
    """
    resolver = Resolver.of(registry)
    bundles = [open_model(model, registry=resolver, progress=progress) for model in models]
    rows: list[tuple[Bundle, str, dict[str, Path]]] = []
    known: set[tuple[str, ...]] = set()
    for bundle in bundles:
        files = bundle.manifest.files
        for target in ("", *sorted({e.target for e in files.values() if e.graph and e.target})):
            parts = bundle.parts(target)
            digests = tuple(sorted(files[path.name].sha256 for path in parts.values()))
            if parts and digests not in known:  # a step that only quantizes leaves the float graphs as they were
                known.add(digests)
                rows.append((bundle, target, parts))
    if not rows:
        return []
    settings = rows[0][0].manifest.generation
    assert settings is not None
    processor = processor_of(bundles[0], resolver.registry)
    if data is None:
        split = Split(first(random_samples(processor, TEXTS)))
    else:
        skipped = Skipped() if skip_bad else None
        dataset = load_data(
            data, seed=seed, skipped=skipped, reads=bundles[0].manifest.processor, registry=resolver.registry
        )
        split = dataset.split("test")
    batches = Batches(split, processor, size=1, limit=TEXTS)
    texts: Any = (first(x) for x, _ in batches)
    few = list(with_room(texts, settings.positions))
    with ExitStack() as stack:
        writers = [stack.enter_context(GraphWriter(p, settings.start, threads=threads)) for _, _, p in rows]
        likenesses = [alike(writers[0], w, few, settings.end) for w in progress.track(writers, "writing", len(writers))]
        times = milliseconds_a_token(writers, few[0], seconds)
    return [
        GenerationMeasurement(
            bundle=bundle.manifest.name,
            target=target,
            precision=bundle.manifest.files[next(iter(parts.values())).name].precision,
            files=tuple(path.name for path in parts.values()),
            bytes=sum(path.stat().st_size for path in parts.values()),
            texts=like.texts,
            tokens=like.tokens,
            agreement=like.agreement,
            same_texts=like.same_texts,
            ms_a_token=ms,
        )
        for (bundle, target, parts), like, ms in zip(rows, likenesses, times, strict=True)
    ]
