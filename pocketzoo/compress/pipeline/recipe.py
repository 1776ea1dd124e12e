"""Read a compression recipe (TOML) into a tuple of step configs, strictly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.renamed import warn_renamed
from pocketzoo.core.typed import from_plain
from pocketzoo.zoo.catalog.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe(path: Path, registry: Registry) -> tuple[Any, ...]:
    """The configs of a recipe's steps, in order.

    A recipe is a list of ``[[step]]`` tables; ``kind`` names a registered compressor, the rest are its config's fields.

    Raises:
        RecipeError: the file is missing, no TOML, or has an unknown table, kind or field.
    """
    return read_steps(_read(path).get("step", []), str(path), registry)


def recipe_accepts(path: Path) -> bool:
    """Whether a recipe says ``accept = true``: its steps may lose what they would else be rejected for.

    Raises:
        RecipeError: as ``read_recipe``.
    """
    return bool(_read(path).get("accept", False))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text("utf8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}", "check the path") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path} is a folder", "name the recipe's file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}", "see docs/recipes.md for the form") from error
    for key in data:
        if key not in ("step", "accept"):
            raise RecipeError(f"{path} has an unknown table {key!r}", nearest(key, ["step", "accept"]))
    if not isinstance(data.get("accept", False), bool):
        raise RecipeError(f"accept of {path} cannot be {data['accept']!r}", "write accept = true, or leave it out")
    return data


def read_steps(steps: Any, name: str, registry: Registry) -> tuple[Any, ...]:
    """The configs of tables of steps; ``name`` is whose they are, for errors.

    Raises:
        RecipeError: there are none, or one has an unknown kind or field.
    """
    if not isinstance(steps, list | tuple) or not steps:
        raise RecipeError(f"{name} has no steps", "add one: [[step]] kind = 'int8'")
    if not all(isinstance(step, dict) for step in steps):
        raise RecipeError(f"{name} has a step that is not a table", "write each as [[step]]")
    return tuple(_config(dict(step), registry) for step in steps)


def _config(step: dict[str, Any], registry: Registry) -> Any:
    kind = step.pop("kind", None)
    known = registry.entries("compressor")
    if kind == "heal" and kind not in known:
        kind = "distill"
        warn_renamed("heal", kind)
    if not isinstance(kind, str) or kind not in known:
        raise RecipeError(f"no step is of kind {kind!r}", nearest(str(kind), known))
    return from_plain(known[kind].spec.config, step)
