"""Recipes for ``run``: find one by name, read it, and override fields of it."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.recipe import SECTIONS, RunRecipe, load_recipe
from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.reading.documents import MalformedError, parse_toml
from pocketzoo.core.typed import from_plain

OF_BACKBONE = ("cut", "input_size", "backbone_options")  # of fit: they mean nothing for another backbone


def read_run_recipe(path: Path, changes: Iterable[tuple[str, str]] = (), *, backbone: str | None = None) -> RunRecipe:
    """The recipe in a file, with ``changes`` to it: ("fit.epochs", "3"), read as TOML, else as text.

    Another ``backbone`` takes the fields of ``fit`` with it that are for the recipe's own: cut, size and options.

    Raises:
        RecipeError: as ``load_recipe``; a field is unknown or of a wrong type; no backbone is named.
    """
    data = load_recipe(path)
    if backbone is not None and backbone != data.get("backbone"):
        data["backbone"] = backbone
        if isinstance(fit := data.get("fit"), dict):
            data["fit"] = {name: value for name, value in fit.items() if name not in OF_BACKBONE}
    for name, text in changes:
        _change(data, name.split("."), text, name)
    recipe = from_plain(RunRecipe, data)
    if not recipe.backbone:
        only = set(data) == {"compress"}
        raise RecipeError(
            f"{path} has {'compression steps only, and ' * only}no backbone",
            f"name one with --backbone{f', or compress a model: pocketzoo compress MODEL -r {path}' * only}",
        )
    return recipe


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that ships with pocketzoo.

    Raises:
        RecipeError: there is none; the hint is the nearest name.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    known = shipped()
    if str(name) not in known:
        raise RecipeError(f"there is no recipe {str(name)!r}", nearest(str(name), known))
    return known[str(name)]


def shipped() -> dict[str, Path]:
    """The recipes for ``run`` that ship with pocketzoo, by name: next to the package in a checkout, or installed."""
    checkout = Path(__file__).parents[2] / "recipes"
    folders = (Path(sysconfig.get_path("data")) / "share" / "pocketzoo" / "recipes", checkout)
    recipes = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return {name: path for name, path in sorted(recipes.items()) if "\nbackbone = " in path.read_text("utf8")}


def _change(data: dict[str, Any], path: list[str], text: str, name: str) -> None:
    try:
        value = parse_toml(f"value = {text}")["value"]
    except MalformedError:
        value = text
    for part in path[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise RecipeError(f"{part!r} of {name} is not a section", f"sections: {', '.join(SECTIONS)}")
    data[path[-1]] = value


def parameters(section: Any) -> dict[str, Any]:
    """A section as parameters of its function; what is not said has the function's default."""
    return {f.name: value for f in fields(section) if (value := getattr(section, f.name)) is not None}
