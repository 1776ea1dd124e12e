"""Tasks that ship, opened for tests: what scores a model, and what validates one in training."""

from __future__ import annotations

from collections.abc import Sequence

from pocketzoo.train.validation import Validation
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import HeadSpec, InputSpec, TextSpec
from pocketzoo.zoo.tasks.open_task import ModelTask, task_of_head

REGISTRY = Registry(create_manager(points=[]))
IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.0,), std=(1.0,), resize=8)
TEXT = TextSpec(vocabulary=9, pad=1, max_length=8)


def task(
    name: str, labels: Sequence[str] = (), reads: InputSpec | TextSpec = IMAGE, registry: Registry = REGISTRY
) -> ModelTask:
    """A task, with its own decoder, of a model with these labels."""
    head = HeadSpec(name="any", summary="s", takes=(), build=lambda f, n: None, task=name)
    return task_of_head(head, reads, labels, registry)


def classes(count: int) -> ModelTask:
    """Classification of images into so many classes."""
    return task("image-classification", tuple(f"c{i}" for i in range(count)))


ACCURACY = Validation(classes(2))
R2 = Validation(task("regression"))
