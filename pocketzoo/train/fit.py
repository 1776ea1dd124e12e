"""Transfer learning: a pretrained backbone, frozen or not, and a new head fitted to the user's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketzoo.errors import DataError, HeadMismatchError, RecipeError, UnknownNameError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.train.features import weights_digest
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.train.transfer import transfer
from pocketzoo.train.world import joined
from pocketzoo.zoo.bundle import Bundle, ModelRef, read_bundle, writing
from pocketzoo.zoo.data import SPLITS, Dataset, Skipped
from pocketzoo.zoo.findings import examine
from pocketzoo.zoo.heads import build_head, heads_that_fit, plain_options
from pocketzoo.zoo.model import Parts, build, load_pretrained, resolve
from pocketzoo.zoo.pretrained import provenance
from pocketzoo.zoo.registry import Entry, Registry, default_registry
from pocketzoo.zoo.save import save_model
from pocketzoo.zoo.sources import load_data
from pocketzoo.zoo.specs import METRICS, BackboneSpec, HeadSpec
from pocketzoo.zoo.typed import to_plain
from pocketzoo.zoo.unfinished import unfinished

SNAPSHOT = "training.safetensors"


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
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Fit ``head`` to ``data`` on a pretrained ``backbone`` and write the model as a bundle at ``out``.

    As it comes the backbone is frozen: its features are computed once, and kept for the next time. With ``unfreeze``,
    such as "last:2", blocks of it learn as well. ``training`` has all settings (``settings.SAYS`` says what they are),
    such as ``{"optimiser": "sgd", "patience": 5}``; those with a parameter of their own here may be given by it. The
    weights are those of the epoch with the best metric on the
    validation split. Deterministic for a seed; a run that was killed goes on when the same call is made again, and ends
    with the same weights. Started by torchrun, all processes train one model.

    A head that returns "values" learns numbers, any other classes. ``head_options`` are the head's own, such as
    ``{"hidden": (1024,), "activation": "gelu"}``; ``pocketzoo info HEAD`` lists them; so are
    ``backbone_options`` those of a backbone that comes in many shapes, such as "mlp". ``input_size``, in pixels, is the
    side of a square or (height, width); a backbone of convolutions reads any.

    A head with nothing to learn, such as "embedding", takes no ``data``: the backbone is written with it as it is.

    Raises:
        UnknownNameError: no such backbone, head, cut, block or data set.
        HeadMismatchError: the head cannot read the backbone's features, is pretrained for other classes, or returns
            what no data set here has targets for.
        UnsupportedModelError: the backbone cannot read pictures of ``input_size``.
        RecipeError: an option of head or backbone, or a setting, cannot be what it is.
        DataError: the data cannot be read, or has no classes (for "values": no numbers).
        TrainingError: another process ended, or there is not enough memory.
        BusyError: another run is writing ``out``.
    """
    config = with_settings(
        training, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, unfreeze=unfreeze, seed=seed
    )
    registry = registry or default_registry()
    if not backbone.startswith("hf:") and backbone not in registry.entries("backbone") and Path(backbone).exists():
        raise UnknownNameError(f"{backbone!r} is a bundle; fit takes a backbone", "see: pocketzoo list --kind backbone")
    entry = registry.entry("backbone", backbone)
    backbone = entry.name  # of the Hub: with its commit
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
    parts = resolve(ref, registry)
    if not parts.head.loss and parts.head.weights is None:
        return _attach(ref, parts, entry, Path(out), data, registry, progress)
    _check_head(parts, ref, config, registry)  # before data is read
    if data is None:
        raise DataError(f"head {head!r} learns, and there is no data", "give some: --data")
    skipped = Skipped()
    dataset = (
        data
        if isinstance(data, Dataset)
        else load_data(
            data,
            seed=config.seed,
            numeric=parts.head.returns == "values",
            skipped=skipped if skip_bad else None,
            registry=registry,
        )
    )
    ref = replace(ref, outputs=_outputs(dataset, parts.head), head_options=plain_options(parts.head, ref.head_options))
    _check_splits(dataset)
    if (rows := _rows(dataset)) is not None:
        ref = _for_rows(ref, rows.shape[1], entry.spec)
        parts = resolve(ref, registry)
    config = _for_untrained(config, parts, progress)
    torch.manual_seed(config.seed)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    _standardise(model.backbone, rows)
    digest = dataset.digest()
    with joined() as world, ExitStack() as stack:
        if world.size > 1 and skip_bad and config.unfreeze != "none":
            raise RecipeError("skip_bad needs one process when the backbone learns", "remove the broken pictures first")
        place: Path | None = None
        if world.first:
            key = _key(ref, config, digest, dataset.seed, model, skip_bad)
            findings = examine(dataset, parts.backbone.input, parts.backbone.files, progress)
            place = stack.enter_context(unfinished(Path(out), key, progress, _left)) / SNAPSHOT
        history, scores = transfer(
            model,
            parts,
            dataset,
            ref.outputs,
            config,
            digest=digest,
            skipped=skipped if skip_bad else None,
            world=world,
            place=place,
            progress=world.heard(progress),
        )
        if world.first:
            metric = METRICS[parts.head.returns]
            metrics: dict[str, Any] = {f"{name}_{metric}": value for name, value in scores.items()}
            if skipped.names:
                metrics["skipped"] = len(skipped.names)
            origin = provenance(entry)
            origin["data"] = {
                "name": dataset.name,
                "seed": dataset.seed,
                "sha256": digest,
                "samples": {name: len(dataset.split(name)) for name in SPLITS},
                "findings": to_plain(findings),
            }
            origin["training"] = {
                **to_plain(config),
                f"val_{metric}": history.scores,
                "loss": history.losses,
                **({"stopped": history.stopped} if history.stopped else {}),
            }
            _save(Path(out), model.cpu(), ref, parts, origin, metrics, dataset.labels, progress)
        world.wait()
    return read_bundle(Path(out))


