"""Recipes of whole workflows, read strictly: each section has the parameters of one function."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pocketzoo
from pocketzoo.compress.pipeline.settings import Limits
from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.typed import from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSection:
    """Parameters of ``fit``."""

    head: str = "linear"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    cut: str = ""
    input_size: tuple[int, int] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    unfreeze: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSection:
    """Parameters of ``fit_agent``. States it was in are what the sections after it calibrate and measure on."""

    environment: str
    head_options: Mapping[str, Any] = field(default_factory=dict)
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSection(Limits):
    """Parameters of ``compress``; a step is a table with its kind and the fields of its config."""

    step: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSection:
    """Parameters of ``export``, for one or more formats."""

    to: tuple[str, ...] = ("onnx",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSection:
    """Parameters of ``bench``."""

    batch_sizes: tuple[int, ...] = (1, 32)
    seconds: float = 0.5
    threads: int = 1
    memory: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaySection:
    """Parameters of ``play``, for the agent before and after it was compressed."""

    episodes: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSection:
    """Parameters of ``generate``, for the model before and after it was compressed."""

    prompts: tuple[str, ...]
    max_new_tokens: int = 64
    beams: int = 1
    length_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSection:
    """Parameters of ``predict``, for the first images or texts of the test split."""

    samples: int = 5
    top: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    """The whole job. A section that is left out is not run.

    Without ``fit`` and ``agent`` the pretrained model is taken as it is.
    """

    summary: str
    backbone: str
    data: str = ""  # what --data takes; empty: what the recipe makes itself, else the user names it
    seed: int = 0
    skip_bad: bool = False  # leave out samples that cannot be read
    agent: AgentSection | None = None
    fit: FitSection | None = None
    compress: CompressSection | None = None
    play: PlaySection | None = None
    generate: GenerateSection | None = None
    predict: PredictSection | None = None
    export: ExportSection | None = None
    bench: BenchSection | None = None

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in SECTIONS):
            raise RecipeError("the recipe has no section to run", f"add one of: {', '.join(SECTIONS)}")
        if self.agent is not None and self.fit is not None:
            raise RecipeError("the recipe has both [agent] and [fit]", "leave out one of them")
        if self.agent is not None and self.backbone != "mlp":
            raise RecipeError(f"an agent needs the mlp backbone, not {self.backbone!r}", 'set backbone = "mlp"')

    @property
    def own_data(self) -> str:
        """What is calibrated and measured on without other data; "" where the user has to name it."""
        if self.agent is not None:
            return "states the agent visited"
        return "its prompts" if self.generate is not None and self.fit is None else ""


SECTIONS = ("agent", "fit", "compress", "play", "generate", "predict", "export", "bench")  # in the order they run
OF_BACKBONE = ("cut", "input_size", "backbone_options")  # of fit: they mean nothing for another backbone


def read_run_recipe(path: Path, changes: Iterable[tuple[str, str]] = (), *, backbone: str | None = None) -> RunRecipe:
    """The recipe in a file, with ``changes`` to it: ("fit.epochs", "3"), read as TOML, else as text.

    Another ``backbone`` takes the fields of ``fit`` with it that are for the recipe's own: cut, size and options.

    Raises:
        RecipeError: there is no such file, it is not valid TOML, or has an unknown section or field.
    """
    try:
        data = tomllib.loads(path.read_text("utf8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}", "see docs/recipes.md for the form") from error
    if "backbone" not in data and "step" in data:
        raise RecipeError(f"{path} has compression steps only", f"use it with: pocketzoo compress MODEL -r {path}")
    if backbone is not None and backbone != data.get("backbone"):
        data["backbone"] = backbone
        data["fit"] = {k: v for k, v in data["fit"].items() if k not in OF_BACKBONE} if "fit" in data else None
    for name, text in changes:
        _change(data, name.split("."), text, name)
    return from_plain(RunRecipe, data)


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
    checkout = Path(pocketzoo.__file__).parent.parent / "recipes"
    folders = (Path(sysconfig.get_path("data")) / "share" / "pocketzoo" / "recipes", checkout)
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return {name: path for name, path in sorted(found.items()) if "\nbackbone = " in path.read_text("utf8")}


def _change(data: dict[str, Any], path: list[str], text: str, name: str) -> None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in path[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise RecipeError(f"{part!r} of {name} is not a section", f"sections: {', '.join(SECTIONS)}")
    data[path[-1]] = value


def parameters(section: Any) -> dict[str, Any]:
    """A section as parameters of its function; what is not said has the function's default."""
    return {f.name: value for f in fields(section) if (value := getattr(section, f.name)) is not None}
