"""Conformance of processors: inputs as declared, batches as their samples, random ones that fit, configs in bundles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.processors.open_processor import needed_files, open_config

METHODS = ("__call__", "batch", "sample", "reads", "random", "truncated")
# Of what ships, where a config has no defaults and no backbone here has one.
CONFIGS = {
    "table": TableSpec(width=3, columns=("a", "b", "c"), mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0)),
    "arrays": ArraysSpec(
        inputs=(TensorSpec(name="x", shape=("batch", 4)), TensorSpec(name="y", shape=("batch", 2, 2)))
    ),
    "mapping": MappingSpec(fields={"row": TableSpec(width=3), "more": TableSpec(width=2, name="others")}),
}
# Opens it in a process of its own, and says whether that loaded torch.
LIGHT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pocketzoo.testing.test_processors import ProcessorTrial
from pocketzoo.zoo.catalog.registry import default_registry
registry = default_registry()
before = "torch" in sys.modules
ProcessorTrial(registry.entry("processor", sys.argv[2]), registry).processor.random(2)
print(json.dumps(before or "torch" in sys.modules))
"""


class ProcessorTrial:
    """A processor with a config that it can be opened with."""

    def __init__(self, entry: Entry, registry: Registry) -> None:
        self.spec, self.registry = entry.spec, registry

    def configs(self) -> Iterator[tuple[Any, Mapping[str, Path]]]:
        """Of the backbones that read it, with their files; its own defaults; what ships has one here."""
        for entry in self.registry.entries("backbone").values():
            if type(entry.spec.input) is self.spec.config:
                yield entry.spec.input, entry.spec.files
        if self.spec.name in CONFIGS:
            yield CONFIGS[self.spec.name], {}
        try:
            yield self.spec.config(), {}
        except Exception:
            return

    @cached_property
    def config(self) -> Any:
        """The first that needs no file that is not there."""
        for config, files in self.configs():
            if set(needed_files(config, self.registry)) <= set(files):
                return config
        pytest.skip("no backbone here has a config of it, and its config has no defaults")

    @property
    def processor(self) -> Any:
        """The processor; a check of one that is not whole is skipped."""
        if not isinstance(self.opened.inputs, tuple) or not self.opened.inputs:
            pytest.skip("it states no inputs (see test_it_is_whole)")
        return self.opened

    @cached_property
    def opened(self) -> Any:
        """The processor, opened."""
        wanted = self.config
        files = next(files for config, files in self.configs() if config == wanted)
        with blaming("open() fails", "let open take a config and the files of the model by name"):
            return open_config(self.config, files, self.registry)

    def samples(self, folder: Path) -> list[Any]:
        """Samples of the plugin's own making, and arrays that are ready."""
        ready = self.processor.random(2)
        rows = [{t.name: _row(ready[t.name], t, i) for t in self.processor.inputs} for i in range(2)]
        if self.spec.example is None:
            return rows
        with blaming("example() fails", "write samples into the folder, and return them"):
            return [*self.spec.example(self.config, folder), *rows]


@pytest.fixture
def trial(processor: Entry, registry: Registry) -> ProcessorTrial:
    """Of one processor."""
    return ProcessorTrial(processor, registry)


def test_its_config_survives_a_bundle(trial: ProcessorTrial) -> None:
    """A frozen dataclass of plain data."""
    config = trial.spec.config
    if not is_dataclass(config) or not config.__dataclass_params__.frozen:  # type: ignore[union-attr]
        wrong(f"its config is {config!r}", "write @dataclass(frozen=True) above it")
    if trial.spec.parts:
        pytest.skip("its config has those of others")
    with blaming("its config does not come back from JSON", "use fields of plain types and tuples of them"):
        again: Any = from_plain(trial.spec.config, json.loads(json.dumps(to_plain(trial.config))))
    if again != trial.config:
        wrong(f"{trial.config!r:.80} comes back from JSON as another config", "use fields of plain types")


def test_it_says_what_it_reads(trial: ProcessorTrial) -> None:
    """In a few words, and by the endings of files."""
    if not trial.spec.reads.strip():
        wrong("it does not say what it reads", 'state it: "WAV files or their bytes"')
    for suffix in trial.spec.suffixes:
        if suffix != suffix.lower():
            wrong(f"it reads files that end in {suffix!r}", "state it in small letters")


def test_it_is_whole(trial: ProcessorTrial) -> None:
    """It opens, and states the inputs of the model."""
    opened = trial.opened
    if lacking := [name for name in METHODS if not callable(getattr(opened, name, None))]:
        wrong(f"it has no method {lacking[0]!r}", "let its class extend pocketzoo.api.ProcessorBase")
    inputs = opened.inputs
    if not isinstance(inputs, tuple) or not inputs or not all(isinstance(each, TensorSpec) for each in inputs):
        wrong(f"its inputs are {inputs!r:.80}", "state a tuple of TensorSpec, one for each input of the model")
    if len({tensor.name for tensor in inputs}) < len(inputs):
        wrong("two of its inputs have one name", "give each its own")
    if (lengths := opened.lengths) is not None and not 0 < lengths[0] <= lengths[1]:
        wrong(f"its lengths are {lengths}", "state the least and the most of its free axis, or None")


