"""Evaluate a bundle on labeled data, with the graph that will run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Array, first
from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import log_likelihoods, perplexity, r2
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import METRICS, WINDOW, GenerationSpec
from pocketzoo.zoo.data.batches import Batches, Skipped, aligned
from pocketzoo.zoo.data.findings import too_long
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.token_windows import IGNORED, as_windows
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.classification_metrics import ClassCounts


def evaluate(
    model: str | Path,
    *,
    data: str | Path | Dataset,
    target: str = "cpu",
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Evaluate a model on the test split: classification metrics (``ClassCounts.scores``) or R2 and errors.

    A language model gets its perplexity, on windows as long as those it was trained on, else of ``WINDOW`` tokens.

    Raises:
        UnknownNameError: no such model, data set or target.
        DataError: the data cannot be read, has no classes, or classes the model does not know; or the model outputs
            something that no data set here has targets for.
    """
    resolver = Resolver.of(registry)
    resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    labels, gives = bundle.manifest.labels, bundle.manifest.gives
    if gives not in METRICS:
        raise DataError(
            f"{bundle.manifest.name} outputs {gives}, which eval cannot score", "compare it: pocketzoo bench"
        )
    numeric = gives == "values"
    skipped = Skipped()
    dataset = load_data(
        data,
        seed=seed,
        numeric=numeric,
        skipped=skipped if skip_bad else None,
        reads=bundle.manifest.processor,
        registry=resolver.registry,
    )
    processor = processor_of(bundle, resolver.registry)
    if gives == "next-token-logits":
        ends = bundle.manifest.generation
        if ends is None:  # it has not written yet, so only its backbone knows
            ends = resolver.with_sources(bundle).spec("backbone", bundle.manifest.model.backbone).generation
        return _of_next_tokens(bundle, processor, dataset, ends, target, progress)
    known = aligned(dataset, labels)
    batches = Batches(
        known.split("test"),
        processor,
        skipped=skipped if skip_bad else None,
    )
    if cut := too_long([batches.split], processor):
        progress.say(f"{cut} samples are longer than the model accepts and are truncated")
    facts = {"bundle": bundle.manifest.name, "graph": bundle.graph(target).name, "data": dataset.name, "split": "test"}
    if numeric:
        if batches.split.targets is None or not known.numeric:
            raise DataError(f"{dataset.name} has no regression targets", "give an .npz with y, or a .csv")
        return {**facts, **_of_numbers(batches, bundle.graph(target), progress), "skipped": len(skipped.names)}
    if batches.split.targets is None:
        raise DataError(
            f"{dataset.name} has none of the model's classes ({', '.join(labels[:5])}, ...)",
            "name the class folders as the model's labels; see pocketzoo info",
        )
    counts = ClassCounts(labels)
    with OnnxRunner(bundle.graph(target)) as runner:
        for x, y in progress.track(batches, "scoring", len(batches)):
            assert y is not None
            counts.add(first(runner.infer(x)), y)
    if not counts.samples:
        raise DataError(f"the test split of {dataset.name} is empty", "give each class at least five samples")
    return {**facts, "skipped": len(skipped.names), **counts.scores()}


def _of_numbers(batches: Batches, graph: Path, progress: Progress) -> dict[str, Any]:
    out: list[Array] = []
    targets: list[Targets] = []
    with OnnxRunner(graph) as runner:
        for x, y in progress.track(batches, "scoring", len(batches)):
            assert y is not None
            out.append(first(runner.infer(x)))
            targets.append(y)
    if not out:
        raise DataError("the test split is empty", "give at least five samples")
    outputs, right = np.concatenate(out), np.concatenate(targets)
    if outputs.shape != right.shape:
        raise DataError(
            f"the model outputs {outputs.shape[1]} numbers per sample, the data has {right.shape[1]}", "give other data"
        )
    return {
        "samples": len(outputs),
        "r2": r2(outputs, right),
        "mean absolute error": float(np.abs(outputs - right).mean()),
        "root mean squared error": float(np.sqrt(np.square(outputs - right).mean(0)).mean()),
    }


def _of_next_tokens(
    bundle: Bundle, processor: Processor, texts: Dataset, ends: GenerationSpec | None, target: str, progress: Progress
) -> dict[str, Any]:
    manifest, graph = bundle.manifest, bundle.graph(target)
    if processor.text is None:
        raise DataError(f"{manifest.name} does not read text", "compare it: pocketzoo bench")
    training: Any = manifest.provenance.get("training", {})
    size = training.get("window", WINDOW)
    data = as_windows(texts, processor.text, ends, bundle.source_files(), size)
    batches = Batches(data.split("test"), processor, size=8)
    total, tokens = 0.0, 0
    with OnnxRunner(graph) as runner:
        for x, y in progress.track(batches, "scoring", len(batches)):
            assert y is not None
            known = y != IGNORED
            logs = log_likelihoods(first(runner.infer(x))[known], y[known])
            total += float(logs.sum())
            tokens += len(logs)
    return {
        "bundle": manifest.name,
        "graph": graph.name,
        "data": texts.name,
        "split": "test",
        "samples": len(batches.split),
        "skipped": 0,
        "tokens": tokens,
        "log likelihood": total / tokens,
        "perplexity": perplexity(total / tokens),
    }
