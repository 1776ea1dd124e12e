"""The samples of what ``predict`` is given: a file of its own, the rows of a table or of arrays, JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import MalformedError, parse_json
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.processor_configs import DataColumns
from pocketzoo.zoo.data.hf_datasets import image_cells
from pocketzoo.zoo.data.load_data import model_columns, of_inputs, split_columns
from pocketzoo.zoo.data.npz_files import SUFFIXES as ARRAYS
from pocketzoo.zoo.data.npz_files import npz_samples
from pocketzoo.zoo.data.parquet_images import with_features
from pocketzoo.zoo.data.processors.encoded_text import lines_of
from pocketzoo.zoo.data.table_files import SUFFIXES
from pocketzoo.zoo.data.tables import Columns, choose, read_columns

TABLES = SUFFIXES - {".txt"}  # a text, as a whole
JSON = (".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class GivenSample:
    """A sample, and where it is from: the argument, and which line or row of that file."""

    argument: str
    place: str
    sample: Any

    @property
    def called(self) -> str:
        """In errors."""
        return f"{self.place} of {self.argument}" if self.place else self.argument


def samples_of(
    argument: str | Path,
    processor: Processor,
    own: Collection[str] = (),
    progress: Progress = SILENT,
    fitted: DataColumns | None = None,
) -> list[GivenSample]:
    """What an argument of ``predict`` holds, in the order it is in the file.

    A table (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, as ``--data`` takes them, with labels or without) has a
    sample in each row, where the model reads rows or texts, or images that a ``.parquet`` has; an ``.npz`` one in each
    row of its arrays, ``x`` or those that are called as the model's inputs; a ``.json`` one, or a list of them. Any
    other file, and one that ends with a suffix of ``own``, is a sample itself, as the processor has it. Texts of a
    table are in the column that a model was ``fitted`` to, where it has that.

    Raises:
        DataError: the file cannot be read, or is not of what the model reads.
    """
    place, named = split_columns(argument)
    path = Path(place)
    suffix = path.suffix.lower()
    table, text = getattr(processor, "table", None), processor.text
    if suffix not in own and _is_file(path):
        if suffix in ARRAYS:
            return _of_npz(path, processor)
        if suffix == ".json" and table is not None:
            return _of_json_rows(path, processor)
        if suffix == ".parquet" and processor.image is not None and not _has_parts(processor):
            piece = with_features(path)
            if cells := [] if piece is None else image_cells(piece, _columns(named, processor, fitted)):
                return [GivenSample(str(path), f"row {i}", cell) for i, cell in enumerate(cells, start=1)]
        if suffix in TABLES and (table is not None or text is not None):
            found = read_columns(path, _columns(named, processor, fitted), progress=progress)
            return _as_read(path, processor, found.samples, found.columns, found.places)
        if suffix in JSON and (_has_parts(processor) or (text is None and processor.image is None)):
            values = _json(path)
            return [GivenSample(str(path), at, sample_of(value, processor, path.parent)) for at, value in values]
    return [GivenSample(str(argument), "", processor.sample(argument))]


def sample_of(value: Any, processor: Processor, folder: Path = Path()) -> Any:
    """The sample that plain data stands for, as JSON has it: lists are arrays, and files lie in ``folder``.

    Raises:
        DataError: lists in it are not arrays.
    """
    if not isinstance(value, Mapping):
        return value if isinstance(value, list) and getattr(processor, "table", None) else _plain(value, "a sample")
    parts: Mapping[str, Processor] = getattr(processor, "parts", {})
    sample: dict[str, Any] = {}
    for name, part in value.items():
        if name not in parts:
            sample[name] = _plain(part, repr(name))
        elif isinstance(part, str) and parts[name].text is None:
            sample[name] = parts[name].sample(folder / part)
        else:
            sample[name] = sample_of(part, parts[name], folder)
    return sample


def parsed_row(text: str, processor: Processor) -> Any:
    """The sample that ``--row`` says: "height=1.8,mass=70", "1.8,70" in the order of the columns, or JSON; a text.

    Raises:
        DataError: it says nothing of these.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            return sample_of(parse_json(text), processor)
        except MalformedError as error:
            raise DataError(
                f"{text[:60]!r} is not JSON: {message_of(error)}", "write [1.5, 2.0], or each column with its value"
            ) from error
    if processor.text is not None and not _has_parts(processor):
        return text
    cells = [cell.strip() for cell in text.split(",")]
    pairs = [cell.partition("=") for cell in cells]
    if not any(mark for _, mark, _ in pairs):
        return cells
    if bad := next((cell for cell, (name, mark, _) in zip(cells, pairs, strict=True) if not (name and mark)), None):
        raise DataError(f"{bad!r} of {text[:60]!r} is not COLUMN=NUMBER", "write height=1.8,mass=70, or JSON")
    names = [name.strip() for name, _, _ in pairs]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{text[:60]!r} has two values for {twice!r}", "give one for each column")
    return {name: value.strip() for name, (_, _, value) in zip(names, pairs, strict=True)}


