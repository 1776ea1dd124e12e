"""The ``fit`` function: train a new head on a pretrained backbone, frozen or fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pocketzoo.core.errors import HeadMismatchError, RecipeError
from pocketzoo.core.keys import cache_key
from pocketzoo.core.names import check_folder_name
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.train.distributed.process_group import joined
from pocketzoo.train.model_for_data import Asked, ModelForData, asked_for, task_of
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.train.transfer_learning import Transfer
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, writing
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.bundles.metric_value import key_of
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.work_folder import check_place, unfinished
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset
from pocketzoo.zoo.catalog.head_task import answer_facts
from pocketzoo.zoo.catalog.processor_configs import NO_COLUMNS
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.findings import examine
from pocketzoo.zoo.data.processors.open_processor import processor_entries
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.heads import channels, plain_options
from pocketzoo.zoo.models.provenance import provenance
from pocketzoo.zoo.models.resolver import Parts, Resolver
from pocketzoo.zoo.models.save import save_model

SNAPSHOT = "training.safetensors"


@survives_exit
def fit(
    backbone: str,
    out: str | Path,
    *,
    data: str | Path | Dataset | None = None,
    head: str = "linear",
    head_options: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    cut: str = "",
    input_size: int | tuple[int, int] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    unfreeze: str | None = None,
    seed: int | None = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    log: str | Path | None = None,
    shard: bool = False,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Train a new ``head`` on a pretrained ``backbone`` with ``data``, and write the model as a bundle at ``out``.

    By default the backbone is frozen, and its features are computed once and cached. With ``unfreeze``, such as
    "last:2", its last blocks are fine-tuned too. ``training`` has all settings (``settings.SAYS`` describes them), such
    as ``{"optimizer": "sgd", "patience": 5}``; those that are also parameters here may be given either way. The bundle
    has the weights of the epoch with the best validation metric. Deterministic for a seed; a killed run resumes when
    the same call is made again, and ends with the same weights. Under torchrun all processes train one model; with
    ``shard`` the trainable parameters are sharded (FSDP).

    ``force`` replaces a finished bundle at ``out``. ``log`` is a folder for TensorBoard events.

    The head's task says how it is trained: classification, regression, several labels per sample, next-token prediction
    (starting from the pretrained head, where the backbone has one), or a plugin's. ``head_options`` are options of the
    head, such as ``{"hidden": (1024,), "activation": "gelu"}`` (see ``pocketzoo info HEAD``), ``backbone_options``
    those of a configurable backbone such as "mlp". ``input_size``, in pixels, is one side of a square or (height,
    width).

    A head without trainable parameters, such as "embedding", takes no ``data``: the backbone is written unchanged.

    Raises:
        BundleError: ``out`` is a finished bundle, or something else.
        UnknownNameError: no such backbone, head, cut, block or data set.
        HeadMismatchError: the head cannot read the backbone's features, is pretrained for other classes, or is for a
            task that has no training half.
        UnsupportedModelError: the backbone cannot read images of ``input_size``.
        RecipeError: an option of head or backbone, or a setting, cannot be what it is.
        DataError: the data cannot be read, or has no targets as the head's task needs them.
        TrainingError: another process ended, or there is not enough memory.
        BusyError: another run is writing ``out``.
    """
    check_place(Path(out), force=force)
    if log is not None:
        check_folder_name(Path(log), "what TensorBoard reads")
    config = with_settings(
        training, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, unfreeze=unfreeze, seed=seed
    )
    resolver = Resolver.of(registry)
    asked = asked_for(backbone, head, head_options, backbone_options, cut, input_size, resolver)
    if not asked.parts.head.loss and asked.parts.head.weights is None:
        return _attach(asked, Path(out), data, force, resolver, progress)
    skipped = Skipped()
    task = task_of(asked, data, config, resolver, skipped if skip_bad else None, progress)
    ref, parts, model, dataset, config = task.ref, task.parts, task.model, task.dataset, task.config
    digest, windowed = dataset.digest(), task.task.spec.examples is not None
    with joined() as world, ExitStack() as stack:
        if world.size > 1 and config.batch_size < 4 * world.size:  # what is left over of an epoch is a quarter of one
            raise RecipeError(
                f"a batch of {config.batch_size} is too small for {world.size} processes",
                f"set batch_size to {4 * world.size} or more",
            )
        if world.size > 1 and skip_bad and (config.backbone_learns or config.augment or config.mix):
            raise RecipeError(
                "skip_bad needs a single process when the backbone is fine-tuned or images are augmented",
                "remove the unreadable images first",
            )
        work: Path | None = None
        known = resolver.registry
        reads = [*processor_entries(parts.backbone.input, known), *task.task.entries(known)]
        sources = plugin_sources(known, asked.entry, resolver.entry("head", ref.head), *reads)
        if world.first:
            key = _key(ref, config, digest, dataset.seed, model, skip_bad, [*sources, parts.backbone, parts.head])
            findings = examine(task.read, parts.processor, progress, whole=windowed)
            work = stack.enter_context(unfinished(Path(out), key, progress, _left, force=force))
        history, scores = Transfer(
            model,
            parts,
            task.task,
            task.training,
            dataset,
            ref.outputs,
            config,
            digest=digest,
            code=[*sources, parts.backbone],
            skipped=skipped if skip_bad else None,
            world=world,
            place=None if work is None else work / SNAPSHOT,
            log=None if log is None else Path(log),
            shard=shard,
            progress=world.heard(progress),
        ).run()
        if world.first:
            metric = task.task.metric
            metrics: dict[str, Any] = {
                f"{split}_{key_of(name)}": results[name].value
                for name in (metric.name, *metric.alongside)
                for split, results in scores.items()
                if name in results
            }
            metrics["intervals"] = {
                f"{split}_{key_of(metric.name)}": [results[metric.name].low, results[metric.name].high]
                for split, results in scores.items()
            }
            skipped.names.update(task.read.skipped)
            if skipped.names:
                metrics["skipped"] = len(skipped.names)
            origin = provenance(asked.entry)
            origin["data"] = {
                "name": dataset.name,
                "seed": dataset.seed,
                "sha256": digest,
                "samples": {name: len(dataset.split(name)) for name in SPLITS},
                "findings": to_plain(findings),
                **({"skipped": skipped.listed()} if skipped.names else {}),
            }
            better = 1.0 if metric.higher_is_better else -1.0
            origin["training"] = {
                **to_plain(config),
                f"val_{key_of(metric.name)}": [better * score for score in history.scores],
                **({} if metric.higher_is_better else {"lower_is_better": True}),
                "loss": history.losses,
                **({"stopped": history.stopped} if history.stopped else {}),
            }
            _save(
                Path(out),
                force,
                work,
                model.cpu(),
                ref,
                parts,
                origin,
                metrics,
                task,
                resolver.registry,
                progress,
            )
        world.wait()
    return read_bundle(Path(out))


