"""Transfer learning: a pretrained backbone, frozen, and a new head fitted to the user's data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.errors import DataError, HeadMismatchError, RecipeError, UnknownNameError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle, ModelRef, read_bundle, writing
from pocketzoo.zoo.data import SPLITS, Batches, Dataset, Skipped, SplitName, load_data
from pocketzoo.zoo.heads import build_head, heads_that_fit, plain_options
from pocketzoo.zoo.measure import r2
from pocketzoo.zoo.model import Parts, build, load_pretrained, resolve
from pocketzoo.zoo.pretrained import provenance
from pocketzoo.zoo.registry import Entry, Registry, default_registry
from pocketzoo.zoo.save import save_model
from pocketzoo.zoo.specs import METRICS, HeadSpec

Features = tuple[Tensor, Tensor]  # (N, *features), (N,) classes or (N, outputs) numbers
Score = Callable[[nn.Module, Features], float]


def fit(
    backbone: str,
    out: str | Path,
    *,
    data: str | Path | Dataset | None = None,
    head: str = "linear",
    head_options: Mapping[str, Any] | None = None,
    cut: str = "",
    input_size: int | tuple[int, int] | None = None,
    epochs: int = 40,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Fit ``head`` to ``data`` on a frozen ``backbone`` and write the model as a bundle at ``out``.

    The features are computed once. The head is trained with AdamW (arXiv:1711.05101) on a cosine schedule, and its
    weights are those of the epoch with the best metric on the validation split. Deterministic for a seed.

    A head that returns "values" learns numbers, any other classes. ``head_options`` are the head's own, such as
    ``{"hidden": (1024,), "activation": "gelu"}``; ``pocketzoo info HEAD`` lists them. ``input_size``, in pixels, is the
    side of a square or (height, width); a backbone of convolutions reads any.

    A head with nothing to learn, such as "embedding", takes no ``data``: the backbone is written with it as it is.

    Raises:
        UnknownNameError: no such backbone, head, cut or data set.
        HeadMismatchError: the head cannot read the backbone's features, is pretrained for other classes, or returns
            what no data set here has targets for.
        UnsupportedModelError: the backbone cannot read pictures of ``input_size``.
        RecipeError: an option of the head, or a number above, cannot be what it is.
        DataError: the data cannot be read, or has no classes (for "values": no numbers).
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}.items():
        if not value > 0:
            raise RecipeError(f"{name} cannot be {value}", "it must be above 0")
    registry = registry or default_registry()
    if not backbone.startswith("hf:") and backbone not in registry.entries("backbone") and Path(backbone).exists():
        raise UnknownNameError(f"{backbone!r} is a bundle; fit takes a backbone", "see: pocketzoo list --kind backbone")
    entry = registry.entry("backbone", backbone)
    backbone = entry.name  # of the Hub: with its commit
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size or ())
    if size and (len(size) != 2 or min(size) < 1):
        raise RecipeError(f"input_size cannot be {input_size!r}", "give height and width in pixels")
    ref = ModelRef(backbone=backbone, head=head, outputs=2, cut=cut, head_options=head_options or {}, input_size=size)
    parts = resolve(ref, registry)
    if not parts.head.loss and parts.head.weights is None:
        return _attach(ref, parts, entry, Path(out), data, registry, progress)
    _check_head(parts, ref, registry)  # before data is read
    if data is None:
        raise DataError(f"head {head!r} learns, and there is no data", "give some: --data")
    metric = METRICS[parts.head.returns]
    dataset = (
        data
        if isinstance(data, Dataset)
        else load_data(data, seed=seed, numeric=parts.head.returns == "values", registry=registry)
    )
    ref = replace(ref, outputs=_outputs(dataset, parts.head), head_options=plain_options(parts.head, ref.head_options))
    torch.manual_seed(seed)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)

    skipped = Skipped()
    features = {
        name: _features(model.backbone, dataset, name, parts, skipped if skip_bad else None, progress)
        for name in SPLITS
    }
    loss, score = getattr(F, parts.head.loss), SCORES[metric]
    if metric == "r2":
        loss = _standardised(loss, model.head, features["train"][1])
    history = _train_head(
        model.head, features, loss, score, progress, epochs=epochs, rate=learning_rate, size=batch_size, seed=seed
    )
    metrics: dict[str, Any] = {f"{name}_{metric}": score(model.head, features[name]) for name in ("val", "test")}
    if skipped.names:
        metrics["skipped_pictures"] = len(skipped.names)
    origin = provenance(entry)
    origin["data"] = {
        "name": dataset.name,
        "seed": dataset.seed,
        "sha256": dataset.digest(),
        "samples": {name: len(dataset.split(name)) for name in SPLITS},
    }
    origin["training"] = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        f"val_{metric}": history,
    }
    progress.say("exporting and checking the graph")
    with writing(Path(out)) as draft:
        save_model(
            draft,
            model,
            ref,
            name=Path(out).name,
            labels=dataset.labels,
            returns=parts.head.returns,
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            provenance=origin,
            metrics=metrics,
            files=parts.backbone.files,
        )
    return read_bundle(Path(out))


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
    progress.say("exporting and checking the graph")
    with writing(out) as draft:
        save_model(
            draft,
            model.eval(),
            ref,
            name=out.name,
            labels=(),
            returns=parts.head.returns,
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            provenance=provenance(entry),
            files=parts.backbone.files,
        )
    return read_bundle(out)


def _check_head(parts: Parts, ref: ModelRef, registry: Registry) -> None:
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
    build_head(head, parts.features, ref.outputs, ref.head_options)  # whether these options go with these features


def _outputs(data: Dataset, head: HeadSpec) -> int:
    """How many outputs the head needs for the targets."""
    if head.returns == "values":
        targets = data.split("train").targets
        if not data.numeric or targets is None:
            raise DataError(f"{data.name} has no numbers to learn", f"{head.name} needs an .npz with y, or a .csv")
        return int(targets.shape[1])
    if len(data.labels) < 2:
        raise DataError(f"{data.name} has {len(data.labels)} classes", "fit needs two or more labelled classes")
    return len(data.labels)


def _features(
    backbone: nn.Module,
    data: Dataset,
    name: SplitName,
    parts: Parts,
    skipped: Skipped | None,
    progress: Progress,
) -> Features:
    spec = parts.backbone
    batches = Batches(data.split(name), spec.input, skipped=skipped, files=spec.files)
    found, targets = [], []
    with torch.no_grad():
        for x, y in progress.track(batches, f"features of {name}", len(batches)):
            if y is None:
                raise DataError(f"{data.name} has no classes", "make one sub-folder a class")
            found.append(backbone(torch.from_numpy(x)))
            targets.append(torch.from_numpy(y))
    if not found:
        raise DataError(f"the {name} split of {data.name} is empty", "give each class at least five samples")
    if parts.features.kind == "sequence":  # of different lengths; zeros are what stands behind the end of a text
        longest = max(x.shape[1] for x in found)
        found = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in found]
    return torch.cat(found), torch.cat(targets)


def _train_head(
    head: nn.Module,
    features: dict[SplitName, Features],
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Score,
    progress: Progress,
    *,
    epochs: int,
    rate: float,
    size: int,
    seed: int,
) -> list[float]:
    """Train in place; returns the validation score of every epoch, the best of which the head ends with."""
    generator = torch.Generator().manual_seed(seed)
    x, y = features["train"]
    steps = -(-len(x) // size)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    best, best_state, history = -math.inf, copy.deepcopy(head.state_dict()), []
    for _ in progress.track(range(epochs), "fitting the head", epochs):
        head.train()
        for rows in _shuffled(len(x), size, generator):
            value = loss(head(x[rows]), y[rows])
            if not torch.isfinite(value):
                raise DataError("the loss is not finite", "lower the learning rate, or check the data for NaN")
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        history.append(score(head, features["val"]))
        if history[-1] > best:
            best, best_state = history[-1], copy.deepcopy(head.state_dict())
    head.load_state_dict(best_state)
    head.eval()
    return history


def _shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=generator)
    yield from (order[i : i + size] for i in range(0, count, size))


def _standardised(
    loss: Callable[[Tensor, Tensor], Tensor], head: nn.Module, targets: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """``loss`` in standard deviations of the targets, so that a learning rate fits numbers of any size.

    A head with a method ``standardise(offset, scale)`` is told them, and so starts where the targets are.
    """
    offset, scale = targets.mean(0), targets.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    if callable(standardise := getattr(head, "standardise", None)):
        standardise(offset, scale)
    return lambda out, y: loss((out - offset) / scale, (y - offset) / scale)


@torch.no_grad()
def _run(head: nn.Module, x: Tensor) -> Tensor:
    head.eval()
    return torch.cat([head(x[i : i + 512]) for i in range(0, len(x), 512)])


def _accuracy(head: nn.Module, features: Features) -> float:
    x, y = features
    return float(np.mean(_run(head, x).argmax(1).eq(y).numpy()))


def _r2(head: nn.Module, features: Features) -> float:
    x, y = features
    return r2(_run(head, x).numpy(), y.numpy())


SCORES: dict[str, Score] = {"accuracy": _accuracy, "r2": _r2}
