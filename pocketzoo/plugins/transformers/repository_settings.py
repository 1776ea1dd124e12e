"""A repository's files of settings: read as tables, held against what is known, refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers.setting_values import HINT, Fits
from pocketzoo.zoo.catalog.specs import Repository


def read_json(repository: Repository, path: str) -> Any:
    """A small file of a repository; None where it has none.

    Raises:
        UnsupportedModelError: it is not valid JSON.
    """
    if path not in repository.files:
        return None
    from pocketzoo.core.reading import documents

    try:
        return documents.read_json(repository.files[path])
    except documents.MalformedError as error:
        raise UnsupportedModelError(
            f"{path} of {repository.repo_id} is not valid JSON: {error}", "choose another"
        ) from error


def read_table(repository: Repository, path: str) -> dict[str, Any]:
    """The settings of such a file without those that are null; none where there is no file.

    Raises:
        UnsupportedModelError: it is not valid JSON, or not a table.
    """
    table = read_json(repository, path)
    if not isinstance(table, dict | None):
        raise UnsupportedModelError(f"{path} of {repository.repo_id} is not a table", "choose another")
    return {name: value for name, value in (table or {}).items() if value is not None}


def refuse(path: str, name: str, value: Any, why: str = "which is not followed here") -> UnsupportedModelError:
    """The error for a setting that changes what the model answers, and is not followed."""
    shown = repr(value)
    return UnsupportedModelError(f"its {path} sets {name!r} to {shown[:60]}{'...' * (len(shown) > 60)}, {why}", HINT)


def check(path: str, table: Mapping[str, Any], known: Mapping[str, Fits], harmless: Mapping[str, str]) -> None:
    """Hold settings against those that are followed, with the kind of their values, and those that change nothing.

    Raises:
        UnsupportedModelError: one is neither, or has a value of another kind.
    """
    for name, value in table.items():
        if name in harmless:
            continue
        if name not in known:
            raise refuse(path, name, value)
        if not known[name](value):
            raise refuse(path, name, value)
