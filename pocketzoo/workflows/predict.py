"""The ``predict`` function: what a model answers to images and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.deploy.device.runtime import Runtime, load_runtime
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.image_preprocessing import NAMED, UNREADABLE
from pocketzoo.zoo.models.resolver import Resolver


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answers to one sample: ``answer`` is plain data, by the model's task.

    Where that has classes they are in ``top`` too, with their probabilities, best first; its numbers are in ``values``.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    values: tuple[float, ...] = ()
    answer: Mapping[str, Any] = field(default_factory=dict)


@keywords_renamed(providers="provider")
def predict(
    model: str | Path,
    files: Sequence[str | Path],
    *,
    top: int = 5,
    target: str | None = None,
    provider: str | Sequence[str] | None = None,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Prediction]:
    """Predict what a bundle or registered model answers to images or texts, one by one: classes, values, by its task.

    For a model that reads text, ``files`` are text files or the texts themselves. ``target`` and ``provider`` are
    those of ``load_runtime``.

    Raises:
        UnknownNameError: no such model or target.
        BundleError: the bundle is damaged: a file has not the digest that its manifest gives.
        DataError: a file is missing or is not an image, or nobody said what the model's outputs mean.
        MissingPluginError: no plugin here declares the model's task.
        MissingDependencyError: onnxruntime, or the provider, is not installed.
    """
    if not files:
        raise DataError("no files are given", "name one or more images")
    with load_runtime(model, target=target, provider=provider, registry=registry, progress=progress) as runtime:
        return [_predict(runtime, file, top, progress) for file in progress.track(files, "predicting", len(files))]


def _predict(runtime: Runtime, file: str | Path, top: int, progress: Progress) -> Prediction:
    processor = runtime.processor
    sample = processor.sample(file)
    if processor.truncated([sample]):
        than = f"{processor.lengths[1]} tokens" if processor.lengths else "the model reads"
        progress.say(f"{str(file)[:60]!r} has more than {than} and is truncated")
    try:
        row = runtime.answer_rows([sample], top=top)[0]
        best = tuple((each["label"], each.get("probability", 1.0)) for each in row.get("top", ()))
        return Prediction(str(file), best, tuple(row.get("values", ())), row)
    except DataError as error:
        if error.hint != UNREADABLE:
            raise
        raise DataError(error.message, f"give {NAMED} files") from error  # nothing to skip it in
