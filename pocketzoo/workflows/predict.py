"""The ``predict`` function: classes or values for images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.deploy.device.runtime import Runtime, load_runtime
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.image_preprocessing import NAMED, UNREADABLE
from pocketzoo.zoo.models.resolver import Resolver


@dataclass(frozen=True, slots=True)
class Prediction:
    """The top classes of one sample with their probabilities (softmax), best first; or the values of a regression."""

    file: str
    top: tuple[tuple[str, float], ...]
    values: tuple[float, ...] = ()


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
    """Predict classes or values for images or texts, one by one, with a bundle or registered model.

    For a model that reads text, ``files`` are text files or the texts themselves. ``target`` and ``provider`` are
    those of ``load_runtime``.

    Raises:
        UnknownNameError: no such model or target.
        BundleError: the bundle is damaged: a file has not the digest that its manifest gives.
        DataError: a file is missing or is not an image, or the model outputs neither classes nor numbers for it.
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
        if runtime.bundle.manifest.gives == "values":
            return Prediction(str(file), (), tuple(map(float, runtime.predict([sample])[0])))
        return Prediction(str(file), runtime.classify([sample], top=top)[0])
    except DataError as error:
        if error.hint != UNREADABLE:
            raise
        raise DataError(error.message, f"give {NAMED} files") from error  # nothing to skip it in
