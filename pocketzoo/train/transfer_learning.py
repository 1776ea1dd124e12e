"""Phases of transfer learning: the head on cached features, then fine-tuning the last blocks with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import RecipeError, guarded
from pocketzoo.core.progress import Progress
from pocketzoo.train.augment.specification import read_augment
from pocketzoo.train.augmenter import augmenter
from pocketzoo.train.distributed.fsdp import sharded
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.feature_cache import features, weights_digest
from pocketzoo.train.lora import Adapters
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.snapshot import gathered
from pocketzoo.train.sources import Samples, Source
from pocketzoo.train.tensorboard import EventLog
from pocketzoo.train.trainable_parameters import Learning
from pocketzoo.train.training_loop import History, Phase, Trainer
from pocketzoo.train.validation import Validation
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, SplitName
from pocketzoo.zoo.catalog.task import Estimate, LossSettings, TaskTraining
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.models.backbone_blocks import blocks, unfrozen
from pocketzoo.zoo.models.build import Model, example_inputs
from pocketzoo.zoo.models.resolver import Parts
from pocketzoo.zoo.modules.features import FeatureChoice
from pocketzoo.zoo.modules.inputs import to_device
from pocketzoo.zoo.tasks.open_task import ModelTask


class Transfer:
    """Trains a pretrained model in place, phase after phase."""

    def __init__(
        self,
        model: Model,
        parts: Parts,
        task: ModelTask,
        training: TaskTraining,
        dataset: Dataset,
        outputs: int,
        config: TrainConfig,
        *,
        digest: str,
        code: Sequence[Any] = (),
        skipped: Skipped | None = None,
        world: World,
        place: Path | None = None,
        log: Path | None = None,
        shard: bool = False,
        progress: Progress,
    ) -> None:
        """``digest`` is that of the data set, and ``code`` what features hang on besides it and the weights.

        With ``shard`` each process has a part of a backbone that learns.

        Raises:
            UnknownNameError, RecipeError: ``config.unfreeze`` names what the backbone does not have, or a setting goes
                with another kind of model.
            UnsupportedLayerError: the backbone has nothing for adapters.
            MissingDependencyError: what adapters, augmentation or the log need is not installed.
        """
        self.model, self.parts, self.config, self.world, self.progress = model, parts, config, world, progress
        self.dataset, self.digest, self.code, self.shard = dataset, digest, code, shard
        self.batches = {name: Batches(dataset.split(name), parts.processor, skipped=skipped) for name in SPLITS}
        self.sources: dict[SplitName, Source] = {name: Samples(of_split) for name, of_split in self.batches.items()}
        if shard:
            _check_shard(config, world)
        # What is sharded may have no room on one device.
        device = torch.device("cpu") if shard and not config.head_epochs else world.device
        model.to(device)
        self.sample = to_device(example_inputs(parts.processor, 1), device)
        self.body = unfrozen(model.backbone, self.sample, config.unfreeze)
        # Adapters stand for all of a model that was trained with this head.
        self.head_frozen = bool(config.lora_rank) and parts.head.weights is not None
        self.adapters = Adapters(model.backbone, self.sample, config) if config.lora_rank else None
        self.augment = augmenter(config, parts.processor, world, _moving(config, task, training))
        settings = LossSettings(
            name=parts.head.loss,
            outputs=outputs,
            label_smoothing=config.label_smoothing,
            balanced=config.balanced,
        )
        training.begin(model.head, self.sources["train"].targets, settings)
        validation = Validation(task)

        def loss(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
            return training.loss(as_decoded(outputs, task.reads), targets)

        self.events = EventLog(log, validation) if log is not None and world.first else None
        self.trainer = Trainer(config, loss, training.weight, validation, world, place, progress, self.events)
        self.net: Any = model  # what reads the sources

    def run(self) -> tuple[History, dict[SplitName, Mapping[str, Estimate]]]:
        """How it went, and the model's metrics on the validation and test splits.

        Raises:
            DataError: a sample cannot be read, or the loss was never finite.
            TrainingError: there is not enough memory.
        """
        for number, phase in self.phases():
            self.trainer.run(phase, number)
        if self.events is not None:
            self.events.close()
        scores: dict[SplitName, Mapping[str, Estimate]] = {
            name: self.trainer.results(self.net, self.sources[name]) for name in ("val", "test")
        }
        return self.trainer.history, scores

    def phases(self) -> Iterator[tuple[int, Phase]]:
        """First the head alone, then the backbone with it; or one of the two. Each is to be run before the next."""
        model, config, raw = self.model, self.config, self.sources
        head_epochs = config.head_epochs if config.backbone_learns else config.epochs
        if head_epochs:  # where nothing random happens before the head, the same features serve all epochs
            random: tuple[SplitName, ...] = ("train",) if self.augment else ()
            if random:
                self.progress.say("augmentation is random, so training features are recomputed in every epoch")
            self.sources = {**raw, **self._features([n for n in SPLITS if n not in random])}
            self.net = of_features(model.head, self.parts.choice)
            train, val = self.sources["train"], self.sources["val"]
            reader = model if random else self.net
            yield 0, Phase(reader, model.head, (), train, val, 0, head_epochs, self.augment, self.net)
        if not config.backbone_learns or self.trainer.history.stopped:
            return
        self.net, self.sources = model, raw
        body = self.adapters.attach() if self.adapters else self.body
        if self.shard:
            parts = blocks(model.cpu().backbone, to_device(self.sample, "cpu"))
            self.net, body = sharded(model, parts, body, self.world)
        head = nn.Identity() if self.head_frozen else self.net.head
        yield 1, Phase(self.net, head, body, raw["train"], raw["val"], head_epochs, config.epochs, self.augment)
        if self.shard:
            model.load_state_dict(gathered(Learning(self.net, head, body).state()), strict=False)
        if self.adapters:
            self.adapters.merge()

    def _features(self, names: Sequence[SplitName]) -> dict[SplitName, Source]:
        sources: dict[SplitName, Source] = {}
        weights = weights_digest(self.model.backbone)
        for turn in (True, False):  # the first process computes what the others then find
            for name in names if self.world.first == turn else ():
                sources[name] = features(
                    self.model.backbone,
                    self.batches[name],
                    weights=weights,
                    data=f"{name} of {self.digest}",
                    choice=self.parts.choice,
                    what=f"the {name} split of {self.dataset.name}",
                    label=f"features of {name}",
                    progress=self.progress,
                    reads=self.parts.backbone.input,
                    code=self.code,
                )
            self.world.wait()
        return sources


class _OfSeveral(nn.Module):
    """A head of several features, called with a tensor for each."""

    def __init__(self, head: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.head, self.names = head, tuple(names)

    def forward(self, *features: Tensor) -> Any:
        return self.head(dict(zip(self.names, features, strict=True)))


def of_features(head: nn.Module, choice: FeatureChoice) -> nn.Module:
    """What a source of features is read by: the head, which may want them by name."""
    return _OfSeveral(head, tuple(choice.specs)) if choice.together else head


def as_decoded(outputs: Mapping[str, Tensor], reads: Sequence[str]) -> Mapping[str, Tensor]:
    """The outputs, those first that the decoder names: losses of one output take the first, as decoders do."""
    return {name: outputs[name] for name in (*(each for each in reads if each in outputs), *outputs)}


def _check_shard(config: TrainConfig, world: World) -> None:
    if world.size == 1:
        raise RecipeError("sharding needs more than one process", "torchrun --nproc-per-node 2 -m pocketzoo ...")
    if not config.backbone_learns:
        raise RecipeError("shard needs a backbone that is fine-tuned", 'set unfreeze, such as "all", or lora_rank')
    if config.precision == "float16":
        raise RecipeError("shard does not support float16, which needs loss scaling", "set precision to bfloat16")


def _moving(config: TrainConfig, task: ModelTask, training: TaskTraining) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What takes targets along where images are moved; None where they stay right, or nothing moves.

    Raises:
        RecipeError: an augmentation moves images, or mixes them, and targets cannot go with them.
    """
    asked, spec = read_augment(config.augment).moving, task.spec
    if spec.movable:
        return None
    move: Callable[[Tensor, Tensor], Tensor] | None = getattr(training, "move", None)
    follows = spec.moved_by if move is not None else ()
    without = [name for name in asked if name not in follows] + ["mix"] * bool(config.mix)
    if without:
        raise RecipeError(
            f"{' and '.join(without)} would move things, and targets of {spec.name} say where they are",
            f"leave {'it' if len(without) == 1 else 'them'} out; {', '.join((*follows, 'color'))} and hue work",
        )
    if not asked or move is None:
        return None
    follow = move
    return lambda targets, matrix: guarded(task.owner, follow, targets, matrix)