@pytest.mark.parametrize("count", [1, 3])
def test_random_inputs_fit(trial: ProcessorTrial, count: int) -> None:
    """Of the declared shapes and types, the same each time, and taken as a batch as they are."""
    with blaming("random() fails", "give arrays of the shapes and types of its inputs"):
        one, two = trial.processor.random(count), trial.processor.random(count)
    _check(trial.processor.inputs, one, count, "random()")
    if not _equal(one, two):
        wrong("random() gives other arrays each time", "use a generator with a fixed seed")
    with blaming("it does not take what random() gives", "take arrays of the shapes and types of its inputs"):
        taken = trial.processor.batch(one)
    _check(trial.processor.inputs, taken, count, "batch()")


def test_a_batch_is_as_its_samples(trial: ProcessorTrial, tmp_path: Path) -> None:
    """One by one as together, up to what a batch is filled up with; and the same each time."""
    samples = trial.samples(tmp_path)
    for i, sample in enumerate(samples):
        with blaming(f"it does not read sample {i}, {type(sample).__name__}", "read what example() gives, and arrays"):
            one, again, whole = trial.processor([sample]), trial.processor([sample]), trial.processor.batch([sample])
        _check(trial.processor.inputs, one, 1, f"sample {i}")
        if not _equal(one, again):
            wrong(f"sample {i} gives other arrays each time", "take no chance: augmentation is elsewhere")
        if not _equal(one, whole):
            wrong(f"sample {i} gives other arrays by batch()", "let both go the same way")
    with blaming("it does not read samples together", "fill them up to one length"):
        together = trial.processor(samples)
    _check(trial.processor.inputs, together, len(samples), "several samples")
    for i, sample in enumerate(samples):
        alone = trial.processor([sample])
        for tensor in trial.processor.inputs:
            row, part = _row(alone[tensor.name], tensor, 0), _row(together[tensor.name], tensor, i)
            part = part[tuple(slice(0, length) for length in row.shape)]
            if not np.allclose(row, part, rtol=1e-5, atol=1e-6, equal_nan=True):
                wrong(f"sample {i} gives another {tensor.name!r} next to others", "let a sample not depend on others")


@pytest.mark.parametrize(
    "sample", [object(), 3.5, b"\0not a sample", "no such file or so"], ids=lambda s: type(s).__name__
)
def test_what_is_no_sample_is_refused(trial: ProcessorTrial, sample: object) -> None:
    """By a DataError, or it is read after all; not by whatever a library says."""
    opened = trial.processor
    try:
        opened([sample])
    except DataError:
        return
    except Exception as error:
        wrong(
            f"a sample {sample!r:.30} gives {type(error).__name__}: {message_of(error)}", "raise DataError(what, todo)"
        )


def test_arrays_that_do_not_fit_are_refused(trial: ProcessorTrial) -> None:
    """Of another name, of too few axes, with NaN."""
    tensor = trial.processor.inputs[0]
    ready = trial.processor.random(2)
    odd = [{**ready, "nothing of the kind": ready[tensor.name]}, {**ready, tensor.name: ready[tensor.name][None, None]}]
    if ready[tensor.name].dtype.kind == "f":
        odd.append({**ready, tensor.name: np.full_like(ready[tensor.name], np.nan)})
    for each in odd:
        try:
            trial.processor.batch(each)
        except DataError:
            continue
        except Exception as error:
            wrong(f"arrays that do not fit give {type(error).__name__}: {message_of(error)}", "raise DataError")
        wrong("arrays that do not fit are taken", "hold names, shapes and values against its inputs")


def test_data_is_given_as_it_reads_it(trial: ProcessorTrial) -> None:
    """A data set keeps its number of samples and its targets."""
    opened = trial.processor
    ready = opened.random(4)
    samples: Any = [{t.name: _row(ready[t.name], t, i) for t in opened.inputs} for i in range(4)]
    targets = np.arange(4)
    data = Dataset("made up", (), {"train": Split(samples, targets), "val": Split([]), "test": Split([])})
    with blaming("reads() fails", "give back the data set where nothing is to be done"):
        split = opened.reads(data).split("train")
    if len(split) != 4 or not np.array_equal(split.targets, targets):
        wrong("reads() changes the number of samples, or their targets", "change the samples alone")


def test_it_needs_no_torch(trial: ProcessorTrial) -> None:
    """A device runs it too."""
    _ = trial.processor  # skips where it cannot be opened here
    command = [sys.executable, "-c", LIGHT, json.dumps(sys.path), trial.spec.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        wrong(
            f"it does not open in a process of its own: {done.stderr.strip().splitlines()[-1]}", "mend what that names"
        )
    if json.loads(done.stdout.splitlines()[-1]):
        wrong("opening or running it imports torch", "use numpy")


def _row(x: Any, tensor: TensorSpec, i: int) -> Any:
    return x if tensor.batch is None else np.take(x, i, tensor.batch)


def _equal(one: Arrays, two: Arrays) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name], equal_nan=True) for name in one)


def _check(inputs: tuple[TensorSpec, ...], arrays: Arrays, count: int, what: str) -> None:
    """Hold arrays against what was declared."""
    if sorted(arrays) != sorted(tensor.name for tensor in inputs):
        wrong(f"{what} gives {', '.join(arrays)}", f"give {', '.join(tensor.name for tensor in inputs)}")
    for tensor in inputs:
        x = arrays[tensor.name]
        shape = tuple(count if i == tensor.batch else dim for i, dim in enumerate(tensor.shape))
        fits = len(x.shape) == len(shape) and all(
            isinstance(dim, str) or dim == length for dim, length in zip(shape, x.shape, strict=True)
        )
        if not fits or x.dtype != tensor.dtype:
            wrong(
                f"{what} gives {tensor.name!r} as {x.dtype} {x.shape}, and declares {tensor.dtype} {tensor.shape}",
                "give what its inputs say",
            )
