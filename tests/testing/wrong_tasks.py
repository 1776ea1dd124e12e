"""Tasks, decoders and processors with one defect each, and one of each that has none. Part of wrong_zoo.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.processor import ProcessorSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.task import DecoderSpec, Estimate, MetricSpec, TaskExample, TaskSpec
from pocketzoo.zoo.data.processors.base import ProcessorBase

# -- tasks


@dataclass(frozen=True)
class Answers:
    classes: np.ndarray

    def __len__(self):
        return len(self.classes)


class Right:
    """How many are right."""

    def __init__(self, fault, of=None):
        self.fault, self.right, self.count = fault, 0.0, 0
        if fault == "lambda":
            self.of = lambda: 0

    def update(self, answers, targets):
        targets = getattr(targets, "classes", targets)
        if self.fault == "last":
            self.right, self.count = 0.0, 0
        self.right += float((answers.classes == targets).sum())
        self.count += len(targets)

    def merge(self, other):
        self.right, self.count = self.right + other.right, self.count + other.count

    def result(self):
        if not self.count and self.fault != "zero":
            raise DataError("no sample was scored", "give one")
        value = self.right / max(self.count, 1)
        names = {"metric": "rightness", "half": "agreement"}
        value = value / 2 if self.fault == "half" else value
        return {names.get(self.fault, "right"): Estimate(value), "agreement": Estimate(value)}


class Task:
    metric = MetricSpec(name="right")

    def __init__(self, fault):
        self.fault = fault
        if fault == "rows":
            self.rows = None

    def prepared(self, dataset, labels):
        if self.fault == "targets":
            return Dataset("made up", (), {n: Split(s.samples, np.zeros(len(s))) for n, s in dataset.splits.items()})
        return dataset

    def scores(self, labels):
        return Right(self.fault)

    def agreement(self):
        return Right("half" if self.fault == "agreement" else "")

    def chance(self, targets):
        return 2.0 if self.fault == "chance" else 0.25

    def rows(self, answers, labels, top):
        return [{"class": each if self.fault == "plain" else labels[int(each)]} for each in answers.classes]

    def draw(self, sample, answer, target, labels):
        said = f"{sample} {answer['class']} {target}"
        return said if self.fault == "html" else escape(said)


class Training:
    def __init__(self, fault):
        self.fault = fault

    def outputs(self, dataset, model):
        return len(dataset.labels)

    def begin(self, head, targets, settings):
        pass

    def loss(self, outputs, targets):
        from torch.nn import functional

        reduction = "mean" if self.fault == "mean" else "sum"
        return functional.cross_entropy(next(iter(outputs.values())), targets, reduction=reduction)

    def weight(self, targets):
        import torch

        return torch.tensor(float(len(targets)))

    def move(self, targets, matrix):
        return 1 - targets


def example(samples, seed):
    targets = np.random.default_rng(seed).integers(0, 4, samples)
    return TaskExample(outputs={"out": np.eye(4, dtype=np.float32)[targets]}, targets=targets, labels=tuple("abcd"))


def task(name, fault="", decoder="fine-decoder", **fields):
    return TaskSpec(
        name=name,
        summary="classes",
        open=lambda: Task(fault),
        decoder=decoder,
        training=lambda: Training(fault),
        **fields,
    )


def tasks():
    return [
        task("fine-task"),
        task("task-without-rows", "rows"),
        task("task-no-decoder", decoder="nowhere"),
        task("task-other-decoder", decoder="class-scores"),
        task("task-no-metric", "metric"),
        task("task-zero", "zero"),
        task("task-last-batch", "last"),
        task("task-lambda", "lambda"),
        task("task-disagrees", "agreement"),
        task("task-chance", "chance"),
        task("task-makes-targets", "targets"),
        task("task-numpy", "plain"),
        task("task-html", "html"),
        task("task-mean", "mean"),
        task("task-of-classes", targets="arrays", example=example),
        task("task-moved", moved_by=("shift",)),
    ]


# -- decoders


@dataclass
class LooseConfig:
    output: str = ""


@dataclass(frozen=True)
class OneOutput:
    output: str = ""


class Decoder:
    def __init__(self, fault):
        self.fault = fault

    def __call__(self, outputs, inputs):
        out = next(iter(outputs.values()))
        if self.fault != "odd" and (out.ndim != 2 or out.dtype.kind != "f" or out.shape[1] != 4):
            raise DataError(f"the output is {out.dtype} of shape {out.shape}", "give a score for each of 4 classes")
        if self.fault == "batch":
            out = out - out.mean(0)
        return Answers(out.argmax(1))


def decoder(name, fault="", tasks=("fine-task",), config=None):
    return DecoderSpec(name=name, summary="s", tasks=tasks, open=lambda config: Decoder(fault), config=config)


def decoders():
    own = tuple(spec.name for spec in tasks() if spec.decoder == "fine-decoder")
    return [
        decoder("fine-decoder", tasks=own, config=OneOutput),
        decoder("decoder-of-none", tasks=()),
        decoder("decoder-of-nowhere", tasks=("nowhere",)),
        decoder("decoder-loose", config=LooseConfig),
        decoder("decoder-batch", "batch", tasks=("task-of-batch",)),
        decoder("decoder-odd", "odd", tasks=("task-of-odd",)),
    ]


def tasks_of_decoders():
    return [task("task-of-batch", decoder="decoder-batch"), task("task-of-odd", decoder="decoder-odd")]


# -- processors


@dataclass(frozen=True)
class FineInput:
    size: int = 3


@dataclass
class LooseInput:
    size: int = 3


@dataclass(frozen=True)
class SetInput:
    size: frozenset[int] = frozenset({3})


class Numbers(ProcessorBase):
    """A text of numbers."""

    wants = "give numbers with commas between"

    def __init__(self, fault):
        self.fault, self.calls = fault, 0
        self.inputs = (TensorSpec(name="x", shape=("batch", 3)),)
        if fault == "inputs":
            self.inputs = ()
        if fault == "torch":
            import torch  # noqa: F401

    def row(self, sample):
        if isinstance(sample, Path):
            sample = sample.read_text()
        self.calls += 1
        try:
            values = json.loads(f"[{sample}]")
            x = np.array(values, np.float32)
        except (ValueError, TypeError):
            if self.fault == "errors":
                raise
            raise DataError(f"a sample cannot be {sample!r:.20}", self.wants) from None
        if x.shape != (3,):
            raise DataError(f"a sample has {x.shape} numbers", self.wants)
        return {"x": x + self.calls if self.fault == "chance" else x}

    def random(self, count, length=0):
        made = super().random(count, length)
        return {"x": made["x"].astype(np.float64)} if self.fault == "random" else made

    def check_values(self, arrays):
        if self.fault != "nan":
            super().check_values(arrays)

    def reads(self, dataset):
        if self.fault == "reads":
            return Dataset("less", (), {name: split.take(np.arange(0)) for name, split in dataset.splits.items()})
        return dataset


def processor(name, fault="", config=FineInput, **changes):
    return ProcessorSpec(
        **{
            "name": name, "summary": "s", "modality": "tabular", "reads": "numbers with commas between",
            "config": config, "open": lambda config, files: Numbers(fault), "example": _example, **changes,
        }
    )  # fmt: skip


def _example(config, folder):
    (folder / "a.txt").write_text("1, 2, 3")
    return [folder / "a.txt", "4, 5, 6"]


def processors():
    """Of a config of its own each: it is what a processor is found by."""

    def own(name):
        return dataclass(frozen=True)(type(name, (), {"__annotations__": {"size": int}, "size": 3}))

    return [
        processor("fine-processor"),
        processor("processor-loose", config=LooseInput),
        processor("processor-set", config=SetInput),
        processor("processor-mute", config=own("Mute"), reads=" "),
        processor("processor-no-inputs", "inputs", config=own("NoInputs")),
        processor("processor-random", "random", config=own("Random")),
        processor("processor-chance", "chance", config=own("Chance")),
        processor("processor-errors", "errors", config=own("Errors")),
        processor("processor-nan", "nan", config=own("TakesNan")),
        processor("processor-reads", "reads", config=own("ReadsLess")),
        processor("processor-torch", "torch", config=own("Torch")),
    ]