def _key(ref: ModelRef, config: TrainConfig, data: str, seed: int | None, model: nn.Module, skip_bad: bool) -> str:
    """Digest of everything that decides what a run makes."""
    facts = [to_plain(ref), to_plain(config), data, seed, skip_bad, weights_digest(model)]
    return hashlib.sha256(json.dumps([*facts, torch.__version__], sort_keys=True, default=str).encode()).hexdigest()


def _left(folder: Path) -> str:
    """What an interrupted run can go on from."""
    return "what was learned" if (folder / SNAPSHOT).is_file() else ""


def _attach(
    ref: ModelRef,
    parts: Parts,
    entry: Entry,
    out: Path,
    data: object,
    registry: Registry,
    progress: Progress,
) -> Bundle:
    """Write a backbone with a head that has nothing to learn."""
    if data is not None:
        raise HeadMismatchError(f"head {ref.head!r} has nothing to learn from data", "leave out --data")
    options = plain_options(parts.head, ref.head_options)
    ref = replace(ref, outputs=parts.features.channels, head_options=options)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    _save(out, model.eval(), ref, parts, provenance(entry), {}, (), progress)
    return read_bundle(out)


def _save(
    out: Path,
    model: nn.Module,
    ref: ModelRef,
    parts: Parts,
    origin: dict[str, Any],
    metrics: Mapping[str, Any],
    labels: tuple[str, ...],
    progress: Progress,
) -> None:
    progress.say("exporting and checking the graph")
    with writing(out) as draft:
        save_model(
            draft,
            model,
            ref,
            name=out.name,
            labels=labels,
            returns=parts.head.returns,
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            provenance=origin,
            metrics=metrics,
            files=parts.backbone.files,
        )


def _check_head(parts: Parts, ref: ModelRef, config: TrainConfig, registry: Registry) -> None:
    """Refuse a head that cannot be fitted."""
    head = parts.head
    if head.returns not in METRICS:
        fit = heads_that_fit(parts.features, parts.backbone.name, registry, trained=True)
        raise HeadMismatchError(
            f"head {ref.head!r} gives {head.returns}, which fit cannot train yet",
            f"heads that fit can train here: {', '.join(fit) or 'none is registered'}",
        )
    if head.weights is not None:
        raise HeadMismatchError(
            f"head {ref.head!r} is fitted already, to its own classes", "fit a new one: --head linear"
        )
    if head.loss != "cross_entropy" and (config.balanced or config.label_smoothing):
        raise RecipeError("balanced and label_smoothing are for classes", f"leave them out for head {ref.head!r}")
    build_head(head, parts.features, ref.outputs, ref.head_options)  # whether these options go with these features


def _outputs(data: Dataset, head: HeadSpec) -> int:
    """How many outputs the head needs for the targets."""
    if head.returns == "values":
        targets = data.split("train").targets
        if not data.numeric or targets is None:
            raise DataError(f"{data.name} has no numbers to learn", f"{head.name} needs an .npz with y, or a .csv")
        return int(targets.shape[1])
    if not data.labels:
        raise DataError(
            f"{data.name} has no classes", "make one sub-folder a class, or name a table's column: --label-column"
        )
    if len(data.labels) == 1:
        raise DataError(f"{data.name} has one class, {data.labels[0]!r}", "fit needs two or more labelled classes")
    return len(data.labels)


def _rows(data: Dataset) -> npt.NDArray[np.float32] | None:
    """The train split, where it is rows of numbers."""
    samples = data.split("train").samples
    rows = isinstance(samples, np.ndarray) and samples.ndim == 2 and samples.dtype == np.float32
    return cast("npt.NDArray[np.float32]", samples) if rows else None


def _for_rows(ref: ModelRef, width: int, spec: BackboneSpec) -> ModelRef:
    """The model for rows of ``width`` numbers, where the backbone can be asked for them and the user did not."""
    given = {"input": (width,), "standardise": True}
    known = {f.name for f in fields(spec.options)} if spec.options else set()
    own = plain_options(spec, {})
    if not known >= set(given) or ref.backbone_options.get("input") != own["input"]:
        return ref
    return replace(ref, backbone_options={**ref.backbone_options, **given})


def _standardise(backbone: nn.Module, rows: npt.NDArray[np.float32] | None) -> None:
    """Tell layers with a method ``standardise(offset, scale)`` what the columns of the training rows are like."""
    for layer in backbone.modules() if rows is not None else ():
        if callable(standardise := getattr(layer, "standardise", None)):
            assert rows is not None
            scale = rows.std(0)
            standardise(torch.from_numpy(rows.mean(0)), torch.from_numpy(np.where(scale > 0, scale, np.float32(1.0))))


def _for_untrained(config: TrainConfig, parts: Parts, progress: Progress) -> TrainConfig:
    """The settings for a backbone that is not pretrained: frozen, it would stay chance."""
    if parts.backbone.weights is not None or config.unfreeze != "none":
        return config
    progress.say(f"{parts.backbone.name} is not pretrained: all of it learns")
    return replace(config, unfreeze="all", backbone_rate=1.0)


def _check_splits(data: Dataset) -> None:
    """Refuse a split that has no samples or no targets."""
    for name in SPLITS:
        split = data.split(name)
        if split.targets is None:
            raise DataError(f"{data.name} has no classes", "make one sub-folder a class")
        if not len(split):
            raise DataError(f"the {name} split of {data.name} is empty", "give each class at least five samples")
