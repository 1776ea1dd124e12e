"""Transfer learning: a pretrained backbone, frozen, and a new head fitted to the user's data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
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
from pocketzoo.zoo.model import build, load_pretrained, resolve
from pocketzoo.zoo.pretrained import provenance
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.save import save_model
from pocketzoo.zoo.specs import BackboneSpec

Features = tuple[Tensor, Tensor]  # (N, *features), (N,)


def fit(
    backbone: str,
    out: str | Path,
    *,
    data: str | Path | Dataset,
    head: str = "linear",
    cut: str = "",
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

    Raises:
        UnknownNameError: no such backbone, head, cut or data set.
        HeadMismatchError: the head cannot read the backbone's features, or is pretrained for other classes.
        DataError: the data cannot be read, or has no classes.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}.items():
        if not value > 0:
            raise RecipeError(f"{name} cannot be {value}", "it must be above 0")
    registry = registry or default_registry()
    if not backbone.startswith("hf:") and backbone not in registry.entries("backbone") and Path(backbone).exists():
        raise UnknownNameError(f"{backbone!r} is a bundle; fit takes a backbone", "see: pocketzoo list --kind backbone")
    entry = registry.entry("backbone", backbone)
    backbone = entry.name  # of the Hub: with its commit
    parts = resolve(ModelRef(backbone=backbone, head=head, outputs=2, cut=cut), registry)  # before data is read
    if parts.head.weights is not None:
        raise HeadMismatchError(f"head {head!r} is fitted already, to its own classes", "fit a new one: --head linear")
    dataset = data if isinstance(data, Dataset) else load_data(data, seed=seed, registry=registry)
    if len(dataset.labels) < 2:
        raise DataError(f"{dataset.name} has {len(dataset.labels)} classes", "fit needs two or more labelled classes")
    ref = ModelRef(backbone=backbone, head=head, outputs=len(dataset.labels), cut=cut)
    torch.manual_seed(seed)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)

    skipped = Skipped()
    features = {
        name: _features(model.backbone, dataset, name, parts.backbone, skipped if skip_bad else None, progress)
        for name in SPLITS
    }
    loss = getattr(F, parts.head.loss)
    history = _train_head(
        model.head, features, loss, progress, epochs=epochs, rate=learning_rate, size=batch_size, seed=seed
    )
    metrics: dict[str, Any] = {f"{name}_accuracy": _accuracy(model.head, features[name]) for name in ("val", "test")}
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
        "val_accuracy": history,
    }
    progress.say("exporting and checking the graph")
    with writing(Path(out)) as draft:
        save_model(
            draft,
            model,
            ref,
            name=Path(out).name,
            labels=dataset.labels,
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            provenance=origin,
            metrics=metrics,
            files=parts.backbone.files,
        )
    return read_bundle(Path(out))


def _features(
    backbone: nn.Module,
    data: Dataset,
    name: SplitName,
    spec: BackboneSpec,
    skipped: Skipped | None,
    progress: Progress,
) -> Features:
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
    if spec.features.kind == "sequence":  # of different lengths; zeros are what stands behind the end of a text
        longest = max(x.shape[1] for x in found)
        found = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in found]
    return torch.cat(found), torch.cat(targets)


def _train_head(
    head: nn.Module,
    features: dict[SplitName, Features],
    loss: Callable[[Tensor, Tensor], Tensor],
    progress: Progress,
    *,
    epochs: int,
    rate: float,
    size: int,
    seed: int,
) -> list[float]:
    """Train in place; returns the validation accuracy of every epoch, the best of which the head ends with."""
    generator = torch.Generator().manual_seed(seed)
    x, y = features["train"]
    steps = -(-len(x) // size)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    best, best_state, history = -1.0, copy.deepcopy(head.state_dict()), []
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
        history.append(_accuracy(head, features["val"]))
        if history[-1] > best:
            best, best_state = history[-1], copy.deepcopy(head.state_dict())
    head.load_state_dict(best_state)
    head.eval()
    return history


def _shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=generator)
    yield from (order[i : i + size] for i in range(0, count, size))


@torch.no_grad()
def _accuracy(head: nn.Module, features: Features) -> float:
    head.eval()
    x, y = features
    answers = [head(x[i : i + 512]).argmax(1) for i in range(0, len(x), 512)]
    return float(np.mean(torch.cat(answers).eq(y).numpy()))
