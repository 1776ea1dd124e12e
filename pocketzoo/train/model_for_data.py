"""Choose the model to train: backbone and head as asked for, fitted to the data's classes and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketzoo.core.arrays import first
from pocketzoo.core.errors import DataError, HeadMismatchError, PocketzooError, RecipeError, UnknownNameError, guarded
from pocketzoo.core.progress import Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset
from pocketzoo.zoo.catalog.head_task import head_task
from pocketzoo.zoo.catalog.processor import Processor, TrainingSamples
from pocketzoo.zoo.catalog.registry import Entry
from pocketzoo.zoo.catalog.specs import BackboneSpec, HeadSpec
from pocketzoo.zoo.catalog.task import ModelFacts, TaskTraining
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import fitted_config, open_config
from pocketzoo.zoo.data.processors.table_columns import moments
from pocketzoo.zoo.data.target_kinds import naming_hint
from pocketzoo.zoo.models.build import Model, build, load_pretrained
from pocketzoo.zoo.models.heads import build_head, configured, heads_that_fit, plain_options
from pocketzoo.zoo.models.resolver import Parts, Resolver
from pocketzoo.zoo.tasks.open_task import ModelTask, reading_of, task_of_head


@dataclass(frozen=True)
class Asked:
    """A model before its data is known."""

    ref: ModelRef  # with two outputs as yet
    parts: Parts
    entry: Entry  # of the backbone


@dataclass(frozen=True)
class ModelForData:
    """A model with what is pretrained of it, for the classes or numbers of a data set."""

    ref: ModelRef
    parts: Parts
    model: Model
    task: ModelTask
    training: TaskTraining
    dataset: Dataset  # as it is learned from: of texts for a language model, windows of tokens
    read: Dataset  # as it was given
    config: TrainConfig


@keywords_renamed(registry="resolver")
def asked_for(
    backbone: str,
    head: str,
    head_options: Mapping[str, Any] | None,
    backbone_options: Mapping[str, Any] | None,
    cut: str,
    input_size: int | tuple[int, int] | None,
    resolver: Resolver,
) -> Asked:
    """What a user asks ``fit`` for.

    Raises:
        UnknownNameError: no such backbone, head or cut.
        UnsupportedModelError: the backbone cannot read images of ``input_size``.
        RecipeError: an option cannot be what it is.
    """
    if (
        not backbone.startswith("hf:")
        and backbone not in resolver.registry.entries("backbone")
        and Path(backbone).exists()
    ):
        raise UnknownNameError(f"{backbone!r} is a bundle; fit takes a backbone", "see: pocketzoo list --kind backbone")
    entry = resolver.entry("backbone", backbone)
    backbone = entry.name  # of the Hub: with its commit
    head = _own_if_trained(resolver.entry("head", head), entry.spec, resolver)
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size or ())
    if size and (len(size) != 2 or min(size) < 1):
        raise RecipeError(f"input_size cannot be {input_size!r}", "give height and width in pixels")
    ref = ModelRef(
        backbone=backbone,
        head=head,
        outputs=2,
        cut=cut,
        head_options=head_options or {},
        backbone_options=plain_options(entry.spec, backbone_options or {}),
        input_size=size,
    )
    return Asked(ref, resolver.parts(ref), entry)


def _own_if_trained(head: Entry, backbone: BackboneSpec, resolver: Resolver) -> str:
    """The head's name; of a task that continues with a trained head the backbone's own, where it is for that task."""
    task = head_task(head.spec, backbone.input, resolver.registry)
    if not task.trained or head.spec.backbone or not backbone.head:
        return head.name
    own: HeadSpec = resolver.spec("head", backbone.head)
    return own.name if head_task(own, backbone.input, resolver.registry).name == task.name else head.name


@keywords_renamed(registry="resolver")
def task_of(
    asked: Asked,
    data: str | Path | Dataset | None,
    config: TrainConfig,
    resolver: Resolver,
    skipped: Skipped | None,
    progress: Progress,
) -> ModelForData:
    """Open the data and build the model for it; rows that cannot be read are left out if ``skipped`` takes them.

    Raises:
        HeadMismatchError: the head cannot be fitted, or not on this backbone.
        DataError: the data cannot be read, or has nothing to learn.
    """
    ref, parts, spec = asked.ref, asked.parts, asked.entry.spec
    task = task_of_head(parts.head, parts.backbone.input, (), resolver.registry)
    training = _checked_training(parts, ref, task, config, resolver)  # before data is read
    if data is None:
        raise DataError(f"head {ref.head!r} needs training data", "give it by --data")
    dataset = load_data(
        data,
        seed=config.seed,
        **reading_of(task),
        skipped=skipped,
        reads=parts.backbone.input,
        missing=bool(config.missing),
        registry=resolver.registry,
        progress=progress,
    )
    facts = ModelFacts(
        name=parts.backbone.name,
        labels=dataset.labels,
        input=parts.processor.text or parts.backbone.input,
        files=parts.backbone.files,
        generation=parts.backbone.generation,
        window=config.window,
    )
    read = dataset
    task = replace(task, labels=read.labels)
    if read.labels and task.spec.examples is None:  # where there are classes, a split that lacks them is what is wrong
        _check_splits(read)
    dataset = task.examples(read, facts)
    outputs = guarded(task.owner, training.outputs, dataset, facts)
    task = replace(task, labels=dataset.labels)
    ref = replace(ref, outputs=outputs, head_options=plain_options(parts.head, ref.head_options))
    _check_splits(dataset)
    if (rows := _rows(dataset)) is not None:
        ref = _for_rows(ref, rows.shape[1], spec, dataset.columns)
        parts = resolver.parts(ref)
    parts = _with_fitted_processor(parts, dataset, config, resolver)
    config = _for_untrained(config, parts, progress)
    torch.manual_seed(config.seed)
    model = build(ref, resolver)
    load_pretrained(model, ref, resolver)
    _standardize(model.backbone, rows, parts.processor)
    return ModelForData(ref, parts, model, task, training, dataset, read, config)


def _checked_training(
    parts: Parts, ref: ModelRef, task: ModelTask, config: TrainConfig, resolver: Resolver
) -> TaskTraining:
    """The half of the task that is needed to fit a head; a head that cannot be fitted is refused."""
    head, spec = parts.head, task.spec
    if spec.training is None:
        fit = heads_that_fit(parts.declared, parts.backbone, resolver.registry, trained=True)
        raise HeadMismatchError(
            f"head {ref.head!r} is for {spec.name}, which fit cannot train",
            f"heads that fit can train: {', '.join(fit) or 'none is registered'}",
        )
    if spec.refuses is not None and (why := spec.refuses(parts.backbone))[0]:
        fit = heads_that_fit(parts.declared, parts.backbone, resolver.registry, trained=True)
        raise HeadMismatchError(why[0], f"{why[1]}; heads that fit: {', '.join(fit)}")
    if not spec.trained and head.weights is not None:
        known = resolver.registry
        fit = heads_that_fit(parts.features, parts.backbone, known, trained=True)
        same = [
            name for name in fit if head_task(known.get("head", name), parts.backbone.input, known).name == spec.name
        ]
        raise HeadMismatchError(
            f"head {ref.head!r} is already trained for its own classes",
            f"fit a new one: --head {' or '.join(same or fit) or 'NAME, of a plugin'}",
        )
    for name in ("balanced", "label_smoothing"):
        if getattr(config, name) and name not in spec.settings:
            raise RecipeError(f"{name} means nothing for {spec.name}", f"leave it out for head {ref.head!r}")
    build_head(head, parts.features, ref.outputs, ref.head_options)  # whether these options go with these features
    return guarded(task.owner, spec.training)


def _rows(data: Dataset) -> npt.NDArray[np.float32] | None:
    """The train split, where it is rows of numbers."""
    samples = data.split("train").samples
    rows = isinstance(samples, np.ndarray) and samples.ndim == 2 and samples.dtype == np.float32
    return cast("npt.NDArray[np.float32]", samples) if rows else None


def _for_rows(ref: ModelRef, width: int, spec: BackboneSpec, columns: tuple[str, ...] = ()) -> ModelRef:
    """The model for rows of ``width`` numbers, where the backbone can be asked for them and the user did not."""
    known = {f.name for f in fields(spec.options)} if spec.options else set()
    options: dict[str, Any] = {"input": (width,)}
    if "input" not in known or ref.backbone_options.get("input") != plain_options(spec, {})["input"]:
        return ref
    if columns and "columns" in known:
        options["columns"] = columns
    options = {**ref.backbone_options, **options}
    try:
        inputs = open_config(configured(spec, options).input).inputs
    except PocketzooError:  # its "input" is something else than the shape of a sample, or has no such shape
        return ref
    return replace(ref, backbone_options=options) if [t.sample_shape for t in inputs] == [(width,)] else ref


def _with_fitted_processor(parts: Parts, data: Dataset, config: TrainConfig, resolver: Resolver) -> Parts:
    """The parts with what the processor learns of the training split: it is kept in the bundle, with its config."""
    training = TrainingSamples(
        samples=cast("Sequence[Any]", data.split("train").samples),
        columns=data.columns,
        missing=config.missing,
        pretrained=parts.backbone.weights is not None,
    )
    fitted = fitted_config(parts.backbone.input, training, resolver.registry)
    if fitted is parts.backbone.input:
        return parts
    processor = open_config(fitted, parts.backbone.files, resolver.registry)
    return replace(parts, backbone=replace(parts.backbone, input=fitted), processor=processor)


def _standardize(backbone: nn.Module, rows: npt.NDArray[np.float32] | None, processor: Processor) -> None:
    """Tell layers with a method ``standardize(offset, scale)`` what the columns of the training rows are like.

    As they reach the backbone, which is standardized already where the processor does that.
    """
    # Plugins of the previous release say "standardise".
    methods = [getattr(layer, "standardize", getattr(layer, "standardise", None)) for layer in backbone.modules()]
    told = [method for method in methods if callable(method)]
    if rows is None or not told:
        return
    mean, std = moments(first(processor(cast("Sequence[Any]", rows))))
    for standardize in told:
        standardize(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32)))


def _for_untrained(config: TrainConfig, parts: Parts, progress: Progress) -> TrainConfig:
    """The settings for a backbone that is not pretrained: frozen, it would stay chance. Adapters were asked for."""
    if parts.backbone.weights is not None or config.unfreeze != "none" or config.lora_rank:
        return config
    progress.say(f"{parts.backbone.name} is not pretrained: all of it is trained")
    return replace(config, unfreeze="all", backbone_rate=1.0)


def _check_splits(data: Dataset) -> None:
    """Refuse a split that has no samples or no targets."""
    for name in SPLITS:
        split = data.split(name)
        if split.targets is None:
            hint = naming_hint(data, "give some for each split")
            raise DataError(f"the {name} split of {data.name} has no targets", hint)
        if not len(split):
            raise DataError(f"the {name} split of {data.name} is empty", "give each class at least five samples")
