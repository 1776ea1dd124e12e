"""The arguments of ``compress`` are written out once: its settings have all of them, and everything else follows."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

import pocketzoo
from pocketzoo.cli import fit_eval_compress
from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline import compress_model
from pocketzoo.compress.pipeline.compress_model import compress, compress_with, dry_run
from pocketzoo.compress.pipeline.job import NOT_IN_KEY, prepare
from pocketzoo.compress.pipeline.recipe import CompressSection
from pocketzoo.compress.pipeline.settings import DEFAULTS, CompressSettings, Limits
from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.catalog.compressor import Step

PLACES = {"model", "out", "data"}  # what is compressed, where to, on what
ROUND = {"registry", "progress"}  # where names are looked up, and who is told
NAMES = {field.name for field in fields(CompressSettings)}
OTHERS = {
    "targets": ("cpu", "tensorrt"), "samples": 9, "max_drop": 0.25, "min_sqnr": 20.0, "keep_slower": True,
    "accept": True, "steps": (PruneConfig(ratio=0.25), Int8Config()), "recipe": None, "seed": 3, "skip_bad": True,
    "force": True, "outputs": ("logits",),
}  # fmt: skip


def test_the_signature_of_compress_is_the_settings():
    parameters = inspect.signature(compress).parameters
    assert set(parameters) - PLACES - ROUND == NAMES
    assert {name: parameters[name].default for name in NAMES} == {name: getattr(DEFAULTS, name) for name in NAMES}
    kinds = {name: parameters[name].kind for name in NAMES}
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("function", [compress_with, dry_run, prepare])
def test_whatever_else_takes_them_takes_them_whole(function):
    assert not NAMES & set(inspect.signature(function).parameters)
    assert "settings" in inspect.signature(function).parameters


def test_compress_passes_every_argument_on(monkeypatch):
    passed = {}
    monkeypatch.setattr(compress_model, "compress_with", lambda model, out, settings, **more: passed.update(s=settings))
    given = {**OTHERS, "recipe": "steps.toml"}
    assert set(given) == NAMES
    pocketzoo.compress("model", "out", data="digits", **given)
    assert {name: getattr(passed["s"], name) for name in NAMES} == given
    pocketzoo.compress("model", "out", data="digits")
    assert passed["s"] == DEFAULTS


def test_the_command_has_an_option_for_each():
    """Steps have one each kind."""
    options = {parameter.name for parameter in fit_eval_compress.compress.params}
    assert options >= NAMES - {"steps"}
    defaults = {p.name: p.default for p in fit_eval_compress.compress.params if p.name in NAMES}
    assert {n: defaults[n] for n in ("targets", "samples", "seed")} == {
        n: getattr(DEFAULTS, n) for n in ("targets", "samples", "seed")
    }
    tree = ast.parse(Path(fit_eval_compress.__file__).read_text("utf8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "CompressSettings"]
    assert [{keyword.arg for keyword in call.keywords} for call in calls] == [NAMES]


def test_a_recipe_for_the_whole_job_has_its_own_by_the_same_names():
    own = {field.name: field.default for field in fields(CompressSection)}
    assert set(own) - {field.name for field in fields(Limits)} == {"step"}
    assert {name: own[name] for name in own.keys() & NAMES} == {f.name: f.default for f in fields(Limits)}


@pytest.mark.parametrize("name", sorted(NAMES - {"recipe"}))
def test_every_setting_but_force_is_in_the_key_of_a_run(name, small, small_registry):
    job = prepare(
        small.path, CompressSettings(steps=(PruneConfig(),), samples=8), data="digits", registry=small_registry
    )
    if name == "steps":
        configs = tuple((compressor, replace(config, ratio=0.25)) for compressor, config in job.configs)
        other = replace(job, configs=configs)
    elif name == "targets":
        other = replace(job, targets=(small_registry.get("target", "tensorrt"),))
    else:
        other = replace(job, settings=replace(job.settings, **{name: OTHERS[name]}))
    assert (other.key == job.key) == (name in NOT_IN_KEY)
    assert NOT_IN_KEY == ("force",)


def test_a_recipe_is_the_same_run_as_what_it_says(small, small_registry, tmp_path):
    """Neither its name nor where it lies decides what is made; ``min_sqnr`` is the int8 step's."""
    recipe = tmp_path / "steps.toml"
    recipe.write_text('accept = true\n[[step]]\nkind = "int8"\n')
    given = {"data": "digits", "registry": small_registry}
    read = prepare(small.path, CompressSettings(recipe=recipe, samples=8, min_sqnr=20.0), **given)
    step = Step("int8", Int8Config(min_sqnr=20.0))
    said = prepare(small.path, CompressSettings(steps=(step,), samples=8, accept=True, min_sqnr=20.0), **given)
    assert read.configs == said.configs
    assert read.key == said.key
    assert read.settings.recipe is None


def test_what_a_recipe_says_holds_where_the_caller_says_nothing(small, small_registry, tmp_path):
    recipe = tmp_path / "job.toml"
    section = 'targets = ["cpu", "tensorrt"]\nsamples = 9\nmax_drop = 0.25\nmin_sqnr = 20.0\nkeep_slower = true\n'
    recipe.write_text(
        f'version = 1\n[compress]\n{section}accept = true\noutputs = ["logits"]\nstep = [{{ kind = "int8" }}]\n'
    )
    given = {"data": "digits", "registry": small_registry}
    read = prepare(small.path, CompressSettings(recipe=recipe), **given)
    assert {f.name: getattr(read.settings, f.name) for f in fields(Limits)} == {
        f.name: OTHERS[f.name] for f in fields(Limits)
    }
    assert [config for _, config in read.configs] == [Int8Config(min_sqnr=20.0)]
    assert [target.name for target in read.targets] == ["cpu", "tensorrt"]
    own = CompressSettings(recipe=recipe, targets=("tensorrt",), samples=7, max_drop=0.5, min_sqnr=30.0)
    said = prepare(small.path, own, **given)
    assert (said.settings.targets, said.settings.samples, said.settings.max_drop) == (("tensorrt",), 7, 0.5)
    assert [config for _, config in said.configs] == [Int8Config(min_sqnr=30.0)]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (RecipeError, {"targets": ()}),
        (DataError, {"samples": 0}),
        (RecipeError, {"max_drop": 1.0}),
        (RecipeError, {"max_drop": -0.1}),
    ],
)
@pytest.mark.parametrize("settings", [CompressSettings, CompressSection])
def test_what_cannot_be_asked_is_refused_at_once(kind, changes, settings, refused):
    more = {"step": ()} if settings is CompressSection else {}
    with refused(kind, "no target" if "targets" in changes else next(iter(changes.values()))):
        settings(**changes, **more)


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.samples = 1
