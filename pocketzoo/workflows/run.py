"""The ``run`` function: a recipe for a whole workflow, from training to the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.acceptance import worse
from pocketzoo.compress.pipeline.compress_model import compress_with
from pocketzoo.compress.pipeline.recipe import SECTIONS, AgentSection, CompressSection, RunRecipe, read_steps
from pocketzoo.compress.pipeline.settings import CompressSettings, Limits
from pocketzoo.core.errors import MissingDependencyError, RecipeError, RejectedError
from pocketzoo.core.keys import cache_key
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.deploy.export import export
from pocketzoo.deploy.export_forms import find_form
from pocketzoo.reports.report import report
from pocketzoo.train.agents.double_dqn import fit_agent
from pocketzoo.train.agents.settings import agent_settings
from pocketzoo.train.fit import fit
from pocketzoo.train.settings import with_settings
from pocketzoo.workflows.bench import bench
from pocketzoo.workflows.generate import Written, generate
from pocketzoo.workflows.play import Played, play
from pocketzoo.workflows.predict import Prediction, predict
from pocketzoo.workflows.run_recipe import parameters
from pocketzoo.workflows.run_state import RunState
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.bundles.measurement import Measurement
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Skipped, from_arrays
from pocketzoo.zoo.data.load_data import load_data, split_columns, with_columns
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.model_facts import model_facts
from pocketzoo.zoo.tasks.open_task import ModelTask, open_task, reading_of, task_of_head

MODELS = {"agent": "fitted", "fit": "fitted", "compress": "small"}  # the sections that write bundles, in order


@dataclass
class RunResults:
    """The results of a recipe run."""

    metrics: dict[str, Any] = field(default_factory=dict)  # of the fitted model
    plays: list[tuple[str, Played]] = field(default_factory=list)  # of each model, by its bundle's name
    written: list[tuple[str, list[Written]]] = field(default_factory=list)  # likewise
    predictions: list[Prediction] = field(default_factory=list)
    rows: list[Measurement] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)  # steps of compression that lose too much, and why
    places: dict[str, Path] = field(default_factory=dict)  # what lies where


def planned_sections(
    recipe: RunRecipe, registry: Registry | Resolver | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections of a recipe that would run, with all their settings, checked without a model.

    Raises:
        RecipeError: a setting or a step that cannot be.
    """
    for name in SECTIONS:
        section = getattr(recipe, name)
        if section is None:
            continue
        asked = parameters(section)
        if name == "fit":
            single = {key: asked.pop(key, None) for key in ("epochs", "batch_size", "learning_rate", "unfreeze")}
            asked["training"] = to_plain(with_settings(asked["training"], **single, seed=recipe.seed))
        if name == "agent":
            asked["training"] = to_plain(agent_settings(asked["training"], seed=recipe.seed))
        if name == "compress":
            asked = {"step": asked.pop("step"), **asked}
            read_steps(section.step, "the recipe", Resolver.of(registry).registry)
        yield name, to_plain(asked)


