"""Distillation: fine-tune a compressed model to reproduce the outputs of the original, on samples without labels.

First the features of all blocks that still have their shape are matched (FitNets, Romero et al. 2015, arXiv:1412.6550),
then the outputs, by squared error, which for logits does as well as softened classes (Kim et al. 2021,
arXiv:2105.08919). Batch norm keeps its statistics, and weights that are zero stay zero. An eighth of the samples is
held out: the epoch that is nearest to the original there is the one that counts, the beginning too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.configs import DistillConfig
from pocketzoo.compress.distillation.fake_quantization import FakeInt8
from pocketzoo.compress.plans import DistillPlan
from pocketzoo.compress.statistics.calibration_batches import Inputs, as_tensors, held_out_of, size_of, take
from pocketzoo.compress.statistics.eligible_layers import copied
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.core.keys import cache_key
from pocketzoo.train.epoch_scores import EpochScores
from pocketzoo.train.optimizer_step import OptimizerStep
from pocketzoo.train.snapshot import SnapshotFile, state_of
from pocketzoo.zoo.catalog.compressor import Distillation
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.models.layer_hooks import after
from pocketzoo.zoo.modules.outputs import float_outputs

HELD_OUT = 8  # one sample in so many
OBSERVED = 8  # batches that ranges are taken from
SPARSE = 0.01  # fraction of zeros from which a weight counts as pruned: the zeros stay


def plan(model: nn.Module, config: DistillConfig, samples: Iterable[Arrays], target: TargetSpec) -> DistillPlan:
    """What was asked for: nothing of it depends on the model."""
    return DistillPlan(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        features=config.features,
        patience=config.patience,
        seed=config.seed,
        quantized=config.quantized,
    )


def apply(model: nn.Module, plan: DistillPlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    """A copy: distillation changes no structure, and without an original there is nothing to learn."""
    return copied(model)


def distill(model: nn.Module, plan: DistillPlan, samples: Iterable[Arrays], context: Distillation) -> nn.Module:
    """A new model of the same structure, nearer to ``context.teacher`` on the samples that are held out, or as near.

    With ``plan.quantized`` it is nearer when it computes in 8 bits (quantization-aware training), and its weights are
    those that 8 bits can tell apart: the int8 step rounds them to themselves.

    The same plan, model and samples give the same model, also when the work was interrupted: each epoch is kept in
    ``context.folder``, and the same call resumes from there.

    Raises:
        DataError: fewer than two samples, or a teacher whose outputs are not finite.
    """
    student = copied(model).requires_grad_(True)
    teacher = copied(context.teacher).requires_grad_(False)
    train, held = _split(samples, plan.batch_size)
    with torch.no_grad():
        reference_outputs = [float_outputs(teacher(*x)) for x in held]
    if not all(torch.isfinite(y).all() for outputs in reference_outputs for y in outputs.values()):
        raise DataError("the outputs of the original model are not finite", "check the samples for NaN or infinity")
    blocks = _blocks(student, teacher, held[0])
    masks = {name: p != 0 for name, p in student.named_parameters() if p.ndim > 1 and (p == 0).float().mean() > SPARSE}
    optimizer, step = torch.optim.Adam(student.parameters(), lr=plan.learning_rate), OptimizerStep()
    run = FakeInt8(student) if plan.quantized else student
    _observe(run, train)
    snapshot = SnapshotFile(context.folder / "distillation.safetensors", _key(plan, model))
    scores = snapshot.record(EpochScores) or EpochScores(best=-_distance(run, held, reference_outputs))
    best = state_of(student)
    snapshot.load(model=student, best=best, optimizer=optimizer)
    first = round(plan.features * plan.epochs) if blocks else 0
    epochs = range(scores.epoch, plan.epochs)
    for epoch in context.progress.track(epochs, "distilling", len(epochs)):
        if scores.stale >= plan.patience and epoch >= first:
            break
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * (1 + math.cos(math.pi * epoch / plan.epochs)) / 2
        _observe(run, train)
        for x in _shuffled(train, plan.batch_size, plan.seed * 100_003 + epoch):
            loss = _loss(run, student, teacher, x, blocks if epoch < first else [])
            if not math.isfinite(step(optimizer, [loss])):
                raise DataError("distillation diverged: the loss is not finite", "lower the learning rate")
            with torch.no_grad():
                for name, mask in masks.items():
                    student.get_parameter(name).mul_(mask)
        if scores.note(epoch, -_distance(run, held, reference_outputs), counts=epoch >= first):
            best.update(state_of(student))
        snapshot.keep(scores, model=student, best=best, optimizer=optimizer)
    student.load_state_dict(best)
    if isinstance(run, FakeInt8):
        run.settle()
    return student.requires_grad_(True).eval()


def _key(plan: DistillPlan, model: nn.Module) -> str:
    """Of the work that a snapshot is of."""
    return cache_key("distillation", plan=plan, weights=model.state_dict())


# -- samples


def _split(samples: Iterable[Arrays], size: int) -> tuple[list[Inputs], list[Inputs]]:
    """Batches to learn from, and batches that are held out: whole sources, else each sample's place decides."""
    train: list[Inputs] = []
    held: list[Inputs] = []
    by_source, start = held_out_of(samples, HELD_OUT), 0
    for batch in samples:
        x = tuple(t.clone() for t in as_tensors(batch))
        out = torch.arange(size_of(x)) % HELD_OUT == HELD_OUT // 2
        if size_of(x) > 1 and not out.any():
            out[0] = True
        if by_source is not None:
            out = by_source[start : start + size_of(x)]
        start += size_of(x)
        held += [take(x, out)] if out.any() else []
        train += [take(x, ~out)] if not out.all() else []
    if not train or not held:
        raise DataError(
            "distillation needs samples to train on and samples to validate on", "give batches of two or more samples"
        )
    if _alike(train):  # texts are of different lengths, and stay in their batches
        rows = _joined(train)
        train = [take(rows, slice(i, i + size)) for i in range(0, size_of(rows), size)]
    return train, held


