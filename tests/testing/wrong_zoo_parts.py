"""What wrong_zoo builds, each with the defect that ``fault`` names."""

from __future__ import annotations

import copy
import itertools
import shutil

import numpy as np
from torch import nn
from torch.nn import functional as F

calls = itertools.count()


class Net(nn.Module):
    def __init__(self, fault="") -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.body = nn.Conv2d(16, 32, 3, padding=1)
        self.unused = nn.Identity()
        self.fault = fault

    def forward(self, x):
        y = self.body(self.stem(x))
        if self.fault == "batch":
            return y.reshape(1, 32, 8, 8)
        if self.fault == "nan":
            return y / 0 * 0
        if self.fault == "tuple":
            return y, y
        if self.fault == "chance":
            return F.dropout(y, training=True)
        if self.fault == "branch":
            return y if x.sum().item() > 3 else -y
        if self.fault == "several":
            return {"deep": y, "early": self.stem(x)}
        if self.fault == "fragile":  # it looks at its own layers, which pruning changes; low rank sees it and stops
            whole = isinstance(self.body, nn.Conv2d) and (self.body.in_channels, self.body.out_channels) == (16, 32)
            return y if whole else y * float("nan")
        return y


def raises():
    raise RuntimeError("no such network")


def text():
    return "a network"


class Head(nn.Module):
    def __init__(self, features, outputs, fault) -> None:
        super().__init__()
        self.kind, self.fault = features.kind, fault
        self.linear = nn.Linear(features.channels, outputs + (fault == "outputs"))
        self.spare = nn.Linear(2, 2) if fault == "unused" else nn.Identity()

    def forward(self, x):
        if self.kind == "map" or self.fault == "map":
            x = x.mean((2, 3))
        elif self.kind == "sequence":
            x = x.mean(1)
        return self.linear(F.dropout(x, training=True) if self.fault == "chance" else x)


def head(features, outputs, fault=""):
    return Head(features, outputs, fault)


class SumOfHeads(nn.Module):
    def __init__(self, features, outputs, fault="") -> None:
        super().__init__()
        self.own = nn.ModuleDict({name.replace(".", "-"): Head(spec, outputs, "") for name, spec in features.items()})
        self.fault = fault

    def forward(self, features):
        features = {name: x[..., None] if x.ndim == 2 and "mask" in name else x for name, x in features.items()}
        if self.fault == "first":  # it takes the first for all that there is
            features = dict([*features.items()][:1])
        return sum(self.own[name](x) for name, x in features.items())


def optional_head(features, outputs, options):
    return Head(features, outputs, "")


def two_arguments(features, outputs):
    return Head(features, outputs, "")


def plan(model, config, samples, target, fault=""):
    from wrong_zoo import Plan, SetPlan

    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if fault == "model":
        next(model.parameters()).data.mul_(2)
    if fault == "samples":
        next(iter(samples[0].values()))[:] = 0
    if fault == "set":
        return SetPlan(frozenset(layers))
    return Plan(tuple(layers), next(calls) if fault == "chance" else 0)


def apply(model, plan, samples=None, fault=""):
    made = model if fault == "model" else copy.deepcopy(model)
    for name in plan.layers:
        made.get_submodule(name).weight.data.mul_(float("nan") if fault == "nan" else 0.5)
        if fault == "forgets" and samples is not None:
            made.get_submodule(name).bias = None
    return made


def export(graph, out, target, progress, fault=""):
    if fault == "nothing":
        return
    shutil.copyfile(graph, out)
    if fault == "eats":
        graph.write_bytes(b"")


def noise(fault=""):
    from pocketzoo.zoo.catalog.dataset import Dataset, Split
    from pocketzoo.zoo.data.batches import from_arrays

    if fault == "fails":
        raise ZeroDivisionError("no samples")
    generator = np.random.default_rng(next(calls) if fault == "chance" else 0)
    x = generator.integers(0, 255, (60, 8, 8), dtype=np.uint8)
    y = np.arange(60) % 2
    if fault == "array":
        return x
    found = from_arrays("noise", ("a", "b"), x, y)
    splits = dict(found.splits)
    if fault == "empty":
        splits["val"] = Split(x[:0], y[:0])
    if fault == "leaks":
        splits["test"] = splits["val"]
    if fault == "targets":
        splits = {name: Split(s.samples, s.targets + 1) for name, s in splits.items()}
    if fault == "unseen":
        train = splits["train"]
        splits["train"] = Split(train.samples[train.targets == 0], train.targets[train.targets == 0])
    return Dataset("noise", ("a", "b"), splits)