@survives_exit
def run(
    recipe: RunRecipe,
    out: str | Path,
    *,
    data: str | Path | Dataset | None = None,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> RunResults:
    """Run the sections of a recipe in order; everything is written below ``out``.

    ``data`` overrides the recipe's. Without either, an agent uses the states it visited, and a recipe that only
    generates text its prompts. An interrupted run resumes when the same call is made again: finished sections are not
    repeated. ``force`` replaces models there of other settings.

    Raises:
        BundleError: ``out`` is not a run of a recipe, or has finished models of other settings, data or versions.
        RecipeError: a setting or a step that cannot be; the recipe has no data and none is given.
        PocketzooError: whatever the functions raise that it names.
    """
    resolver = Resolver.of(registry)
    list(planned_sections(recipe, resolver))
    out = Path(out)
    state = RunState(out)
    dataset = data or recipe.data
    if not dataset and recipe.generate is not None and recipe.own_data:
        dataset = from_arrays("prompts", (), list(recipe.generate.prompts), None, recipe.seed)
    if not dataset and not recipe.own_data:
        raise RecipeError("the recipe needs data", "name it: --data FOLDER")
    if dataset and not isinstance(dataset, Dataset):
        skipped = Skipped() if recipe.skip_bad else None
        reading = reading_of(_task_of(recipe, resolver))
        given = {**reading, "skipped": skipped, "registry": resolver.registry, "progress": progress}
        if recipe.group_by and not split_columns(dataset)[1].group:
            dataset = with_columns(str(dataset), None, None, recipe.group_by)
        dataset = load_data(dataset, seed=recipe.seed, **given)
    return _Runner(recipe, state, dataset or None, force, resolver, progress).run()


def _task_of(recipe: RunRecipe, resolver: Resolver) -> ModelTask | None:
    """The task that the recipe's data is read for: of the head that it fits, or of the model that it names."""
    if recipe.fit is None:
        return (
            None
            if recipe.own_data
            else open_task(open_model(recipe.backbone, registry=resolver).manifest, resolver.registry)
        )
    head, backbone = resolver.spec("head", recipe.fit.head), resolver.spec("backbone", recipe.backbone)
    return task_of_head(head, backbone.input, (), resolver.registry)


def _content_of(backbone: str, resolver: Resolver, progress: Progress) -> Path | str | None:
    """What says by its content what the model is that a recipe begins with: a file, or a commit; None by its name."""
    if backbone.startswith("hf:"):
        return str(resolver.pinned(backbone, progress))
    path = Path(backbone.removeprefix("file:"))
    manifest = path / MANIFEST
    return manifest if manifest.is_file() else path if path.is_file() else None


def _sources(recipe: RunRecipe, registry: Registry) -> list[str]:
    """The code of the plugins whose names a recipe says, and of all that read samples, decode, or load from the Hub."""
    said = set(_texts(to_plain(recipe)))
    named = [entry for kind in KINDS for name, entry in registry.entries(kind).items() if name in said]
    unnamed = ["processor", "task", "decoder", *["loader"] * recipe.backbone.startswith("hf:")]  # the models say which
    return plugin_sources(registry, *named, *(each for kind in unnamed for each in registry.entries(kind).values()))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from (name, *_texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


class _Runner:
    def __init__(
        self,
        recipe: RunRecipe,
        state: RunState,
        data: Dataset | None,
        force: bool,
        resolver: Resolver,
        progress: Progress,
    ) -> None:
        self.recipe, self.state, self.out, self.data = recipe, state, state.out, data
        self.common: dict[str, Any] = {"registry": resolver, "progress": progress}
        self.resolver, self.say = resolver, progress.say
        digest = "" if data is None else data.digest()
        facts = {"backbone": recipe.backbone, "seed": recipe.seed, "skip_bad": recipe.skip_bad, "data": digest}
        facts["groups"] = None if data is None else {name: split.groups for name, split in data.splits.items()}
        content = _content_of(recipe.backbone, resolver, progress)
        key = cache_key("run", **facts, content=content, sources=_sources(recipe, resolver.registry))
        self.keys: dict[str, str] = {}  # of a section that makes a model: what it is asked for, and on what
        for name in MODELS:
            if (section := getattr(recipe, name)) is not None:
                self.keys[name] = key = cache_key("section", before=key, section=to_plain(section))
        self.force = force
        self.results = RunResults()

    @property
    def reading(self) -> dict[str, Any]:
        assert self.data is not None
        return {"data": self.data, "seed": self.recipe.seed, "skip_bad": self.recipe.skip_bad}

    def run(self) -> RunResults:
        recipe, results = self.recipe, self.results
        for name in self.keys:
            if not self._is_finished(name):
                check_place(self.out / MODELS[name], force=self._may_replace(name))
        self.state.write()
        model: str | Path = recipe.backbone
        models: list[str | Path] = [model]
        if recipe.agent is not None or recipe.fit is not None:
            model = self.out / "fitted"
            models = [model]
            if recipe.agent is not None:
                self._agent(recipe.agent, model)
            elif recipe.fit is not None and self._is_new("fit"):
                force = self._begin("fit")
                asked = parameters(recipe.fit)
                fit(recipe.backbone, model, force=force, **self.reading, **asked, **self.common)
                self._finish("fit")
            results.metrics = dict(read_bundle(model).manifest.metrics)
            results.places["fitted model"] = model
            numbers = {k: v for k, v in results.metrics.items() if isinstance(v, int | float)}
            self.say("fitted: " + ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in numbers.items()))
        if recipe.compress is not None:
            small = self.out / "small"
            if self._is_new("compress"):
                force = self._begin("compress")
                settings = self._settings(recipe.compress, force)
                try:
                    compress_with(model, small, settings, data=self.reading["data"], **self.common)
                    self._finish("compress")
                except RejectedError as error:  # what is fitted is still of use, and the user is told
                    self.say(f"{error.message}; continuing without it ({error.hint})")
                    results.rejected.append(error.message)
            if not results.rejected:
                results.rejected += [f"{no.compressor}: {no.why}" for no in worse(read_bundle(small).manifest)]
                model = small
                models.append(small)
                results.places["compressed model"] = small
        for each in models:
            if recipe.play is not None:
                results.plays.append(
                    (self._name(each), play(each, seed=recipe.seed, **parameters(recipe.play), **self.common))
                )
            if recipe.generate is not None:
                results.written.append((self._name(each), generate(each, **parameters(recipe.generate), **self.common)))
        if recipe.predict is not None:
            results.predictions = self._predict(model)
        if recipe.export is not None:
            self._export(model)
        if recipe.bench is not None:
            results.rows = bench(
                models, save=True, force=self.force, **self.reading, **parameters(recipe.bench), **self.common
            )
            if isinstance(models[-1], Path):  # a registered model keeps no measurements
                reading = self.reading if self._labeled(models[-1]) else {}
                results.places["report"] = report(models[-1:], self.out / "report.html", **reading, **self.common)
        return results

    def _agent(self, section: AgentSection, model: Path) -> None:
        states = self.out / "states.npz"
        if self._is_new("agent"):
            force = self._begin("agent")
            asked = parameters(section)
            fit_agent(out=model, states=states, seed=self.recipe.seed, force=force, **asked, **self.common)
            self._finish("agent")
        if self.data is None:
            self.data = load_data(states, seed=self.recipe.seed, registry=self.resolver.registry)

    def _settings(self, section: CompressSection, force: bool) -> CompressSettings:
        limits = {f.name: getattr(section, f.name) for f in fields(Limits)}
        steps = read_steps(section.step, "the recipe", self.resolver.registry)
        return CompressSettings(
            **limits, steps=steps, seed=self.recipe.seed, skip_bad=self.recipe.skip_bad, force=force
        )

    def _name(self, model: str | Path) -> str:
        return model.name if isinstance(model, Path) else model

    def _labeled(self, model: str | Path) -> bool:
        """Whether the data has targets that the model's answers can be held against."""
        bundle = open_model(model, registry=self.resolver)
        task = open_task(bundle.manifest, self.resolver.registry)
        assert self.data is not None
        if task is None:
            return False
        facts = model_facts(bundle, processor_of(bundle, self.resolver.registry), self.resolver.registry)
        return task.prepared(self.data, facts).split("test").targets is not None

    def _predict(self, model: str | Path) -> list[Prediction]:
        assert self.recipe.predict is not None
        assert self.data is not None
        samples = list(islice(self.data.split("test").samples, self.recipe.predict.samples))
        files = [sample for sample in samples if isinstance(sample, str | Path)]
        rows = [sample for sample in samples if not isinstance(sample, str | Path)]
        return predict(model, files, rows=rows, top=self.recipe.predict.top, **self.common)

    def _export(self, model: str | Path) -> None:
        assert self.recipe.export is not None
        for to in self.recipe.export.to:
            out = self.out / f"{to}{find_form(to, self.resolver.registry)[0].suffix}"
            if out.is_dir():  # of the run before; export itself replaces no folder
                shutil.rmtree(out)
            try:
                self.results.places[to] = export(model, to=to, out=out, **self.common)
            except MissingDependencyError as error:  # TensorRT has no build for some platforms; the rest still runs
                self.say(f"no {to}: {error.message} ({error.hint})")

    def _is_new(self, name: str) -> bool:
        """Whether a section is to be run: not where it finished before, asked for the same on the same."""
        if not self._is_finished(name):
            return True
        self.say(f"{name}: already finished, in {self.out / MODELS[name]}")
        return False

    def _is_finished(self, name: str) -> bool:
        return self.state.has_finished(name, self.keys[name]) and (self.out / MODELS[name]).exists()

    def _may_replace(self, name: str) -> bool:
        """Whether a section may replace a finished bundle: told so, now or by the run it continues with."""
        return self.force or self.state.has_begun(name, self.keys[name])

    def _begin(self, name: str) -> bool:
        """Note that a section begins; whether it may replace a bundle."""
        force = self._may_replace(name)
        self.state.begin(name, self.keys[name])
        return force

    def _finish(self, name: str) -> None:
        self.state.finish(name, self.keys[name])
