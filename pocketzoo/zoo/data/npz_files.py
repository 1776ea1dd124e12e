"""Files of arrays (.npz, .safetensors), or folders of them, as data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, PocketzooError, UnsafeFileError, UnsupportedModelError, nearest
from pocketzoo.core.reading.tensor_files import read_arrays
from pocketzoo.core.untrusted.limits import UNPACKED_BYTES
from pocketzoo.zoo.catalog.dataset import Dataset, Groups, Split
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import Skipped, from_arrays
from pocketzoo.zoo.data.grouping.group_by import NOTHING_SAID, GroupBy, of_column
from pocketzoo.zoo.data.grouping.near_duplicates import grouped
from pocketzoo.zoo.data.processors.base import fits
from pocketzoo.zoo.data.processors.image_preprocessing import is_pixels
from pocketzoo.zoo.data.processors.table_cells import cell, is_number
from pocketzoo.zoo.data.table_files import FIX
from pocketzoo.zoo.data.target_kinds import read_targets

SUFFIXES = (".npz", ".safetensors")
NOT_INPUTS = ("y", "labels")


def read_npz(
    path: Path,
    seed: int,
    targets: TargetKind = "classes",
    *,
    names: Sequence[Sequence[str]] = (),
    may_lack: bool = False,
    skipped: Skipped | None = None,
    inputs: Sequence[TensorSpec] = (),
    by: GroupBy = NOTHING_SAID,
) -> Dataset:
    """An ``.npz`` or ``.safetensors`` with ``x`` and perhaps ``y``, targets of a kind; ``labels`` may name columns of
    flags. Or a folder of such, one after the other.

    In place of ``x`` it may have several arrays that make a sample together, called by one of the sets of ``names``,
    and where the model has one input, an array of any name. ``inputs`` are the model's: what is as one sample has it
    is given once, for all samples, and whole numbers stay what they are where the model reads such.
    By a column, ``by`` names the array that says the source of each sample.
    With ``may_lack`` NaN is a number that is missing. Other rows with numbers that are not finite are an error, or
    noted in ``skipped``.

    Raises:
        DataError: it is damaged, or its arrays are not samples with their targets.
    """
    aside = by.value if by.kind == "column" else ""
    samples, arrays = npz_samples(path, names, may_lack or skipped is not None, inputs, aside)
    groups = _sources(path, arrays, aside, len(samples)) if aside else None
    y, bad = _read_y(path, arrays["y"], targets) if _has_targets(arrays, inputs) else (None, dict[int, str]())
    places = () if isinstance(samples, np.ndarray) else [f"row {i + 1} of {path}" for i in range(len(samples))]
    if bad and skipped is None:
        row, what = min(bad.items())
        raise DataError(f"row {row + 1} of {path} {what}", FIX)
    if skipped is not None and (left := _unreadable(samples, y, may_lack) | bad.keys()):
        skipped.names.update(f"row {i + 1} of {path}" for i in left)
        rows = [i for i in range(len(samples)) if i not in left]
        if not rows:
            raise DataError(f"{path} has no readable rows", "remove samples with NaN or infinity")
        y = y[rows] if y is not None and len(y) == len(samples) else y
        samples = samples[rows] if isinstance(samples, np.ndarray) else [samples[i] for i in rows]
        places = [places[i] for i in rows] if places else ()
        groups = None if groups is None else groups.take(np.array(rows))
    if groups is None and by.kind:
        groups = grouped(Split(samples), by).groups
    if y is None:
        return from_arrays(path.stem, (), samples, None, seed, places, groups)
    called, wrong = _read_y(path, arrays.get("labels", np.empty(0, "U1")).ravel(), "flags")
    for row, what in wrong.items():
        raise DataError(f"label {row + 1} of {path} {what}", "write it in UTF-8")
    labels, known = read_targets(targets, str(path), y, len(samples), called.astype(str).tolist())
    return from_arrays(path.stem, labels, samples, known, seed, places, groups)


def _sources(path: Path, arrays: Arrays, name: str, count: int) -> Groups:
    """The sources that an array names, one for each sample."""
    if name not in arrays:
        raise DataError(f"{path} has no array {name!r}", f"{nearest(name, arrays)}; it has: {', '.join(arrays)}")
    if arrays[name].shape != (count,):
        raise DataError(f"{path}: {name} is of shape {arrays[name].shape}", f"give one source for each of {count}")
    return of_column(name, arrays[name].tolist())


def npz_samples(
    path: Path,
    names: Sequence[Sequence[str]] = (),
    may_lack: bool = False,
    inputs: Sequence[TensorSpec] = (),
    aside: str = "",
) -> tuple[Any, Arrays]:
    """The samples of a file or folder, one per row, and ``y`` and what else they have; see ``read_npz``.

    ``aside`` is an array that is no input.
    """
    if not path.is_dir():
        arrays = read_arrays_of(path)
        read = {name: x for name, x in arrays.items() if name != aside}
        return _samples(path, read, names, may_lack, inputs), arrays
    parts = [npz_samples(file, names, may_lack, inputs, aside) for file in array_files(path)]
    together = [sample for samples, _ in parts for sample in samples]
    first = parts[0][1]
    further = {"labels": first["labels"]} if "labels" in first else {}
    if with_y := [arrays["y"] for _, arrays in parts if _has_targets(arrays, inputs)]:
        if len(with_y) < len(parts):
            raise DataError(f"some files of {path} have an array 'y', some have none", "give it in each, or in none")
        further["y"] = np.concatenate(with_y)
    if aside and all(aside in arrays for _, arrays in parts):
        further[aside] = np.concatenate([arrays[aside] for _, arrays in parts])
    return together, further


def _has_targets(arrays: Arrays, inputs: Sequence[TensorSpec]) -> bool:
    """Whether ``y`` is of targets: not where the model reads what is called so, unless all it reads is ``x`` here."""
    own = {tensor.name for tensor in inputs}
    return "y" in arrays and ("y" not in own or (len(own) == 1 and "x" in arrays))


def array_files(folder: Path) -> list[Path]:
    """The files of a folder that has files of arrays alone; none of any other folder."""
    files = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    return files if files and all(each.is_file() and each.suffix.lower() in SUFFIXES for each in files) else []


def read_arrays_of(path: Path) -> Arrays:
    """The arrays of one file, by name.

    Raises:
        DataError: it is damaged.
        TooLargeError: it unpacks to more than the limit.
    """
    if path.suffix.lower() == ".safetensors":
        try:
            return read_arrays(path)
        except (UnsafeFileError, UnsupportedModelError) as error:
            raise DataError(f"cannot read {path}: {error.message}", error.hint) from error
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a file it opened itself
            _check_sizes(path, file.zip)
            return {key: file[key] for key in file.files}
    except PocketzooError:
        raise
    except Exception as error:  # zipfile, numpy and zlib raise half a dozen types for a damaged file
        raise DataError(f"cannot read {path}: {error}", "write it with numpy.savez(path, x=x, y=y)") from error


def _samples(
    path: Path, arrays: Arrays, names: Sequence[Sequence[str]], may_lack: bool, inputs: Sequence[TensorSpec]
) -> Any:
    together = next((each for each in names if each and arrays.keys() >= set(each)), ())
    specs = {tensor.name: tensor for tensor in inputs}
    arrays = {name: _rows_first(x, specs[name]) if name in specs else x for name, x in arrays.items()}
    if together and (len(together) > 1 or "x" not in arrays):  # one of several may be called "x" too
        return _named_samples(path, {name: arrays[name] for name in together}, may_lack, specs)
    if len(specs) > 1 and not together and arrays.keys() & specs.keys():
        lacks = next(name for name in specs if name not in arrays)
        raise DataError(
            f"{path} has no array {lacks!r}, which is an input of the model",
            f"give it too, or once for all samples; it has: {', '.join(arrays)}",
        )
    others = [name for name in arrays if name not in NOT_INPUTS]
    called = "x"
    if "x" not in arrays and len(inputs) == len(others) == 1:
        called = others[0]
    if called not in arrays:
        fields = "".join(f"; a sample is {' and '.join(each)}" for each in names[:1] if each)
        raise DataError(f"{path} has no array 'x'", f"it has: {', '.join(arrays) or 'nothing'}{fields}")
    x = arrays[called]
    alone = len(inputs) == 1 and not inputs[0].sample_shape  # a sample is one number
    if x.ndim < (1 if alone else 2) or len(x) == 0 or x.dtype.kind not in "uifb":
        raise DataError(f"{path}: {called} is {x.dtype} of shape {x.shape}", "give numbers, one sample per row")
    if len(inputs) == 1 and np.dtype(inputs[0].dtype) != np.float32:  # another type of arrays: of pixels it is none
        _check_finite(path, called, x, may_lack)
        return x
    pixels = x.dtype == np.uint8 or (x.ndim > 2 and is_pixels(x.dtype))
    if pixels and x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if not pixels:
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite, which is refused
            x = x.astype(np.float32)
        _check_finite(path, called, x, may_lack)
    return x


def _rows_first(x: npt.NDArray[Any], tensor: TensorSpec) -> npt.NDArray[Any]:
    """An array whose samples lie along the axis that the model has them along, with that axis first."""
    along = tensor.batch and x.ndim == len(tensor.shape) and not fits(x.shape[1:], tensor.sample_shape)
    return np.moveaxis(x, tensor.batch or 0, 0) if along and fits(x.shape, tensor.shape) else x


def _read_y(path: Path, y: npt.NDArray[Any], kind: TargetKind) -> tuple[npt.NDArray[Any], dict[int, str]]:
    """Targets, texts as text without the blanks around them, and of the rows that have none what is wrong."""
    if y.dtype.kind not in "biufUS" or not y.ndim:
        raise DataError(f"{path}: y is {y.dtype} of shape {y.shape}", "give labels as texts or numbers")
    bad: dict[int, str] = {}
    if y.dtype.kind == "S":
        texts = np.empty(y.shape, object)
        for place, data in np.ndenumerate(y):
            try:
                texts[place] = data.decode()
            except UnicodeDecodeError:
                bad.setdefault(place[0] if place else 0, f"has a label that is not UTF-8: {bytes(data)!r:.60}")
                texts[place] = ""
        y = texts.astype(str)
    if y.dtype.kind == "U":
        y = np.char.strip(y)
    if y.ndim == 1 and kind in ("classes", "numbers"):
        for row in np.flatnonzero(_lacking(y)).tolist():
            bad.setdefault(row, f"has no label: {y[row].item()!r}")
    if y.ndim == 1 and y.dtype.kind == "U" and kind == "numbers":
        for row, text in enumerate(y.tolist()):
            if not is_number(text) or math.isnan(cell(text)):
                bad.setdefault(row, f"has no number in y: {text!r:.60}")
        if bad and len(bad) == len(y):  # labels, and no numbers that are written wrongly
            return y, {}
        y[list(bad)] = "0"  # so that the others are numbers; these are left out
    return y, bad


def _lacking(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if y.dtype.kind == "U":
        return np.isin(np.char.lower(y), ["", "nan"])
    return np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), bool)


def _check_sizes(path: Path, archive: ZipFile) -> None:
    """Refuse what unpacks to more than the limit, or says that it has more values than bytes: numpy takes memory first.

    Raises:
        TooLargeError: its compressed arrays unpack to more.
        ValueError: an array states another size than it has.
    """
    entries = archive.infolist()
    UNPACKED_BYTES.check(
        sum(e.file_size for e in entries if e.compress_type != ZIP_STORED), str(path), "bytes, unpacked"
    )
    formats: Any = np.lib.format
    for entry in entries:
        with archive.open(entry) as member:
            if member.read(6) != formats.MAGIC_PREFIX:
                continue  # numpy gives its bytes as they are
            version = tuple(member.read(2))
            read_header = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, _, dtype = read_header(member)
            if dtype.itemsize * math.prod(shape) > entry.file_size - member.tell():
                raise ValueError(f"its array {entry.filename.removesuffix('.npy')!r} is shorter than it says")


def _unreadable(samples: Any, y: npt.NDArray[Any] | None, may_lack: bool) -> set[int]:
    """The rows that have numbers that are not finite, among their inputs or targets."""
    columns = [samples] if isinstance(samples, np.ndarray) else []
    if not columns and len(samples):
        columns = [np.stack([sample[name] for sample in samples]) for name in samples[0]]
    bad = np.zeros(len(samples), bool)
    for x, nan in [*((x, may_lack) for x in columns), *([(y, False)] if y is not None and len(y) == len(bad) else [])]:
        if x.dtype.kind == "f":
            bad |= ~_finite(x, nan).reshape(len(x), -1).all(1)
    return set(np.flatnonzero(bad).tolist())


def _finite(x: npt.NDArray[Any], may_lack: bool) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = np.isfinite(x) | np.isnan(x) if may_lack else np.isfinite(x)
    return finite


def _check_finite(path: Path, name: str, x: npt.NDArray[Any], may_lack: bool) -> None:
    if x.dtype.kind == "f" and not (finite := _finite(x, may_lack)).all():
        row = int(np.flatnonzero(~finite.reshape(len(x), -1).all(1))[0]) + 1
        raise DataError(
            f"{path}: {name} has non-finite values",
            f"remove samples with NaN or infinity, the first in row {row}, or use --skip-bad",
        )


def _named_samples(
    path: Path, arrays: Arrays, may_lack: bool, specs: Mapping[str, TensorSpec]
) -> list[dict[str, npt.NDArray[Any]]]:
    """A sample of each row of all arrays, by their names, which are those of a model's inputs.

    What has as many axes as one sample is the same for all of them.
    """
    once = {
        name: x for name, x in arrays.items() if name in specs and x.ndim == len(specs[name].sample_shape)
    }  # fmt: skip
    rows = {name: x for name, x in arrays.items() if name not in once}
    if specs and max((len(x) for x in rows.values() if x.ndim), default=1) > 1:  # one row is of all samples
        alone = [name for name, x in rows.items() if x.ndim and len(x) == 1]
        once |= {name: rows.pop(name)[0] for name in alone}
    for name, x in arrays.items():
        _check_finite(path, name, x, may_lack)
    if not rows:
        return [dict(once)]
    counts = {name: len(x) if x.ndim else 0 for name, x in rows.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise DataError(f"{path} has different numbers of samples: {said}", "give a row of each array for each sample")
    count = next(iter(counts.values()))
    return [{name: once[name] if name in once else rows[name][i] for name in arrays} for i in range(count)]
