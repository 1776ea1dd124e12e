"""Open whatever ``--data`` names as a data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pocketzoo.core.errors import DataError, nearest
from pocketzoo.core.files import reading_errors
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.processor_configs import NO_COLUMNS, DataColumns
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import Skipped, completed, divided, from_arrays
from pocketzoo.zoo.data.grouping.group_by import GroupBy
from pocketzoo.zoo.data.grouping.sentences import sentences
from pocketzoo.zoo.data.hf_datasets import dataset_of, is_saved, read_repository, read_saved
from pocketzoo.zoo.data.image_folders import read_folder
from pocketzoo.zoo.data.npz_files import SUFFIXES as ARRAYS
from pocketzoo.zoo.data.npz_files import array_files, read_npz
from pocketzoo.zoo.data.parquet_images import with_features
from pocketzoo.zoo.data.processors.open_processor import open_config, suffixes
from pocketzoo.zoo.data.table_files import SUFFIXES
from pocketzoo.zoo.data.tables import Columns, read_table
from pocketzoo.zoo.data.target_kinds import of_kind

NONE = "none"  # what compress takes in place of data
NAMED = ("text", "label", "encoding", "delimiter", "group")  # what a reference may name after its question mark


@survives_exit
def load_data(
    reference: str | Path | Dataset | Iterable[Mapping[str, Any]],
    *,
    seed: int = 0,
    targets: TargetKind = "classes",
    reader: Callable[[Path], Dataset | None] | None = None,
    lenient: Callable[[Path], Dataset | None] | None = None,
    skipped: Skipped | None = None,
    reads: Any = None,
    fitted: DataColumns | None = None,
    missing: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Open a data set: a folder, an ``.npz`` with ``x`` and ``y``, a table, or a registered name; a data set is kept.

    So is an iterable of mappings, each a sample: input -> array. An ``.npz``, a ``.safetensors`` or a folder of them
    has an array for each input of the model, by its name; see ``read_npz``.

    A folder has one sub-folder per class, with or without train / val / test above them; a folder of files alone is a
    data set without classes, which is enough for calibration. Its samples are the files that a processor reads: that of
    the config ``reads``, which is a model's, or any that is installed. A table is a ``.csv``, ``.tsv``, ``.jsonl`` or
    ``.parquet``; ``reviews.csv?text=review&label=stars`` names its columns, and those of numbers are put in the order
    of ``reads`` by their names; ``encoding=cp1252`` and ``delimiter=%3B`` say how it is written, where that cannot be
    found, or is not UTF-8. A number may be missing where ``reads`` says what stands for it, or with ``missing``
    will; anywhere else that is an error. A folder saved by the library ``datasets``,
    and ``hf://owner/name[@revision][#configuration]``, a data set of the Hub, are read by that library. Data without
    splits is split 60 / 20 / 20 by ``seed``. ``targets`` says of which kind they are: one class per sample, numbers
    (``y`` of shape (N,) or (N, outputs), or label columns), flags (0 or 1 for each label), tags (a label for each
    word), or arrays as they are. Targets of another kind are left out where numbers, flags or tags are wanted. What a
    task's own ``reader`` knows, it reads, unless columns are named. Unreadable rows are noted in ``skipped`` (and what
    they are called in the data set), for which a task has a ``lenient`` reader; without it the first is an error. Of a
    table whose columns nobody names, those are read that a model was ``fitted`` to, where it has them, before what
    columns are usually called.

    Samples of one source are in one split. Near-duplicates are found (``near_duplicates``), unless the reference says
    what a source is: ``photos?group=folder`` by the innermost folder, ``group=column=patient`` by a column of a table
    or an array, ``group=pattern=(.%2B)_[0-9]%2B`` by a part of the file's name, ``group=sample`` each sample.

    Raises:
        DataError: it is empty, unreadable, or a class has no samples.
        MissingDependencyError: an extra that reads it is not installed.
        UnknownNameError: it is not a path and no registered name.
    """
    if not 0 <= seed < 2**31:
        raise DataError(f"the seed cannot be {seed}", "give a whole number of at least 0 and below 2^31")
    known = registry or default_registry()
    processor = None if reads is None else open_config(reads, registry=known)
    if isinstance(reference, Dataset):
        dataset = reference
    elif not isinstance(reference, str | Path):
        dataset = of_mappings(reference, seed)
    else:
        endings = suffixes(known, reads) or suffixes(known)
        with reading_errors(reference):
            own = reader if skipped is None or lenient is None else lenient
            dataset = _load(
                reference, seed, targets, own, skipped, processor, endings, missing, fitted, known, progress
            )
    if skipped is not None:
        skipped.names.update(dataset.skipped)
        dataset = replace(dataset, skipped=tuple(skipped.listed()))
        if dataset.skipped and not isinstance(reference, Dataset):
            progress.say(f"skipped {len(dataset.skipped)} that cannot be read, the first is {dataset.skipped[0]}")
    for sentence in (*_other_columns(dataset, fitted or NO_COLUMNS), *sentences(dataset)):
        progress.say(sentence)
    dataset = of_kind(dataset, targets)
    # Columns are put in the model's order by their names; nothing else has names.
    return processor.reads(dataset) if processor is not None and dataset.columns else dataset


