"""Outputs and targets that were made up for a task: by the plugin, or from what its targets are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from pocketzoo.core.arrays import Array
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.zoo.catalog.task import TaskExample, TaskSpec

LABELS = ("a", "b", "c", "d")
TOKENS = 6
COUNT = 60  # samples


def example_of(spec: TaskSpec, seed: int = 0, count: int = COUNT) -> TaskExample:
    """Another set for each seed; skips where nobody knows what its outputs are like."""
    make = spec.example or SHIPS.get(spec.name) or BY_TARGETS.get(spec.targets)
    if make is None:
        pytest.skip("it has no example of outputs and targets (TaskSpec.example)")
    with blaming("example() fails", "return a TaskExample"):
        example = make(count, seed)
    if not isinstance(example, TaskExample) or not example.outputs:
        wrong(f"example() returns {example!r:.80}", "return a TaskExample with outputs")
    return example


def taken(example: TaskExample, rows: slice) -> TaskExample:
    """Some of its samples."""
    return TaskExample(
        outputs={name: x[rows] for name, x in example.outputs.items()},
        inputs={name: x[rows] for name, x in example.inputs.items()},
        targets=example.targets[rows],
        labels=example.labels,
        samples=example.samples[rows],
    )


def _scores(targets: npt.NDArray[np.int64], classes: int, generator: np.random.Generator) -> Array:
    """Of a model that is mostly right: float32 (..., classes)."""
    noise = generator.normal(size=(*targets.shape, classes))
    return np.asarray(noise + 2 * np.eye(classes)[targets], np.float32)


def _classes(count: int, seed: int) -> TaskExample:
    generator = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(len(LABELS)), generator.integers(0, len(LABELS), count)])[:count]
    return TaskExample(outputs={"logits": _scores(targets, len(LABELS), generator)}, targets=targets, labels=LABELS)


def _numbers(count: int, seed: int) -> TaskExample:
    generator = np.random.default_rng(seed)
    targets = generator.normal(size=(count, 2)).astype(np.float32)
    noise = generator.normal(size=(count, 2)).astype(np.float32)
    return TaskExample(outputs={"values": targets + np.float32(0.3) * noise}, targets=targets)


def _flags(count: int, seed: int) -> TaskExample:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, (count, len(LABELS)))
    scores = (4 * targets - 2 + generator.normal(size=targets.shape)).astype(np.float32)
    return TaskExample(outputs={"logits": scores}, targets=targets, labels=LABELS)


def _tokens(count: int, seed: int) -> TaskExample:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, len(LABELS), (count, TOKENS))
    mask = np.ones((count, TOKENS), np.int64)
    scores = _scores(targets, len(LABELS), generator)
    inputs = {"input_ids": targets + 1, "attention_mask": mask}
    return TaskExample(outputs={"logits": scores}, inputs=inputs, targets=targets, labels=LABELS)


def _vectors(count: int, seed: int) -> TaskExample:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, 8)).astype(np.float32)
    return TaskExample(outputs={"embedding": vectors}, targets=np.zeros(count, np.int64))


BY_TARGETS: dict[str, Callable[[int, int], TaskExample]] = {"classes": _classes, "numbers": _numbers, "flags": _flags}
# Of tasks that ship, where the outputs are not as the targets would have them.
SHIPS: dict[str, Callable[[int, int], TaskExample]] = {
    "token-classification": _tokens,
    "text-generation": _tokens,
    "feature-extraction": _vectors,
}