def _columns(named: Columns, processor: Processor, fitted: DataColumns | None = None) -> Columns:
    """Those of the model, and those that are named; labels are not read."""
    return replace(model_columns(named, processor, fitted=fitted), targets=False)


def _has_parts(processor: Processor) -> bool:
    """Whether a sample is of several things, each read by a processor of its own."""
    return bool(getattr(processor, "parts", None))


def _of_npz(path: Path, processor: Processor) -> list[GivenSample]:
    samples, _ = npz_samples(path, may_lack=_columns(Columns(), processor).may_lack, **of_inputs(processor))
    return [GivenSample(str(path), f"row {i}", sample) for i, sample in enumerate(samples, start=1)]


def _of_json_rows(path: Path, processor: Processor) -> list[GivenSample]:
    """Objects of column and number, of which a table has the columns that the model reads; or lists of numbers."""
    values = _json(path)
    inputs = {tensor.name for tensor in processor.inputs}
    if not all(isinstance(value, Mapping) and value.keys() != inputs for _, value in values):
        return [GivenSample(str(path), at, sample_of(value, processor, path.parent)) for at, value in values]
    names = list(dict.fromkeys(name for _, value in values for name in value))
    places = [at or "the object" for at, _ in values]
    columns = _columns(Columns(), processor)
    found = choose(str(path), names, [value for _, value in values], columns, None, places)
    return _as_read(path, processor, found.samples, found.columns, [at for at, _ in values])


def _as_read(
    path: Path, processor: Processor, samples: Any, columns: tuple[str, ...], places: Sequence[str]
) -> list[GivenSample]:
    """Rows as the processor reads them: the model's columns by their names, in its order."""
    dataset = Dataset(str(path), (), {"test": Split(samples)}, columns=columns)
    if columns:
        dataset = processor.reads(dataset)
    rows: Any = dataset.split("test").samples
    return [GivenSample(str(path), at, row) for at, row in zip(places, rows, strict=True)]


def _json(path: Path) -> list[tuple[str, Any]]:
    """The values of a JSON file, each with its place: those of a list, of lines, or the only one."""
    try:
        read = lines_of(path.read_bytes(), str(path))
        for number, what in read.bad.items():
            raise ValueError(f"line {number} {what}")
        if path.suffix.lower() == ".jsonl":
            values = [(f"line {number}", parse_json(line)) for number, line in read.texts()]
        else:
            whole = parse_json("".join(line for _, line in read.lines))
            several = isinstance(whole, list) and any(isinstance(value, list | dict | str) for value in whole)
            values = [(f"row {i}", value) for i, value in enumerate(whole, 1)] if several else [("", whole)]
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {message_of(error)}", "give JSON in UTF-8") from error
    if not values or values == [("", [])]:
        raise DataError(f"{path} has no samples", "give an object for each, with a value for each input")
    return values


def _plain(value: Any, what: str) -> Any:
    """Lists as arrays."""
    if not isinstance(value, list):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what} is not an array: its rows differ in length", "give lists of one length") from error
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a file's name, or with a zero inside: a text
        return False


def batches(samples: Sequence[GivenSample], size: int) -> Iterator[list[GivenSample]]:
    """Samples of one file put together, ``size`` at most."""
    batch: list[GivenSample] = []
    for sample in samples:
        if batch and (len(batch) == size or sample.argument != batch[0].argument or not sample.place):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch
