"""The index of sharded weights: which file has which tensor. Standard library only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError
from pocketzoo.core.reading.documents import parse_json

INDEX = "model.safetensors.index.json"
DISTRUST = "do not use this model; tell its author"


def shard_names(paths: Collection[str]) -> tuple[str, ...]:
    """The files of a repository that are shards by their names: ``model-00001-of-00002.safetensors``."""
    return tuple(sorted(path for path in paths if path.startswith("model-") and path.endswith(".safetensors")))


def read_index(path: Path, shards: Collection[str]) -> dict[str, str]:
    """Tensor -> the shard it is in; every shard is one of ``shards``, which are the files that there are.

    Raises:
        UnsafeFileError: it is not an index, names a tensor twice, or a file outside the repository.
        UnsupportedModelError: it names a shard that is not there.
    """
    from pocketzoo.zoo.hub.reference import is_inside

    try:
        index = parse_json(path.read_bytes(), once=True)
        names: Any = index["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnsafeFileError(f"{INDEX} is not an index of shards: {error}", DISTRUST) from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UnsafeFileError(f"{INDEX} is not an index of shards: its weight_map is not a table of files", DISTRUST)
    for name in sorted(set(names.values())):
        if not is_inside(name):
            raise UnsafeFileError(f"{INDEX} names a file outside the repository: {name!r:.80}", DISTRUST)
        if name not in shards:
            raise UnsupportedModelError(
                f"{INDEX} names {name!r:.80}, which the repository does not have",
                "pull another revision, or tell its author",
            )
    return names
