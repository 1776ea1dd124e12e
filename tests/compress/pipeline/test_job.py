"""What a run is made of, and its key: nothing that decides what it makes may be left out of that."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import rehearsal
from torch import nn

import pocketzoo.compress as package
from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline import job as module
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.pipeline.job import VALIDATION, VERSIONS, Job, prepare
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.core.progress import Silent
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.bundles.manifest import FileEntry, Manifest
from pocketzoo.zoo.catalog.dataset import Dataset, Groups, Split
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import as_processor, describe_config
from pocketzoo.zoo.models.build import load_module


@pytest.fixture(scope="module")
def few() -> Dataset:
    digits = load_data("digits")
    cut = {name: Split(s.samples[:40], s.targets[:40]) for name, s in digits.splits.items()}
    return replace(digits, name="few", splits=cut)


@pytest.fixture(scope="module")
def prepared(small, small_registry, few):
    """``prepare`` with one thing or another changed."""

    def make(model=small.path, **changes) -> Job:
        given = {"data": few, "steps": [PruneConfig()], "samples": 8, "registry": small_registry}
        return rehearsal.prepared(model, **{**given, **changes})

    return make


def test_a_graph_is_calibrated_on_one_text_at_a_time(prepared):
    """A batch of texts is filled up to its longest; a device gives them one by one."""
    job = prepared(steps=[Int8Config()])
    assert job.graph_samples is job.samples
    reads = TextSpec(vocabulary=9, pad=0, max_length=8)
    of_texts = replace(job, processor=as_processor(reads))
    assert of_texts.graph_samples.batches.size == 1
    assert of_texts.graph_samples.batches.split is job.samples.batches.split


# -- the key


def test_every_argument_that_decides_what_is_made_is_in_the_key(prepared, small, few, tmp_path):
    """All arguments but those named last, so that a new one has to be put somewhere."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('accept = true\n[[step]]\nkind = "prune"\n')
    pieces = tmp_path / "few.npz"  # undivided, so that the seed divides it
    train = few.split("train")
    np.savez(pieces, x=train.samples, y=train.targets)
    changes = {
        "model": {"model": small.graph(""), "steps": [Int8Config()]},
        "data": {"data": replace(few, splits={**few.splits, "val": few.split("train")})},
        "steps": {"steps": [PruneConfig(), Int8Config()]},
        "recipe": {"recipe": recipe, "steps": ()},  # the same step; what differs is what it accepts
        "targets": {"targets": ("cpu", "openvino")},
        "samples": {"samples": 9},
        "max_drop": {"max_drop": 0.01},
        "min_sqnr": {"steps": [Int8Config()], "min_sqnr": 20.0},
        "keep_slower": {"keep_slower": True},
        "accept": {"accept": True},
        "outputs": {"outputs": ("logits",)},
        "seed": {"data": pieces, "seed": 1},
        "skip_bad": {"skip_bad": True},
    }
    assert set(changes) == {"model", "data", *(f.name for f in fields(CompressSettings))} - {"force"}
    keys = {name: prepared(**change).key for name, change in changes.items()}
    keys["nothing"], keys["int8 alone"] = prepared().key, prepared(steps=[Int8Config()]).key
    keys["the pieces, seed 0"] = prepared(data=pieces).key
    keys["divided by another seed"] = prepared(data=replace(few, seed=1)).key  # which the record says
    apart = Groups(np.arange(len(train)) // 4, "folder")
    keys["other sources"] = prepared(
        data=replace(few, splits={n: replace(s, groups=apart.take(np.arange(len(s)))) for n, s in few.splits.items()})
    ).key
    keys["targets in another order"] = prepared(targets=("openvino", "cpu")).key
    del keys["recipe"]
    assert prepared(recipe=recipe, steps=()).key == keys["accept"]
    assert len(set(keys.values())) == len(keys), keys
    assert keys["nothing"] == prepared().key
    assert keys["nothing"] == prepared(progress=Silent()).key


OTHER = {  # a value that a field does not have by itself, where the rule below finds none
    PruneConfig: {"macs": 0.5, "parameters": 0.5, "latency": 0.5, "granularity": "weight", "scope": "uniform"},
    LowRankConfig: {"parameters": 0.5, "energy": 0.5, "rank_fraction": 0.5},
    DistillConfig: {},
    Int8Config: {"ranges": "mse", "activations": "static", "min_sqnr": 20.0, "max_drop": 0.1},
}
BASE = {PruneConfig: PruneConfig(), LowRankConfig: LowRankConfig(energy=0.9), DistillConfig: DistillConfig()}
BASE[Int8Config] = Int8Config()


def another(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value * 0.9
    if isinstance(value, int):
        return value + 1
    return {(): ("0",), None: 4, "": "2:4"}[value]


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_every_field_of_a_step_is_in_the_key(kind, prepared):
    base = BASE[kind]
    keys = {}
    for field in fields(kind):
        here = OTHER[kind]
        change = {field.name: here[field.name] if field.name in here else another(getattr(base, field.name))}
        if kind is LowRankConfig and field.name in ("parameters", "rank_fraction"):
            change["energy"] = None
        if field.name == "pattern":
            change["granularity"] = "weight"
        keys[field.name] = prepared(steps=[replace(base, **change)]).key
    keys["nothing"] = prepared(steps=[base]).key
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("package", VERSIONS)
def test_other_versions_make_another_run(package, prepared, monkeypatch):
    before, version = prepared().key, module.version_of_first
    monkeypatch.setattr(module, "version_of_first", lambda name: "0.0" if name == package else version(name))
    assert prepared().key != before


NOT_MADE_OF = {
    "created",
    "pocketzoo",
    "name",
    "measurements",
    "metrics",
    "layers",
    "format",
}  # said of it, no more


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Manifest)} - NOT_MADE_OF))
def test_every_fact_of_the_source_that_goes_into_what_is_made_is_in_the_key(name, prepared):
    """One graph, imported once with the numbers that images are normalized by and once without, is two models."""
    job = prepared()
    manifest = job.source.manifest
    step = {"kind": "distill", "config": {}, "plan": {}}
    other = {
        "model": replace(manifest.model, cut="stage1"),
        "processor": describe_config(replace(manifest.input, mean=(0.25,))),
        "labels": tuple(reversed(manifest.labels)),
        "data_columns": {"text": "review", "labels": ["stars"]},
        "license": "MIT",
        "parameters": manifest.parameters + 1,
        "macs": manifest.macs + 1,
        "counted_at": {"input": (1, 9)},
        "one_by_one": True,
        "signature": {"inputs": ()},
        "driver": "dual",
        "task": "other",
        "tag": "other",
        "task_provider": "acme 1.0",
        "decoder": {"name": "other"},
        "returns": "embedding",
        "generation": {"start": 0},
        "provenance": {"data": {"name": "elsewhere"}},
        "steps": (step,),
        "files": {**manifest.files, "model.onnx": FileEntry(sha256="0" * 64, size=3)},
    }
    if name == "rejected":  # what another run rejected is forgotten when this one begins
        assert replace(job, source=replace(job.source, manifest=replace(manifest, rejected=(step,)))).key == job.key
        return
    changed = replace(manifest, **{name: other[name]})
    assert to_plain(changed) != to_plain(manifest)
    assert replace(job, source=replace(job.source, manifest=changed)).key != job.key


