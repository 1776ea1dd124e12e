"""Read a recipe (TOML), strictly: a job with a section for each function that is to run, or steps of compression alone.

There is one form, and ``version`` says which it is. ``[[step]]`` and ``accept`` at the top are short for those of
``[compress]``: a list of steps is the smallest job. A recipe without a version is one of before there were versions,
when steps at the top and sections were two forms; both mean the same now as they did then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.settings import Limits
from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.reading.documents import MalformedError, read_toml
from pocketzoo.core.renamed import warn_renamed
from pocketzoo.core.typed import from_plain
from pocketzoo.core.version import __version__
from pocketzoo.zoo.catalog.compressor import Step
from pocketzoo.zoo.catalog.registry import Registry

VERSION = 1  # of the form
SHORT = ("step", "accept")  # at the top they are those of [compress]


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
    """A job. A section that is left out is not run; the smallest job has steps of ``compress`` alone, and no backbone.

    Without ``fit`` and ``agent`` the pretrained model is taken as it is.
    """

    summary: str = ""
    backbone: str = ""  # "" where the caller says which model; ``run`` needs one
    data: str = ""  # what --data takes; empty: what the recipe makes itself, else the user names it
    seed: int = 0
    skip_bad: bool = False  # leave out samples that cannot be read
    group_by: str = ""  # what --group-by takes; "": near-duplicates are of one source
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


def load_recipe(path: Path) -> dict[str, Any]:
    """What a file says, as the fields of ``RunRecipe``: its version checked, its steps under ``compress``.

    Raises:
        RecipeError: the file is missing, not valid TOML, of a version that this pocketzoo does not read, or has an
            unknown table or steps that are none.
    """
    try:
        data = read_toml(path)
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}", "check the path") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path} is a folder", "name the recipe's file") from error
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}", "check the path") from error
    except MalformedError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}", "see docs/recipes.md for the form") from error
    _check_version(data.pop("version", VERSION), path)
    known = SHORT if "step" in data else (*(f.name for f in fields(RunRecipe)), *SHORT)
    for key in data:
        if key not in (*known, *(f.name for f in fields(RunRecipe))):
            raise RecipeError(f"{path} has an unknown table {key!r}", nearest(key, ["version", *known]))
    short = {key: data.pop(key) for key in SHORT if key in data}
    if not isinstance(short.get("accept", False), bool):
        raise RecipeError(f"accept of {path} cannot be {short['accept']!r}", "write accept = true, or leave it out")
    if short and "compress" in data:
        raise RecipeError(
            f"{path} has both [compress] and {' and '.join(short)} outside of it", "move that into [compress]"
        )
    if short:
        data["compress"] = {"step": [], **short}
    if isinstance(section := data.get("compress"), dict) and "step" in section:
        _check_tables(section["step"], str(path))
    return data


def _check_version(version: Any, path: Path) -> None:
    if type(version) is not int or version < 1:
        raise RecipeError(f"version of {path} cannot be {version!r}", f"write version = {VERSION}")
    if version > VERSION:
        raise RecipeError(
            f"{path} is a recipe of version {version}; pocketzoo {__version__} reads version {VERSION}",
            f"it needs a pocketzoo later than {__version__}: pip install --upgrade pocketzoo",
        )


def read_compress_section(path: Path) -> CompressSection:
    """What a recipe, of compression or of a whole job, says of ``compress``. All of the file has to be sound.

    Raises:
        RecipeError: as ``load_recipe``; a field is unknown or of a wrong type; there are no steps.
    """
    data = load_recipe(path)
    if not data.keys() & set(SECTIONS):
        _check_tables(None, str(path))
    section = from_plain(RunRecipe, data).compress
    if section is None:
        raise RecipeError(
            f"{path} has no section [compress]", f"add one: [[compress.step]] kind = 'int8'; or: pocketzoo run {path}"
        )
    return section


def read_recipe(path: Path, registry: Registry) -> tuple[Step, ...]:
    """The steps of a recipe, in order; of a whole job, those of its ``[compress]``.

    Each step is a table: ``kind`` names a registered compressor, the rest are its config's fields.

    Raises:
        RecipeError: as ``read_compress_section``, or a step has an unknown kind or field.
    """
    return read_steps(read_compress_section(path).step, str(path), registry)


def read_steps(steps: Any, name: str, registry: Registry) -> tuple[Step, ...]:
    """The steps that tables stand for; ``name`` is whose they are, for errors.

    Raises:
        RecipeError: there are none, or one has an unknown kind or field.
    """
    _check_tables(steps, name)
    return tuple(_step(dict(step), registry) for step in steps)


def _check_tables(steps: Any, name: str) -> None:
    if not isinstance(steps, list | tuple) or not steps:
        raise RecipeError(f"{name} has no steps", "add one: [[step]] kind = 'int8'")
    if not all(isinstance(step, dict) for step in steps):
        raise RecipeError(f"{name} has a step that is not a table", "write each as [[step]]")


def _step(step: dict[str, Any], registry: Registry) -> Step:
    kind = step.pop("kind", None)
    known = registry.entries("compressor")
    if kind == "heal" and kind not in known:
        kind = "distill"
        warn_renamed("heal", kind)
    if not isinstance(kind, str) or kind not in known:
        raise RecipeError(f"no step is of kind {kind!r}", registry.hint(nearest(str(kind), known), "compressor"))
    return Step(kind, from_plain(known[kind].spec.config, step))
