"""Phases, losses and digests of transfer learning: exact small numbers. What comes of them: test_fit.py."""

from __future__ import annotations

import numpy as np
import pytest
import smallnet
import torch
from told import Told

from pocketzoo.core.errors import RecipeError
from pocketzoo.core.progress import SILENT
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.feature_cache import Features, Samples
from pocketzoo.train.model_for_data import asked_for, task_of
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.transfer_learning import Transfer, _check_shard
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.models.resolver import Resolver

OUT = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
CLASSES = np.array([0, 0, 1])


def tiny() -> Dataset:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 1, 8, 8)).astype(np.float32)
    return from_arrays("tiny", ("a", "b"), x, np.arange(40) % 2)


def transfer(small_registry, progress=SILENT, world=None, **settings) -> Transfer:
    resolver = Resolver(small_registry)
    asked = asked_for(smallnet.pocketzoo_backbones()[0].name, "linear", None, None, "", None, resolver)
    task = task_of(asked, tiny(), TrainConfig(**settings), resolver, None, SILENT)
    config = TrainConfig(**settings)
    return Transfer(task.model, task.parts, task.task, task.training, task.dataset, 2, config, digest="d",
                    world=world or World(), progress=progress)  # fmt: skip


# -- phases


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [(0, 0, 6, False)]),
        ({"unfreeze": "all"}, [(1, 0, 6, True)]),
        ({"unfreeze": "last:1", "head_epochs": 2}, [(0, 0, 2, False), (1, 2, 6, True)]),
        ({"unfreeze": "last:1", "head_epochs": 6}, [(0, 0, 6, False), (1, 6, 6, True)]),
    ],
)
def test_the_head_learns_alone_and_then_with_the_backbone(small_registry, own_home, settings, wanted):
    run = transfer(small_registry, epochs=6, **settings)
    assert not run.head_frozen
    found = list(run.phases())
    assert [(number, p.first, p.last, bool(p.body)) for number, p in found] == wanted
    for number, phase in found:
        alone = number == 0
        assert phase.model is (run.model.head if alone else run.model)
        assert phase.scorer is (run.model.head if alone else None)
        assert phase.head is run.model.head
        assert phase.augment is None
        kind = Features if alone else Samples
        assert (type(phase.train), type(phase.val)) == (kind, kind)
        assert (len(phase.train), len(phase.val)) == tuple(len(tiny().split(n)) for n in ("train", "val"))


def test_after_a_loss_that_was_not_finite_the_backbone_does_not_learn(small_registry, own_home):
    run = transfer(small_registry, epochs=4, unfreeze="all", head_epochs=2)
    phases = run.phases()
    assert next(phases)[0] == 0
    run.trainer.history.stopped = "the loss is not finite"
    assert list(phases) == []


@pytest.mark.parametrize("changes", [{"mix": "mixup:0.2"}, {}])
def test_only_what_is_the_same_in_every_epoch_is_kept(small_registry, own_home, changes):
    told = Told()
    run = transfer(small_registry, told, epochs=2, **changes)
    ((_, phase),) = run.phases()
    assert isinstance(phase.val, Features)
    assert (phase.augment is not None, isinstance(phase.train, Samples)) == (bool(changes), bool(changes))
    assert phase.model is (run.model if changes else run.model.head)
    again = "augmentation is random, so training features are recomputed in every epoch"
    assert told.said == ([again] if changes else [])


def test_scores_are_of_the_splits_they_are_called_by(small_registry, own_home):
    run = transfer(small_registry, epochs=3, learning_rate=0.05)
    history, scores = run.run()
    assert list(scores) == ["val", "test"]
    assert scores["val"]["accuracy"].value == history.best == max(history.scores)
    for name, score in scores.items():
        split = tiny().split(name)
        with torch.no_grad():
            found = run.model(torch.from_numpy(split.samples)).argmax(1).numpy()
        assert score["accuracy"].value == pytest.approx(float((found == split.targets).mean()))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_makes_features_before_the_others_look_for_them(small_registry, own_home, rank):
    """Waits are after either turn, for all."""
    events: list[str] = []

    class Two(World):
        def tell(self, value):
            return value

        def wait(self) -> None:
            events.append("wait")

    class Noting(Told):
        def track(self, items, label, total=None):
            events.append(label)
            yield from items

    next(transfer(small_registry, Noting(), Two(rank, 2), epochs=1).phases())
    made = [f"features of {name}" for name in SPLITS]
    assert events == ([*made, "wait", "wait"] if rank == 0 else ["wait", *made, "wait"])


# -- what is refused


@pytest.mark.parametrize(
    ("settings", "size", "text", "hint"),
    [
        (
            {"unfreeze": "all"},
            1,
            "sharding needs more than one process",
            "torchrun --nproc-per-node 2 -m pocketzoo ...",
        ),
        ({}, 2, "shard needs a backbone that is fine-tuned", 'set unfreeze, such as "all", or lora_rank'),
        (
            {"unfreeze": "all", "precision": "float16"},
            2,
            "shard does not support float16, which needs loss scaling",
            "set precision to bfloat16",
        ),
    ],
)
def test_what_cannot_be_sharded_is_refused(refused, settings, size, text, hint):
    with refused(RecipeError, text, hint=hint) as caught:
        _check_shard(TrainConfig(**settings), World(0, size))
    assert (caught.value.message, caught.value.hint) == (text, hint)


@pytest.mark.parametrize(
    "settings", [{"unfreeze": "all"}, {"lora_rank": 1}, {"unfreeze": "all", "precision": "bfloat16"}]
)
def test_what_can_be_sharded_is_not(settings):
    _check_shard(TrainConfig(**settings), World(0, 2))


# -- digests