def _load(
    reference: str | Path,
    seed: int,
    targets: TargetKind,
    reader: Callable[[Path], Dataset | None] | None,
    skipped: Skipped | None,
    processor: Processor | None,
    endings: Collection[str],
    missing: bool,
    fitted: DataColumns | None,
    registry: Registry,
    progress: Progress,
) -> Dataset:
    place, named = split_columns(reference)
    path = Path(place)
    columns = model_columns(named, processor, missing, fitted)
    by, named = GroupBy.parse(named.group), replace(named, group="")
    if place.startswith("hf://"):
        return read_repository(place, columns, seed, targets, skipped)
    if named != Columns() and path.suffix.lower() not in SUFFIXES and not is_saved(path):
        raise DataError(f"{path} is not a table, and has no columns", "give a .csv, .tsv, .jsonl or .parquet")
    if reader is not None and named == Columns() and path.exists() and (own := reader(path)) is not None:
        return _whole(own, seed, by, path)
    bundle = (path / MANIFEST).exists()  # which may be called as the data set it was fitted to
    given: dict[str, Any] = {"may_lack": columns.may_lack, "skipped": skipped, "by": by}
    if path.is_dir() and not bundle:
        if is_saved(path):
            return read_saved(path, columns, seed, targets, skipped)
        if not set(ARRAYS) & set(endings) and array_files(path):
            return read_npz(path, seed, targets, **of_inputs(processor), **given)
        return read_folder(path, seed, endings, skipped, progress, by)
    if path.suffix.lower() in ARRAYS and path.is_file():
        return read_npz(path, seed, targets, **of_inputs(processor), **given)
    if path.suffix.lower() == ".parquet" and path.is_file() and (piece := with_features(path)) is not None:
        return dataset_of(path.stem, str(path), piece, columns, seed, targets, skipped, ())
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return read_table(path, columns, seed=seed, targets=targets, skipped=skipped, progress=progress)
    if path.exists() and place not in registry.entries("dataset"):
        raise DataError(
            f"{path} is {'a bundle, not' if bundle else 'not'} a data set",
            "give a folder of images or other samples, an .npz with x and y, a table, or a registered name",
        )
    if place == NONE and not path.exists() and place not in registry.entries("dataset"):
        raise DataError(
            f"{NONE} is no data set: compress alone does without data", "give a folder, a table or a registered name"
        )
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise DataError(f"there is no data set at {path}", "check the path")
    dataset: Dataset = registry.get("dataset", place).load()
    if by.kind:
        raise DataError(f"{dataset.name} comes divided, and cannot be grouped by {by}", "leave out --group-by")
    return dataset