def _key(
    ref: ModelRef, config: TrainConfig, data: str, seed: int | None, model: nn.Module, skip_bad: bool, specs: list[Any]
) -> str:
    """Digest of everything that decides what a run makes."""
    facts = {"model": ref, "config": config, "data": (data, seed, skip_bad), "specs": specs}
    return cache_key("fit", **facts, weights=model.state_dict(), torch=torch.__version__)


def _left(folder: Path) -> str:
    """What an interrupted run can resume from."""
    return "what was learned" if (folder / SNAPSHOT).is_file() else ""


def _attach(asked: Asked, out: Path, data: object, force: bool, resolver: Resolver, progress: Progress) -> Bundle:
    """Write a backbone with a head that has nothing to learn."""
    ref, parts = asked.ref, asked.parts
    if data is not None:
        raise HeadMismatchError(f"head {ref.head!r} has no trainable parameters", "leave out --data")
    options = plain_options(parts.head, ref.head_options)
    ref = replace(ref, outputs=channels(parts.features), head_options=options)
    model = build(ref, resolver)
    load_pretrained(model, ref, resolver)
    _save(out, force, None, model.eval(), ref, parts, provenance(asked.entry), {}, None, resolver.registry, progress)
    return read_bundle(out)


def _save(
    out: Path,
    force: bool,
    work: Path | None,
    model: nn.Module,
    ref: ModelRef,
    parts: Parts,
    origin: dict[str, Any],
    metrics: Mapping[str, Any],
    task: ModelForData | None,
    registry: Registry,
    progress: Progress,
) -> None:
    progress.say("exporting and checking the graph")
    with writing(out, force=force, work=work, progress=progress) as draft:
        save_model(
            draft,
            model,
            ref,
            name=out.name,
            labels=() if task is None else task.dataset.labels,
            data_columns=(None if task is None else task.read.read) or NO_COLUMNS,
            answers=answer_facts(parts.head, parts.backbone.input, registry),
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            provenance=origin,
            metrics=metrics,
            files=parts.backbone.files,
            processor=parts.processor,
            registry=registry,
        )
