"""Check and resolve everything a compression run needs (model, data, steps, targets) before it starts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.pipeline.graph_scores import Judge, judged_outputs
from pocketzoo.compress.pipeline.recipe import read_compress_section, read_steps
from pocketzoo.compress.pipeline.settings import DEFAULTS, CompressSettings, Limits
from pocketzoo.compress.pipeline.step_lookup import compressors_of
from pocketzoo.compress.samples.no_data import check_without_data, is_none, without_data
from pocketzoo.core.arrays import Arrays, batch_size
from pocketzoo.core.errors import DataError, RecipeError, UnsupportedModelError
from pocketzoo.core.keys import cache_key
from pocketzoo.core.optional import version_of_first
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.artifacts.drivers import artifact_of, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.open_backend import timer_of
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.catalog.backend import GraphTimer
from pocketzoo.zoo.catalog.compressor import Compressor, GraphCompressor
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Groups, SplitName
from pocketzoo.zoo.catalog.described import provider
from pocketzoo.zoo.catalog.head_task import NO_ANSWERS, AnswerFacts
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.grouping.left_out import SourceCounts, groups_of, source_counts
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_entries, processor_of
from pocketzoo.zoo.data.read_once import Inputs
from pocketzoo.zoo.data.target_kinds import without_targets
from pocketzoo.zoo.graphs.foreign.refused_operators import say_refused
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver, Structure, is_graph_only, no_module
from pocketzoo.zoo.tasks.agreement import check_outputs
from pocketzoo.zoo.tasks.model_facts import model_facts
from pocketzoo.zoo.tasks.open_task import ModelTask, open_task, reading_of

if TYPE_CHECKING:
    from torch import nn

VERSIONS = ("pocketzoo", "torch", "onnx", "onnxruntime", "onnxscript", "numpy")  # that may change what a step makes
NOT_IN_KEY = ("force",)  # of the settings: it says what may be replaced, and nothing of what is made
# Of the source's manifest: said of it, and no part of what is made. A registered model is written anew now and then.
NOT_MADE_OF = ("created", "pocketzoo", "format", "name", "rejected", "metrics", "measurements", "layers")
SCORED = 64  # samples that calibrate, and are scored too
VALIDATION = 2000  # samples that a metric is held to a budget on: the paired error of 1% is then some 0.2%


@dataclass(frozen=True)
class Job:
    """A source, what is to be done to it, and the data to do it with.

    ``settings`` are those that were asked for, with what their recipe says in its place: ``configs`` are its steps.
    """

    source: Bundle
    settings: CompressSettings
    dataset: Dataset
    configs: tuple[tuple[Compressor, Any], ...]
    targets: tuple[TargetSpec, ...]
    processor: Processor
    samples: Inputs
    validation: Batches
    tests: Batches
    task: ModelTask | None  # of the source; None where nobody said what its outputs mean
    structure: Structure | None  # what modules are built with; None where no step needs one, or there is none
    providers: Mapping[str, str]  # of the compressors by name: who brings each, for the record
    sources: Sequence[str]  # of the plugins that bring steps, targets and modules: version and digest of each
    counts: SourceCounts  # of the samples that calibrate, and of those that judge
    timers: Mapping[str, GraphTimer]  # by target, of those whose graphs can be timed here as they will run
    lacks_graphs: bool  # whether the source can be given graphs that it has not, for a step on graphs to compress too
    progress: Progress

    @property
    def answers(self) -> AnswerFacts:
        """What the manifests of what is made say of what outputs mean; bundles of before said less."""
        return NO_ANSWERS if self.task is None else self.task.facts

    @property
    def target(self) -> TargetSpec:
        """The one that decides: channel multiples, latency, which layers stay in float."""
        return self.targets[0]

    @property
    def skipped(self) -> Skipped:
        """The samples that could not be read, once they were: by the reader, or of what was read of a split."""
        noted = [batches.skipped for batches in (self.samples.batches, self.validation, self.tests)]
        return Skipped({*self.dataset.skipped, *(name for each in noted if each is not None for name in each.names)})

    @property
    def graph_step(self) -> tuple[GraphCompressor[Any, Any], Any] | None:
        """The step that works on the graph, which those before it are timed after."""
        compressor, config = self.configs[-1]
        return (compressor, config) if isinstance(compressor, GraphCompressor) else None

    def form(self, compressor: str) -> str:
        """What a step of the source or of this run works on: "module", or "graph" for the last one alone."""
        return "graph" if self.graph_step is not None and self.graph_step[0].name == compressor else "module"

    @property
    def module_target(self) -> TargetSpec:
        """The target as steps on the module are to see it: which channels it likes hangs on what becomes of them."""
        if self.graph_step is None:
            return self.target
        compressor = self.graph_step[0]
        if compressor.module_target is not None:
            return compressor.module_target(self.target)
        multiple = None if compressor.channel_multiple is None else compressor.channel_multiple(self.target)
        return replace(self.target, channel_multiple=multiple) if multiple else self.target

    @cached_property
    def judge(self) -> Judge:
        """Of everything that is made, against the source: on validation samples, else on those of calibration."""
        return Judge(
            artifact_of(self.source),
            self.validation if len(self.validation.split) else self.samples.batches,
            task=self.task,
            held=self.settings.outputs,
            progress=self.progress,
        )

    @cached_property
    def calibration_judge(self) -> Judge:
        """The same on the first of the samples that calibrate, for what it says of the difference."""
        return Judge(
            artifact_of(self.source),
            replace(self.samples, limit=SCORED).labeled(),
            task=self.task,
            held=self.settings.outputs,
            label="validating on the calibration samples",
            progress=self.progress,
        )

    @cached_property
    def graph_samples(self) -> Inputs:
        """The samples as a device gives them to a graph: a text of a batch is filled up, one text is not."""
        if self.processor.lengths is None:
            return self.samples
        return Inputs.of(replace(self.samples.batches, size=1), self.samples.sources)

    @cached_property
    def sample(self) -> Arrays:
        """One sample, to time graphs with."""
        for batches in (self.validation, self.samples.batches):
            for x, _ in replace(batches, size=1, limit=1):
                return x
        raise DataError("there are no samples to calibrate on", "give a data set with a training split")

    def close(self) -> None:
        """Forget the samples that were read, and remove the file of those that memory did not hold."""
        for samples in (self.samples, self.graph_samples):
            samples.kept.close()

    def load_module(self, bundle: Bundle) -> nn.Module:
        """The module of the source, or of what a step made of it.

        Raises:
            UnsupportedModelError: the source came as an ONNX file.
        """
        from pocketzoo.zoo.models.build import module_of  # here, because a step on the graph needs no torch

        if self.structure is None:
            raise no_module(bundle)
        return module_of(bundle, self.structure)

    def check_tests(self) -> None:
        """Read a test sample, so that what does not fit is found before the work is done.

        Raises:
            DataError: there is none, or it does not fit.
        """
        if not any(batch_size(x, self.tests.axes) for x, _ in replace(self.tests, size=1, limit=1)):
            raise DataError("there are no samples to measure on", "give more data, or a split that is not empty")

    def describe(self) -> dict[str, Any]:
        """The data, for the record."""
        batches, skipped = self.samples.batches, self.skipped
        return {
            "data": self.dataset.name,
            "seed": self.dataset.seed,
            "sha256": self.digest,
            "samples": batches.samples - (0 if batches.skipped is None else len(batches.skipped.names)),
            "sources": self.counts.calibration,
            "left_out_sources": self.counts.left_out if self.counts.fair else 0,
            "grouped_by": self.counts.by,
            **({"synthetic": self.dataset.synthetic} if self.dataset.synthetic else {}),
            "skipped": len(skipped.names),
            **({"skipped_samples": skipped.listed()} if skipped.names else {}),
        }

    @cached_property
    def digest(self) -> str:
        """Of the data."""
        return self.dataset.digest()

    @property
    def key(self) -> str:
        """Digest of everything that decides what a run makes, so that nothing of another run is taken for its own."""
        source = to_plain(self.source.manifest)
        settings = {name: value for name, value in to_plain(self.settings).items() if name not in NOT_IN_KEY}
        # Steps with their kind, targets with all that is known of them.
        settings["steps"] = [(compressor.name, to_plain(config)) for compressor, config in self.configs]
        settings["targets"] = [to_plain(target) for target in self.targets]
        facts = {
            "source": {name: value for name, value in source.items() if name not in NOT_MADE_OF},
            "data": [self.digest, self.dataset.seed],
            "groups": self.samples.sources,
            "settings": settings,
            "sources": self.sources,
            "versions": [platform.python_version(), *map(version_of_first, VERSIONS)],
        }
        return cache_key("compression", **facts)


def prepare(
    model: str | Path,
    settings: CompressSettings = DEFAULTS,
    *,
    data: str | Path | Dataset,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Job:
    """Look everything up; see ``compress_model.compress`` for the settings and errors."""
    resolver = Resolver.of(registry)
    known = resolver.registry
    for name in settings.targets:  # before a file is read
        known.get("target", name)
    settings = _with_recipe(settings, known)
    pairs = _spread(compressors_of(settings.steps, known), settings.min_sqnr)
    if no_data := is_none(data):
        check_without_data(pairs, settings.max_drop)
    source = open_model(model, registry=resolver, progress=progress)
    _check_order(pairs, source)
    task = open_task(source.manifest, known)
    settings = _with_outputs(settings, source, task)
    targets = tuple(known.get("target", name) for name in settings.targets)
    say_refused(source.graphs("").values(), targets, progress)
    processor = processor_of(source, known)
    if no_data:
        dataset = without_data(
            source, processor, pairs, settings.samples, resolver, seed=settings.seed, progress=progress
        )
    else:
        dataset = load_data(
            data,
            seed=settings.seed,
            **reading_of(task),
            skipped=Skipped() if settings.skip_bad else None,
            reads=source.manifest.processor,
            fitted=source.manifest.data_columns,
            registry=known,
            progress=progress,
        )
    facts = model_facts(source, processor, known)
    dataset = without_targets(dataset) if task is None else task.prepared(dataset, facts)
    if settings.max_drop is not None and not len(dataset.split("val")):
        raise DataError(f"{dataset.name} has no validation samples, which max_drop needs", "give more data")

    most = VALIDATION if settings.max_drop is not None else settings.samples

    def batches(split: SplitName, limit: int | None = None) -> Batches:
        skipped = Skipped() if settings.skip_bad else None
        return Batches(dataset.split(split), processor, limit=limit, skipped=skipped)

    groups = groups_of(dataset.split("train"), dataset.split("val"), (settings.samples, most))
    lacks = any(compressor.form == "graph" for compressor, _ in pairs) and resolver.lacks_graphs(source)
    by_module = any(compressor.form == "module" for compressor, _ in pairs) or lacks
    modules = by_module and not is_graph_only(source)
    return Job(
        source=source,
        settings=settings,
        dataset=dataset,
        configs=pairs,
        targets=targets,
        processor=processor,
        samples=Inputs.of(batches("train", settings.samples), groups[0]),
        validation=batches("val", most),
        tests=batches("test"),
        counts=source_counts(*groups, _known(dataset)),
        task=task,
        providers={compressor.name: provider("compressor", compressor.name, known) for compressor, _ in pairs},
        structure=_structure(resolver, source, pairs) if modules else None,
        sources=_sources(resolver, source, modules, pairs, task, settings.targets),
        timers={target.name: timer for target in targets if (timer := timer_of(target, known)) is not None},
        lacks_graphs=lacks,
        progress=progress,
    )


def _known(dataset: Dataset) -> Groups | None:
    """The sources of the test samples, where all splits were told them together."""
    splits = [dataset.split(name) for name in SPLITS]
    return None if any(split.groups is None for split in splits) else splits[-1].groups


def _sources(
    resolver: Resolver,
    source: Bundle,
    modules: bool,
    pairs: Sequence[tuple[Compressor, Any]],
    task: ModelTask | None,
    targets: Sequence[str],
) -> list[str]:
    """The code that a run hangs on, as far as plugins bring it; that of the source's modules where they are built."""
    known = resolver.registry
    entries = [known.entry("compressor", compressor.name) for compressor, _ in pairs]
    entries += [known.entry("target", name) for name in targets]
    entries += processor_entries(source.manifest.processor, known)
    entries += [] if task is None else task.entries(known)
    if modules:
        named, model = resolver.with_sources(source), source.manifest.model
        entries += [named.entry("backbone", model.backbone), named.entry("head", model.head)]
    return plugin_sources(known, *entries)