@pytest.mark.parametrize("name", sorted(NOT_MADE_OF - {"format"}))
def test_what_is_only_said_of_the_source_does_not_make_another_run(name, prepared):
    """A registered model is written to a bundle of its own when it is first asked for, at some time or other."""
    job = prepared()
    other = {"created": "2000-01-01", "pocketzoo": "0.0", "name": "other", "measurements": ({"batch": 1},)}
    changed = replace(job.source.manifest, **{name: other.get(name, {"x": 1})})
    assert replace(job, source=replace(job.source, manifest=changed)).key == job.key


# -- what it takes


def test_a_budget_is_held_on_more_samples_than_calibrate(prepared):
    """The error of a share is that of the samples it is counted on."""
    assert (prepared().samples.batches.limit, prepared().validation.limit) == (8, 8)
    held = prepared(max_drop=0.01)
    assert (held.samples.batches.limit, held.validation.limit, held.tests.limit) == (8, VALIDATION, None)


@pytest.mark.parametrize(
    ("changes", "kind", "message", "hint"),
    [
        ({"targets": ()}, RecipeError, "no target is given", "cpu"),
        ({"samples": 0}, DataError, "0 samples cannot calibrate", "one or more"),
        ({"steps": ()}, RecipeError, "no steps are given", "--prune"),
        ({"steps": [object()]}, RecipeError, "no compressor is configured by object", "registered"),
        ({"steps": [Int8Config(), PruneConfig()]}, RecipeError, "int8 is not the last step", "first"),
        ({"steps": [Int8Config(), Int8Config()]}, RecipeError, "two steps work on the graph: int8 and int8", "one"),
        (
            {"min_sqnr": 20.0},
            RecipeError,
            "min_sqnr needs a step whose config takes it, such as int8, and there is none",
            "--int8",
        ),
        ({"max_drop": 1.0}, RecipeError, "max_drop cannot be 1.0", "below 1"),
        ({"max_drop": -0.01}, RecipeError, "max_drop cannot be -0.01", "at least 0"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_long_begins(changes, kind, message, hint, prepared, refused):
    with refused(kind, message, hint=hint):
        prepared(**changes)


def test_the_ends_of_what_a_budget_may_be(prepared):
    assert [prepared(max_drop=share).settings.max_drop for share in (0.0, 0.999)] == [0.0, 0.999]
    assert prepared(samples=1).samples.batches.limit == 1


def test_min_sqnr_is_that_of_the_int8_step_alone(prepared):
    job = prepared(steps=[PruneConfig(), Int8Config(ranges="mse")], min_sqnr=21.0)
    assert [config for _, config in job.configs] == [PruneConfig(), Int8Config(ranges="mse", min_sqnr=21.0)]
    kept = prepared(steps=[Int8Config(min_sqnr=30.0)])
    assert kept.configs[0][1].min_sqnr == 30.0


@pytest.mark.usefixtures("untimed")
def test_what_is_int8_already_is_refused(small, few, small_registry, prepared, tmp_path, refused):
    given = {"data": few, "steps": [Int8Config()], "samples": 8, "keep_slower": True, "accept": True}
    done = compress(small.path, tmp_path / "out", **given, registry=small_registry)
    for step in (PruneConfig(), Int8Config()):
        with refused(RecipeError, "out is already int8", hint="made from"):
            prepared(model=done.path, steps=[step])


def test_the_record_of_the_data_counts_what_was_read(prepared, photos, tmp_path):
    path: Path = photos(tmp_path / "digits", dict.fromkeys("0123456789", 6))
    job = prepared(data=path, skip_bad=True, samples=5)
    job.samples.batches.skipped.names.add("a")
    record = job.describe()
    assert (record["data"], record["seed"], record["sha256"]) == ("digits", 0, job.dataset.digest())
    assert (record["samples"], record["skipped"]) == (4, 1)


def test_what_is_made_is_judged_on_validation_samples_and_else_on_those_of_calibration(prepared, small, few):
    for data, split in ((few, "val"), (replace(few, splits={**few.splits, "val": few.split("val").take([])}), "train")):
        job = prepared(data=data)
        assert job.judge is job.judge
        score = job.judge.score(small.graph(""))
        assert (score.samples, score.agreement) == (8, 1.0)
        assert job.judge.reference == artifact_of(job.source)
        assert job.judge.samples.split is data.split(split)


# Who may look a name up: what is called to prepare a run, and the reader of recipes, which is called by that.
LOOKING_UP = {"job._sources",
    "compress_model.compress", "compress_model.compress_with", "compress_model.dry_run", "job.prepare",
    "job._with_recipe", "job._structure", "step_lookup.compressors_of", "step_lookup._named", "step_lookup._of_type",
    "no_data.without_data", "recipe.read_recipe", "recipe.read_steps", "recipe._step",
}  # fmt: skip


def test_nothing_takes_a_registry_after_prepare():
    """Neither as an argument, nor in the data that is passed on, nor from those of this environment."""
    takers, holders = set(), []
    for path in sorted(Path(package.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                said = " ".join(f"{a.arg} {ast.unparse(a.annotation) if a.annotation else ''}" for a in arguments)
                if re.search(r"registry|Registry|resolver|Resolver", said):
                    takers.add(f"{path.stem}.{node.name}")
            elif (isinstance(node, ast.AnnAssign) and re.search("Registry|Resolver", ast.unparse(node.annotation))) or (
                isinstance(node, ast.Call) and "default_registry" in ast.unparse(node.func)
            ):
                holders.append(f"{path.stem}: {ast.unparse(node)}")
    assert takers == LOOKING_UP
    assert holders == []
    hints = get_type_hints(Job, localns={"nn": nn})
    assert not {name for name, hint in hints.items() if re.search("Registry|Resolver", str(hint))}


def test_a_job_has_a_structure_where_a_step_needs_a_module_and_none_for_steps_on_the_graph(small, small_registry):
    given = {"data": "digits", "registry": small_registry}
    on_graph = prepare(small.path, CompressSettings(steps=(Int8Config(),), samples=8), **given)
    assert on_graph.structure is None
    assert not on_graph.lacks_graphs
    job = prepare(small.path, CompressSettings(steps=(PruneConfig(),), samples=8), **given)
    assert job.structure is not None
    assert set(job.structure.compressors) == {"prune"}
    assert job.load_module(job.source).state_dict().keys() == load_module(small, small_registry).state_dict().keys()
    assert not job.lacks_graphs


@pytest.mark.parametrize(("steps", "more"), [([Int8Config()], set()), ([PruneConfig()], {"backbone", "head"})])
def test_the_code_of_all_that_takes_part_is_in_the_key(small, small_registry, monkeypatch, steps, more):
    asked = []
    spied = "pocketzoo.compress.pipeline.job.plugin_sources"
    monkeypatch.setattr(spied, lambda registry, *entries: asked.extend(entries) or [])
    settings = CompressSettings(steps=tuple(steps), samples=8)
    prepare(small.path, settings, data="digits", registry=small_registry)
    assert {entry.kind for entry in asked} == {"compressor", "target", "processor", "task", "decoder"} | more
