"""What is trained on what: the head on features that are computed once, then the backbone's last blocks with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.errors import RecipeError
from pocketzoo.progress import Progress
from pocketzoo.train.augment import augmenter
from pocketzoo.train.blocks import blocks, unfrozen
from pocketzoo.train.features import Samples, Source, features, weights_digest
from pocketzoo.train.learning import Learning, whole
from pocketzoo.train.log import EventLog
from pocketzoo.train.loop import History, Phase, Trainer, class_weights
from pocketzoo.train.lora import Adapters
from pocketzoo.train.scores import SCORES
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.shard import sharded
from pocketzoo.train.world import World
from pocketzoo.zoo.data import SPLITS, Batches, Dataset, Skipped, SplitName, Targets
from pocketzoo.zoo.model import Model, Parts, example
from pocketzoo.zoo.specs import METRICS

Loss = Callable[[Tensor, Tensor], Tensor]


def transfer(
    model: Model,
    parts: Parts,
    dataset: Dataset,
    outputs: int,
    config: TrainConfig,
    *,
    digest: str,
    skipped: Skipped | None,
    world: World,
    place: Path | None,
    log: Path | None = None,
    shard: bool = False,
    progress: Progress,
) -> tuple[History, dict[SplitName, float]]:
    """Train a pretrained model in place; how it went, and its metric on the validation and test splits.

    ``digest`` is that of the data set; with ``shard`` each process has a part of a backbone that learns.

    Raises:
        DataError: a sample cannot be read, or the loss was never finite.
        UnknownNameError, RecipeError: ``config.unfreeze`` names what the backbone does not have.
        UnsupportedLayerError: the backbone has nothing for adapters.
        MissingDependencyError: what adapters or augmentation need is not installed.
        TrainingError: there is not enough memory.
    """
    spec, metric = parts.backbone, METRICS[parts.head.returns]
    batches = {name: Batches(dataset.split(name), spec.input, skipped=skipped, files=spec.files) for name in SPLITS}
    raw: dict[SplitName, Source] = {name: Samples(of_split) for name, of_split in batches.items()}
    if shard:
        _check_shard(config, world)
    device = torch.device("cpu") if shard and not config.head_epochs else world.device  # which may lack the room
    model.to(device)
    sample = example(spec.input, 1).to(device)
    body = unfrozen(model.backbone, sample, config.unfreeze)
    adapters = Adapters(model.backbone, sample, config) if config.lora_rank else None
    augment = augmenter(config, spec.input, world)
    loss, weigh = _loss(parts.head.loss, model.head, raw["train"].targets, outputs, config, metric)
    events = EventLog(log, metric) if log is not None and world.first else None
    trainer = Trainer(config, loss, weigh, SCORES[metric], world, place, progress, events)
    head_epochs = config.head_epochs if body or adapters else config.epochs
    net: Any = model
    sources = raw
    if head_epochs and augment:
        progress.say("augmentation is random, so features are computed anew in every epoch")
    elif head_epochs:  # nothing random happens before the head, so the same features serve all epochs
        sources = _features(model.backbone, parts, batches, dataset, digest, world, progress)
        net = model.head
    if head_epochs:
        train, val = sources["train"], sources["val"]
        trainer.run(Phase(net, model.head, (), train, val, 0, head_epochs, augment), 0)
    if (body or adapters) and not trainer.history.stopped:
        net, sources = model, raw
        body = adapters.attach() if adapters else body
        if shard:
            net, body = sharded(model.cpu(), blocks(model.backbone, sample.cpu()), body, world)
        train, val = sources["train"], sources["val"]
        trainer.run(Phase(net, net.head, body, train, val, head_epochs, config.epochs, augment), 1)
        if shard:
            model.load_state_dict(whole(Learning(net, net.head, body).state()), strict=False)
        if adapters:
            adapters.merge()
    if events is not None:
        events.close()
    scores: dict[SplitName, float] = {name: trainer.value(net, sources[name]) for name in ("val", "test")}
    return trainer.history, scores


def _check_shard(config: TrainConfig, world: World) -> None:
    if world.size == 1:
        raise RecipeError("there is one process, and nothing to shard", "torchrun --nproc-per-node 2 -m pocketzoo ...")
    if not config.backbone_learns:
        raise RecipeError("shard is for a backbone that learns", 'set unfreeze, such as "all", or lora_rank')
    if config.precision == "float16":
        raise RecipeError("shard does not go with float16, whose loss is scaled", "set precision to bfloat16")


def _features(
    backbone: nn.Module,
    parts: Parts,
    batches: Mapping[SplitName, Batches],
    dataset: Dataset,
    digest: str,
    world: World,
    progress: Progress,
) -> dict[SplitName, Source]:
    found: dict[SplitName, Source] = {}
    weights = weights_digest(backbone)
    for turn in (True, False):  # the first process computes what the others then find
        for name in SPLITS if world.first == turn else ():
            found[name] = features(
                backbone,
                batches[name],
                weights=weights,
                data=_digest(dataset, digest, name),
                sequence=parts.features.kind == "sequence",
                what=f"the {name} split of {dataset.name}",
                label=f"features of {name}",
                progress=progress,
            )
        world.wait()
    return found


def _digest(dataset: Dataset, digest: str, name: SplitName) -> str:
    """Of the samples of a split; a picture that was written again is another one."""
    found = hashlib.sha256(f"{digest} {name}".encode())
    for sample in dataset.split(name).samples:
        if isinstance(sample, Path):
            found.update(f"{sample} {sample.stat().st_mtime_ns}".encode())
    return found.hexdigest()


def _loss(
    name: str, head: nn.Module, targets: Targets, outputs: int, config: TrainConfig, metric: str
) -> tuple[Loss, Callable[[Tensor], Tensor]]:
    """A function of torch.nn.functional summed over a batch, and what it is divided by for the mean."""
    function = partial(getattr(F, name), reduction="sum")
    if metric == "r2":
        return _standardised(function, head, torch.from_numpy(targets)), lambda y: torch.tensor(float(y.numel()))
    if config.label_smoothing:  # arXiv:1512.00567
        function = partial(function, label_smoothing=config.label_smoothing)
    if not config.balanced:
        return function, lambda y: torch.tensor(float(len(y)))
    weight = class_weights(targets, outputs)
    return (
        lambda out, y: function(out, y, weight=weight.to(out.device)),
        lambda y: weight.to(y.device)[y].sum(),
    )


def _standardised(loss: Loss, head: nn.Module, targets: Tensor) -> Loss:
    """``loss`` in standard deviations of the targets, so that a learning rate fits numbers of any size.

    A head with a method ``standardise(offset, scale)`` is told them, and so starts where the targets are.
    """
    offset, scale = targets.mean(0), targets.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    if callable(standardise := getattr(head, "standardise", None)):
        standardise(offset, scale)

    def standardised(out: Tensor, y: Tensor) -> Tensor:
        by, size = offset.to(out.device), scale.to(out.device)
        return loss((out - by) / size, (y - by) / size)

    return standardised