def _structure(resolver: Resolver, source: Bundle, pairs: Sequence[tuple[Compressor, Any]]) -> Structure:
    """Of the source, and of what the steps make of it."""
    structure = resolver.structure(source)
    return replace(structure, compressors={**structure.compressors, **{c.name: c for c, _ in pairs}})


def _with_recipe(settings: CompressSettings, registry: Registry) -> CompressSettings:
    """The settings with what their recipe says where they do not: its steps first, and then theirs."""
    steps, said = settings.steps, dict[str, Any]()
    if settings.recipe:
        section = read_compress_section(Path(settings.recipe))
        steps = (*read_steps(section.step, str(settings.recipe), registry), *steps)
        limits = [f for f in fields(Limits) if getattr(settings, f.name) == f.default]
        said = {f.name: getattr(section, f.name) for f in limits}
    return replace(settings, steps=steps, recipe=None, **said)


def _spread(pairs: Sequence[tuple[Compressor, Any]], min_sqnr: float | None) -> tuple[tuple[Compressor, Any], ...]:
    """The steps with ``min_sqnr`` in the configs that take it.

    Raises:
        RecipeError: none does.
    """
    if min_sqnr is None or not pairs:
        return tuple(pairs)
    takes = [name for compressor, _ in pairs if "min_sqnr" in compressor.budgets for name in [compressor.name]]
    if not takes:
        raise RecipeError(
            "min_sqnr needs a step whose config takes it, such as int8, and there is none",
            "add --int8, or leave out --min-sqnr",
        )
    return tuple((c, replace(config, min_sqnr=min_sqnr) if c.name in takes else config) for c, config in pairs)