def of_mappings(samples: Iterable[Mapping[str, Any]], seed: int = 0) -> Dataset:
    """A data set of samples in memory, each a mapping of input -> array without the batch axis.

    Raises:
        DataError: there are none, or one is something else.
    """
    found = list(samples) if isinstance(samples, Iterable) else []
    if not found:
        raise DataError("there are no samples", "give mappings of input to array, or a path")
    for i, sample in enumerate(found, start=1):
        if not isinstance(sample, Mapping):
            raise DataError(f"sample {i} is a {type(sample).__name__}", "give mappings of input to array")
    return from_arrays("samples", (), found, None, seed, [f"sample {i}" for i in range(1, len(found) + 1)])


def of_inputs(processor: Processor | None) -> dict[str, Any]:
    """What files of arrays are read by: the names of a sample's arrays, and the model's inputs."""
    return {"names": array_names(processor), "inputs": () if processor is None else tuple(processor.inputs)}


def array_names(processor: Processor | None) -> list[Sequence[str]]:
    """What the arrays of a sample may be called: as the fields that a processor reads, or as the model's inputs."""
    if processor is None:
        return []
    return [tuple(getattr(processor, "fields", ())), tuple(tensor.name for tensor in processor.inputs)]


def _whole(dataset: Dataset, seed: int, by: GroupBy, path: Path) -> Dataset:
    """A data set that a task read from ``path``, with all three splits."""
    whole = all(name in dataset.splits for name in SPLITS)
    if "train" not in dataset.splits or (whole and not by.kind):
        return dataset
    root, alone = path if path.is_dir() else path.parent, len(dataset.splits) == 1
    splits = divided(dataset.split("train"), seed, by, root) if alone else completed(dataset.splits, seed, by, root)
    return replace(dataset, splits=splits, seed=dataset.seed if whole else seed)


def with_columns(reference: str, text: str | None, label: str | None, group: str | None = None) -> str:
    """A reference that names the columns of its table, and what a source is."""
    named = (("text", text), ("label", label), ("group", group))
    asked = {name: column for name, column in named if column is not None}
    mark = "?" if split_columns(reference)[0] == reference else "&"  # it may name its encoding already
    return f"{reference}{mark}{urlencode(asked)}" if asked else reference


def _other_columns(dataset: Dataset, fitted: DataColumns) -> Iterator[str]:
    """What to say of a table that has not the columns that a model was fitted to, so that others are read."""
    read = dataset.read or NO_COLUMNS
    for was, now, what in (
        *(((fitted.text,), (read.text,), "samples"),) * bool(fitted.text and read.text),
        (fitted.labels, read.labels, "labels"),
    ):
        if was and now and was != now and (missing := [name for name in was if name not in dataset.header]):
            yield (
                f"{dataset.name} has no column {missing[0]!r}, which the model was fitted to: "
                f"the {what} are read from {' and '.join(map(repr, now))}"
            )


def model_columns(
    named: Columns, processor: Processor | None, missing: bool = False, fitted: DataColumns | None = None
) -> Columns:
    """Those that a reference names, and those that a model was fitted to and its processor reads."""
    images = processor is None or processor.text is None
    named = replace(named, fitted=fitted or NO_COLUMNS, images=images)
    table = getattr(processor, "table", None)  # which the processors of earlier plugins have not
    if table is None:
        return replace(named, may_lack=missing)
    return replace(named, numbers=table.columns, may_lack=missing or bool(table.missing))


def split_columns(reference: str | Path) -> tuple[str, Columns]:
    """A reference without the columns that it names after a question mark, and those."""
    path, mark, query = str(reference).rpartition("?")
    if not mark or Path(reference).exists():
        return str(reference), Columns()
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := [name for name in asked if name not in NAMED]:
        raise DataError(f"{reference} names a column for {unknown[0]!r}", nearest(unknown[0], NAMED))
    if len(delimiter := asked.get("delimiter", ",")) != 1:
        raise DataError(f"columns cannot have {delimiter!r} between them", "name one character: delimiter=%3B for ;")
    return path, Columns(**asked)  # type: ignore[arg-type]
