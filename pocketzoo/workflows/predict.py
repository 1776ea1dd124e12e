"""The ``predict`` function: what a model answers to images, texts, rows of tables and whatever else it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.deploy.device.runtime import Runtime, load_runtime
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.data.processors.image_preprocessing import NAMED, UNREADABLE
from pocketzoo.zoo.data.processors.open_processor import suffixes
from pocketzoo.zoo.data.sample_files import GivenSample, batches, parsed_row, samples_of
from pocketzoo.zoo.models.resolver import Resolver

AT_ONCE = 64  # rows of a file that are predicted together


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answers to one sample: ``answer`` is plain data, by the model's task.

    Where that has classes they are in ``top`` too, with their probabilities, best first; its numbers are in ``values``.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    values: tuple[float, ...] = ()
    answer: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""  # which of the file's samples: "line 2" of a table, "row 1" of arrays; "": the file is one


@survives_exit
@keywords_renamed(providers="provider")
def predict(
    model: str | Path,
    files: Sequence[str | Path] = (),
    *,
    rows: Sequence[Any] = (),
    top: int = 5,
    target: str | None = None,
    provider: str | Sequence[str] | None = None,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Prediction]:
    """Predict what a bundle or registered model answers to samples: classes, values, by its task.

    Of a model without a task it is what ``Runtime.output_rows`` says of its outputs.

    ``files`` hold one sample each, such as images, or several: rows of a table (.csv, .tsv, .jsonl, .parquet), with or
    without labels, whose columns are read by their names; rows of the arrays of an .npz; .json. For a model that reads
    text they are text files or the texts themselves. ``rows`` are samples as the model's processor reads them, such as
    mappings of column to number, or texts like "height=1.8,mass=70" or JSON. ``target`` and ``provider`` are those of
    ``load_runtime``.

    Raises:
        UnknownNameError: no such model or target.
        BundleError: the bundle is damaged: a file has not the digest that its manifest gives.
        DataError: a file is missing or is not what the model reads, or its outputs are not what its decoder reads.
        MissingPluginError: no plugin here declares the model's task.
        MissingDependencyError: onnxruntime, or the provider, is not installed.
    """
    if not files and not len(rows):
        raise DataError("no files are given", "name one or more images or tables, or give --row")
    with load_runtime(model, target=target, provider=provider, registry=registry, progress=progress) as runtime:
        given = [sample for file in files for sample in _samples(runtime, file, progress)]
        for number, row in enumerate(rows, start=1):
            sample = parsed_row(row, runtime.processor) if isinstance(row, str) else row
            given.append(GivenSample(row if isinstance(row, str) else f"row {number}", "", sample))
        predictions: list[Prediction] = []
        for batch in progress.track(list(batches(given, AT_ONCE)), "predicting"):
            predictions += _predict_together(runtime, batch, top, progress)
        return predictions


def _samples(runtime: Runtime, file: str | Path, progress: Progress) -> list[GivenSample]:
    registry = runtime.registry or default_registry()
    manifest = runtime.bundle.manifest
    return samples_of(file, runtime.processor, suffixes(registry, manifest.processor), progress, manifest.data_columns)


def _predict_together(runtime: Runtime, batch: Sequence[GivenSample], top: int, progress: Progress) -> list[Prediction]:
    """Several samples in one batch; where that fails one by one, so that the error names the one that is wrong."""
    if len(batch) > 1:
        with suppress(DataError):
            return _predict(runtime, batch, top, progress)
    return [each for sample in batch for each in _predict(runtime, [sample], top, progress)]


def _predict(runtime: Runtime, batch: Sequence[GivenSample], top: int, progress: Progress) -> list[Prediction]:
    processor = runtime.processor
    samples = [given.sample for given in batch]
    for given in batch if processor.truncated(samples) else ():
        if processor.truncated([given.sample]):
            than = f"{processor.lengths[1]} tokens" if processor.lengths else "the model reads"
            progress.say(f"{given.called[:60]!r} has more than {than} and is truncated")
    try:
        rows = runtime.answer_rows(samples, top=top) if _has_task(runtime) else runtime.output_rows(samples)
    except DataError as error:
        message = f"{batch[0].called}: {error.message}" if batch[0].place else error.message
        hint = f"give {NAMED} files" if error.hint == UNREADABLE else error.hint  # there is nothing to skip it in
        raise DataError(message, hint) from error
    return [_prediction(given, row) for given, row in zip(batch, rows, strict=True)]


def _has_task(runtime: Runtime) -> bool:
    """Whether somebody said what the outputs mean; where nobody did, they are shown as they are."""
    return bool(runtime.bundle.manifest.task or runtime.bundle.manifest.former_returns)


def _prediction(given: GivenSample, row: Mapping[str, Any]) -> Prediction:
    best = tuple((each["label"], each.get("probability", 1.0)) for each in row.get("top", ()))
    return Prediction(given.argument, best, tuple(row.get("values", ())), row, given.place)