def _with_outputs(settings: CompressSettings, source: Bundle, task: ModelTask | None) -> CompressSettings:
    """The settings with each of their outputs once.

    Raises:
        UnknownNameError: the source has no such output.
        RecipeError: ``max_drop`` is of a metric of other outputs.
    """
    if not settings.outputs:
        return settings
    with open_artifact(artifact_of(source), OnnxRunner) as runner:
        known = [spec.name for spec in runner.signature.outputs]
    outputs = check_outputs(settings.outputs, known)
    judged = () if task is None else judged_outputs(task, known)
    if settings.max_drop is not None and judged and not set(judged) & set(outputs):
        raise RecipeError(
            f"max_drop is of the metric of the output {judged[0]!r}, and only {', '.join(outputs)} is held to anything",
            f"add --output {judged[0]}, or leave out --max-drop",
        )
    return replace(settings, outputs=outputs)


def _check_order(pairs: Sequence[tuple[Compressor, Any]], source: Bundle) -> None:
    if not pairs:
        raise RecipeError("no steps are given", "give a recipe (-r), or --prune, --low-rank, --int8")
    forms = [compressor.form for compressor, _ in pairs]
    if "graph" in forms and "module" in forms[forms.index("graph") :]:
        raise RecipeError(f"{pairs[forms.index('graph')][0].name} is not the last step", "put prune and low-rank first")
    if len(forms) - len([f for f in forms if f == "module"]) > 1:
        names = " and ".join(compressor.name for compressor, _ in pairs if compressor.form == "graph")
        raise RecipeError(f"two steps work on the graph: {names}", "keep one of them, as the last step")
    if "graph" in forms and (kinds := source.manifest.provenance.get("quantized")):
        raise UnsupportedModelError(
            f"{source.manifest.name} is quantized already: it has {', '.join(kinds)}",
            "give the float graph; bench, check, export and predict take this one as it is",
        )
    if len(source.encodings()) > 1:  # a step on the graph encoded it, whoever took that
        done = source.manifest.steps[-1].compressor if source.manifest.steps else "compressed"
        raise RecipeError(f"{source.manifest.name} is already {done}", "compress the bundle it was made from")
