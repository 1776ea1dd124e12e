"""Data set checks before training: class balance, duplicates across splits, texts that are too long."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.core.files import sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, LazyImages, Split, Targets, files_of
from pocketzoo.zoo.catalog.processor import Processor

UNEVEN = 3.0  # times as many samples of one class as of another that are worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Facts of a data set."""

    classes: Mapping[str, int] = field(default_factory=dict)  # samples of each in train
    copies: Mapping[str, int] = field(default_factory=dict)  # "train/test" -> samples of test that are in train as well
    copied: tuple[str, str] | None = None  # two names of one such sample, where it has names
    too_long: int = 0  # samples that are cut, of all splits
    max_length: int = 0  # tokens, or what else there is of them, that they are cut to; 0: that is not counted

    def sentences(self) -> Iterator[str]:
        """What the user should hear."""
        if self.classes and max(self.classes.values()) >= UNEVEN * min(self.classes.values()):
            most, least = (pick(self.classes, key=lambda name: self.classes[name]) for pick in (max, min))
            yield (
                f"uneven classes: {self.classes[most]} samples of {most!r}, {self.classes[least]} of {least!r}; "
                "--set balanced=true weights them equally"
            )
        for pair, count in self.copies.items():
            one, other = pair.split("/")
            example = f", such as {' and '.join(self.copied)}" if self.copied else ""
            yield f"{count} samples of {other} are also in {one}, byte for byte{example}: scores are too optimistic"
        if self.too_long:
            than = f"{self.max_length} tokens" if self.max_length else "the model accepts"
            yield f"{self.too_long} samples are longer than {than} and are truncated"


def examine(data: Dataset, processor: Processor, progress: Progress = SILENT, *, whole: bool = False) -> Findings:
    """Look at a data set as a model that ``processor`` reads for will, and say what matters.

    With ``whole`` texts are read in pieces, and so are none too long.

    Copies are samples with the same bytes in two splits. Files are read only where another has the same size.
    """
    train = data.split("train").targets
    counted = _counted(train, len(data.labels))
    copies, copied = _copies({name: data.split(name) for name in SPLITS})
    findings = Findings(
        classes={label: int(counted[i]) for i, label in enumerate(data.labels)} if len(counted) else {},
        copies=copies,
        copied=copied,
        too_long=0 if whole else too_long([data.split(name) for name in SPLITS], processor),
        max_length=processor.lengths[1] if processor.lengths is not None else 0,
    )
    for sentence in findings.sentences():
        progress.say(sentence)
    return findings


def too_long(splits: Sequence[Split], processor: Processor) -> int:
    """How many samples of the splits are longer than the model expects. Those that cannot be read are not counted."""
    cut = 0
    for split in splits:
        samples: Any = split.samples
        if not len(samples) or isinstance(samples, np.ndarray | LazyImages):  # all are as long as one another
            continue
        try:
            cut += processor.truncated(samples)
        except DataError:
            cut += sum(_is_cut(processor, sample) for sample in samples)
    return cut


def _is_cut(processor: Processor, sample: Any) -> bool:
    try:
        return bool(processor.truncated([sample]))
    except DataError:
        return False


def _counted(targets: Targets | None, labels: int) -> npt.NDArray[np.int64]:
    """How many samples each label has; none where targets say something else."""
    if targets is None or not labels or targets.dtype.kind not in "iu":
        return np.empty(0, np.int64)
    if targets.ndim == 1:
        return np.bincount(targets, minlength=labels)
    return np.asarray(targets.sum(0)) if targets.shape[1:] == (labels,) else np.empty(0, np.int64)


def _copies(splits: Mapping[str, Split]) -> tuple[dict[str, int], tuple[str, str] | None]:
    sizes = Counter(
        file.stat().st_size
        for split in splits.values()
        if not isinstance(split.samples, LazyImages)
        for sample in split.samples
        for file in files_of(sample)
        if file.is_file()
    )
    copies: dict[str, int] = {}
    copied: tuple[str, str] | None = None
    seen: dict[bytes, tuple[str, str]] = {}  # digest -> the first split that has it, and its name there
    for name, split in splits.items():
        if isinstance(split.samples, LazyImages):  # to decode all of them would take as long as an epoch
            continue
        own: dict[bytes, tuple[str, str]] = {}
        for sample in split.samples:
            if (key := _digest(sample, sizes)) is None:
                continue
            files = files_of(sample)
            called = str(files[0]) if files else repr(sample[:40]) if isinstance(sample, str) else ""
            if key in seen:
                first, twin = seen[key]
                copies[f"{first}/{name}"] = copies.get(f"{first}/{name}", 0) + 1
                copied = copied or ((twin, called) if files else None)
            own.setdefault(key, (name, called))
        seen = {**own, **seen}
    return copies, copied


def _digest(sample: Any, sizes: Mapping[int, int]) -> bytes | None:
    """What two samples have in common that are the same; None where no other can be, or it cannot be told."""
    if isinstance(sample, Path):
        if not sample.is_file() or sizes[sample.stat().st_size] < 2:
            return None
        return bytes.fromhex(sha256(sample))
    if isinstance(sample, str):
        return sample.encode("utf8", "surrogatepass")
    if isinstance(sample, Mapping):
        whole = hashlib.sha256()
        for name, value in sample.items():
            if (key := _digest(value, sizes)) is None:
                return None
            whole.update(f"{name!r} {len(key)} ".encode() + key)
        return whole.digest()
    array = np.asarray(sample)
    if array.dtype.hasobject:  # nobody here knows when two of those are the same
        return None
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()
