"""Parquet files as the library ``datasets`` writes them: with columns of images, and classes by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.optional import require

EXTRA = "datasets"
CELL = {"bytes", "path"}  # of a cell that is an image
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")  # of the formats that are read


def with_features(path: Path) -> Any:
    """The table of the library, in memory, where the file has images or classes by their names; else None.

    A column of images has cells of ``bytes`` and ``path``, or bytes that begin as an image does. Nothing is decoded.

    Raises:
        DataError: it is damaged.
        MissingDependencyError: the package datasets is not installed.
    """
    parquet = require("pyarrow.parquet", extra=EXTRA)
    try:
        with parquet.ParquetFile(path) as file:
            images, named = _images(file), _is_told(file.schema_arrow.metadata or {})
            if not (images or named):
                return None
            table = file.read()
    except Exception as error:  # pyarrow's own are of many builtin types
        raise DataError(f"cannot read {path}: {message_of(error)}", "write it again") from error
    library = require("datasets", extra=EXTRA)
    try:
        piece = library.Dataset(table)
        for column in images:
            piece = piece.cast_column(column, library.Image(decode=False))
    except Exception as error:  # of pyarrow, and of the library for features that it does not know
        raise DataError(f"cannot read {path}: {message_of(error)}", "write it again") from error
    return piece


def _images(file: Any) -> list[str]:
    types = require("pyarrow", extra=EXTRA).types
    found = []
    for field in file.schema_arrow:
        if types.is_struct(field.type):
            parts = {part.name for part in field.type}
            if "bytes" in parts and parts <= CELL:
                found.append(field.name)
        elif types.is_binary(field.type) or types.is_large_binary(field.type):
            first = next(iter(file.iter_batches(1, columns=[field.name])), None)
            cell = first[0][0].as_py() if first is not None and len(first) else None
            if isinstance(cell, bytes) and cell.startswith(BEGINNINGS):
                found.append(field.name)
    return found


def _is_told(metadata: dict[bytes, bytes]) -> bool:
    """Whether the library noted that a column has classes, whose numbers mean nothing without their names."""
    try:
        facts = json.loads(metadata.get(b"huggingface", b"{}"))
        features = facts["info"]["features"]
        return any(isinstance(each, dict) and each.get("_type") == "ClassLabel" for each in features.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
