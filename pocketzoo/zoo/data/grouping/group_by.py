"""What a user says of where samples come from (``--group-by``): by folder, column, file name, or each for itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError, message_of, nearest
from pocketzoo.zoo.catalog.dataset import Groups, files_of

Kind = Literal["", "folder", "column", "pattern", "sample"]
KINDS: tuple[Kind, ...] = get_args(Kind)[1:]
WITH_VALUE = ("column", "pattern")
FORMS = "write folder, column=NAME, pattern=REGEX with one group, or sample"


@dataclass(frozen=True, slots=True)
class GroupBy:
    """How sources are told apart. The kind "" is nothing said: near-duplicates are found."""

    kind: Kind = ""
    value: str = ""  # the column's name, or the pattern

    def __str__(self) -> str:
        return f"{self.kind} {self.value}".strip()

    @classmethod
    def parse(cls, text: str) -> GroupBy:
        """What an option or a recipe says: "folder", "column=patient", "pattern=([a-z]+)_[0-9]+", "sample".

        Raises:
            DataError: it says nothing of these.
        """
        kind, mark, value = text.partition("=")
        if not text:
            return cls()
        if kind not in KINDS:
            raise DataError(f"samples cannot be grouped by {text!r}", f"{nearest(kind, KINDS)}; {FORMS}")
        if (kind in WITH_VALUE) != bool(mark and value):
            raise DataError(f"samples cannot be grouped by {text!r}", FORMS)
        by = cls(kind, value)
        if kind == "pattern":
            by.regex()
        return by

    def regex(self) -> re.Pattern[str]:
        """The pattern: a regular expression with one group or, where it is none, a glob with one pair of parentheses.

        Raises:
            DataError: it is neither.
        """
        try:
            pattern = re.compile(self.value)
        except re.error as error:  # "(*)_*.png": a star with nothing before it
            try:
                pattern = re.compile(_of_glob(self.value))
            except re.error:
                raise DataError(
                    f"{self.value!r} is not a pattern: {message_of(error)}", "write one such as '(.+)_[0-9]+'"
                ) from error
        if pattern.groups != 1:
            raise DataError(
                f"the pattern {self.value!r} has {pattern.groups} groups",
                "put what names the source into one pair of parentheses: '(.+)_[0-9]+', or '(*)_*.png'",
            )
        return pattern

    def of_files(self, samples: Sequence[Any], root: Path) -> Groups:
        """The sources of samples that are files, by the folder that each lies in or by its path below ``root``.

        Raises:
            DataError: one is not a file, or has no such name.
        """
        names = []
        pattern = self.regex() if self.kind == "pattern" else None
        for row, sample in enumerate(samples):
            if not (files := files_of(sample)):
                raise DataError(
                    f"sample {row} is not a file, so that it cannot be grouped by {self}",
                    "for a table write column=NAME",
                )
            path = files[0].relative_to(root) if files[0].is_relative_to(root) else files[0]
            if pattern is None:
                names.append(path.parent.as_posix())
            elif (match := pattern.search(path.as_posix())) is None or match[1] is None:
                raise DataError(
                    f"the name {path.as_posix()!r} does not match the pattern {self.value!r}",
                    "write one that matches the names of all samples",
                )
            else:
                names.append(match[1])
        return Groups(ids_of(names), str(self))


NOTHING_SAID = GroupBy()


def ids_of(names: Iterable[str]) -> npt.NDArray[np.int64]:
    """A number for each name: the same name has the same one, in whatever split it is."""
    digests = (hashlib.sha256(name.encode("utf8", "surrogatepass")).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], np.int64)


def of_column(name: str, values: Iterable[Any]) -> Groups:
    """The sources that a column names, one for each value."""
    return Groups(ids_of(f"{type(value).__name__} {value}" for value in values), str(GroupBy("column", name)))


def each_its_own(count: int) -> Groups:
    """A source for each sample."""
    return Groups(np.arange(count, dtype=np.int64), "sample")


def _of_glob(glob: str) -> str:
    """A glob as a regular expression of a whole name, with or without the folders before it."""
    words = {"*": "[^/]*", "?": "[^/]", "(": "(", ")": ")"}
    return "(?:^|/)" + "".join(words.get(letter) or re.escape(letter) for letter in glob) + "$"
