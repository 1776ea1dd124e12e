"""Conformance of decoders: config, tasks, answers to a batch, and outputs that it does not read."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.task_examples import example_of, taken
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.task import TaskExample

ODD = {
    "of another name": {"nothing of the kind": np.zeros((2, 3), np.float32)},
    "of no axis": {"x": np.float32(0) * np.ones((), np.float32)},
    "of five axes": {"x": np.zeros((2, 3, 1, 2, 1), np.float32)},
    "of texts": {"x": np.array([["a"], ["b"]])},
}


def test_its_tasks_are_there(decoder: Entry, registry: Registry) -> None:
    """One at least."""
    if not decoder.spec.tasks:
        wrong("it is for no task", "name the tasks whose answers it gives")
    for name in decoder.spec.tasks:
        with blaming(f"its task {name!r}", "declare it in pocketzoo_tasks, or name one that ships"):
            registry.get("task", name)


def test_its_config_survives_a_bundle(decoder: Entry) -> None:
    """A frozen dataclass of plain data with defaults."""
    config = decoder.spec.config
    if config is None:
        pytest.skip("it needs none")
    with blaming("its config cannot be made", "give every field a default"):
        default = config()
        again = from_plain(config, json.loads(json.dumps(to_plain(default))))
    if not is_dataclass(default) or not config.__dataclass_params__.frozen or again != default:
        wrong(f"its config is {default!r:.80}", "use a frozen dataclass of plain data")


def test_a_batch_is_as_its_samples(decoder: Entry, registry: Registry) -> None:
    """The answers to several samples are those to each."""
    decode, example, task = _opened(decoder, registry)
    with blaming("it does not decode the example of its task", "read the outputs by the names that its config says"):
        whole = decode(example.outputs, example.inputs)
        parts = [taken(example, slice(i, i + 1)) for i in range(3)]
        single = [decode(part.outputs, part.inputs) for part in parts]
    if any(len(each) != 1 for each in single):
        wrong("of one sample there is another number of answers", "let len(answers) be the number of samples")
    agreement = task.agreement()
    agreement.update(decode(*_first(example, 3)), decode(*_first(example, 3)))
    if len(whole) != len(example.targets):
        wrong(f"of {len(example.targets)} samples there are {len(whole)} answers", "give one for each")
    try:
        rows = task.rows(whole, example.labels, 3)[:3]
    except DataError as error:
        pytest.skip(f"its task has no rows to compare: {error.message}")
    for each, row in zip(single, rows, strict=True):
        if not _near(task.rows(each, example.labels, 3)[0], row):
            wrong("the answer to a sample depends on the others of its batch", "decode each by itself")


@pytest.mark.parametrize("what", ODD)
def test_outputs_that_it_does_not_read_are_refused(decoder: Entry, registry: Registry, what: str) -> None:
    """By a DataError, which says what was wrong; not by whatever numpy says."""
    decode, _, _ = _opened(decoder, registry)
    try:
        decode(ODD[what], {})
    except DataError:
        return
    except Exception as error:
        wrong(
            f"an output {what} gives {type(error).__name__}: {message_of(error)}",
            "raise DataError(what was wrong, what to do)",
        )


def _opened(decoder: Entry, registry: Registry) -> tuple[Any, TaskExample, Any]:
    spec = decoder.spec
    with blaming("open() fails", "let open take a config"):
        decode = spec.open(spec.config() if spec.config else None)
    known = registry.entries("task")
    tasks = [known[name].spec for name in spec.tasks if name in known]
    if not (own := [task for task in tasks if task.decoder == spec.name]):
        pytest.skip("no task has it as its own decoder, so there is no example of outputs")
    return decode, example_of(own[0]), own[0].open()


def _first(example: TaskExample, count: int) -> tuple[Any, Any]:
    part = taken(example, slice(0, count))
    return part.outputs, part.inputs


def _near(one: Any, two: Any) -> bool:
    """Whether two rows are the same, numbers up to rounding."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_near(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(_near, one, two))
    if isinstance(one, float) and isinstance(two, float):
        return bool(np.isclose(one, two, rtol=1e-4, atol=1e-6))
    return bool(one == two)