def _alike(batches: list[Inputs]) -> bool:
    """Whether samples of all have the same shapes."""
    return len({tuple(t.shape[1:] for t in x) for x in batches}) == 1


def _joined(batches: list[Inputs]) -> Inputs:
    return tuple(torch.cat(each) for each in zip(*batches, strict=True))


def _shuffled(train: list[Inputs], size: int, seed: int) -> Iterator[Inputs]:
    generator = torch.Generator().manual_seed(seed)
    if _alike(train):
        rows = _joined(train)
        order = torch.randperm(size_of(rows), generator=generator)
        yield from (take(rows, order[i : i + size]) for i in range(0, size_of(rows), size))
    else:
        yield from (train[i] for i in torch.randperm(len(train), generator=generator).tolist())


# -- distances


def _observe(run: nn.Module, train: list[Inputs]) -> None:
    """Give ranges to what computes in 8 bits."""
    if isinstance(run, FakeInt8):
        run.observe(train[:OBSERVED])


def _distance(student: nn.Module, held: list[Inputs], reference_outputs: list[dict[str, Tensor]]) -> float:
    """Squared error over squared outputs, on what is held out, of the worst output; infinite where it is not a number.

    ``reference_outputs`` are those of each batch, by name.
    """
    missed: dict[str, float] = {}
    scale: dict[str, float] = {}
    with torch.no_grad():
        for x, references in zip(held, reference_outputs, strict=True):
            outputs = float_outputs(student(*x))
            for name, b in references.items():
                missed[name] = missed.get(name, 0.0) + float((outputs[name] - b).double().square().sum())
                scale[name] = scale.get(name, 0.0) + float(b.double().square().sum())
    if not all(map(math.isfinite, missed.values())):
        return math.inf
    return max((missed[name] / max(scale[name], 1e-30) for name in missed), default=0.0)


def _loss(run: nn.Module, student: nn.Module, teacher: nn.Module, x: Inputs, blocks: list[str]) -> Tensor:
    """Relative squared error of the outputs, or the mean of those of the blocks and of the outputs.

    ``run`` is the student, or what runs it.
    """
    with torch.no_grad(), _features(teacher, blocks) as theirs:
        references = float_outputs(teacher(*x))
    with _features(student, blocks) as ours:
        outputs = float_outputs(run(*x))
    pairs = [*((outputs[name], references[name]) for name in references), *((ours[n], theirs[n]) for n in blocks)]
    return torch.stack([F.mse_loss(a, b) / b.square().mean().clamp_min(1e-12) for a, b in pairs]).mean()


def _blocks(student: nn.Module, teacher: nn.Module, x: Inputs) -> list[str]:
    """Modules that both have, that run once, and whose outputs have one shape in both."""
    names = [name for name, m in student.named_modules() if name and not isinstance(m, nn.Dropout | nn.Identity)]
    shared = [name for name in names if name in dict(teacher.named_modules())]
    with torch.no_grad(), _features(student, shared) as ours, _features(teacher, shared) as theirs:
        student(*x)
        teacher(*x)
    return [
        name
        for name in shared
        if ours.get(name) is not None
        and theirs.get(name) is not None
        and ours[name].shape == theirs[name].shape
        and ours[name].is_floating_point()
    ]


@contextmanager
def _features(model: nn.Module, names: list[str]) -> Iterator[dict[str, Any]]:
    """What the named modules give in a forward pass; None for one that runs twice."""
    features: dict[str, Any] = {}

    def note(name: str, layer: nn.Module, inputs: object, out: object) -> None:
        features[name] = out.clone() if isinstance(out, Tensor) and name not in features else None

    with after(model, names, note):
        yield features
