"""Conformance of heads: accepted features, training, evaluation, classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketzoo.core.errors import HeadMismatchError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import unavailable
from pocketzoo.zoo.catalog.head_task import decoder_for, possible_tasks
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import FeatureKind, FeatureSpec, FeatureSpecs, HeadSpec
from pocketzoo.zoo.catalog.task import TaskSpec
from pocketzoo.zoo.hub.weights import load_state, read_weights
from pocketzoo.zoo.models.heads import ALL, build_head, feature_choice

SHAPES: dict[FeatureKind, tuple[str | int, ...]] = {
    "map": ("batch", 12, 5, 6),
    "vector": ("batch", 12),
    "sequence": ("batch", 9, 12),
    "mask": ("batch", 9),
}
BATCH = 3


def test_it_takes_known_features(head: Entry) -> None:
    """At least one kind of them."""
    takes = head.spec.takes
    if not takes or not set(takes) <= set(SHAPES):
        wrong(f"head {head.name!r} takes {takes!r}", f"name one or more of: {', '.join(SHAPES)}")


def test_its_task_is_there(head: Entry, registry: Registry) -> None:
    """Registered, for one at least of the things that models read, with a decoder that is for it."""
    spec: HeadSpec = head.spec
    if not spec.task and not spec.returns:
        wrong("it has no task", 'state it: task="*-classification"')
    if not (tasks := tasks_of(spec, registry)):
        known = ", ".join(registry.entries("task"))
        what = f"its task is {spec.task!r}" if spec.task else f"it returns {spec.returns!r}, which stands for no task"
        wrong(what, f"declare it in pocketzoo_tasks, or name one of: {known}")
    with blaming(f"its decoder {spec.decoder!r}", "declare it in pocketzoo_decoders, with the task among its tasks"):
        for task in tasks:
            decoder_for(spec.decoder or task.decoder, task, registry)


def test_its_loss_exists(head: Entry, registry: Registry) -> None:
    """A function of torch.nn.functional, where the loss of the task is one; "" for what is not fitted."""
    if not callable(getattr(functional, head.spec.loss, None)) and head.spec.loss:
        wrong(f"its loss is {head.spec.loss!r}", "name a function of torch.nn.functional, such as cross_entropy")


def tasks_of(spec: HeadSpec, registry: Registry) -> list[TaskSpec]:
    """The tasks that its models may be for, by what they read."""
    return possible_tasks(spec, registry)


def test_its_options_have_defaults(head: Entry, registry: Registry) -> None:
    """They are a frozen dataclass that survives a bundle, and ``build`` takes them third."""
    options = head.spec.options
    if options is None:
        pytest.skip("it takes no options")
    with blaming("its options cannot be made", "give every field a default"):
        default = options()
        again = from_plain(options, json.loads(json.dumps(to_plain(default))))
    if not is_dataclass(default) or not options.__dataclass_params__.frozen or again != default:
        wrong(
            f"its options are {default!r:.80}", "use a frozen dataclass of numbers, words, booleans and tuples of them"
        )
    for features in _features(head.spec, registry):
        with blaming("it does not build with its own default options", "let build take (features, outputs, options)"):
            head.spec.build(features, 2, default)


@pytest.mark.parametrize("outputs", [2, 7])
def test_it_builds_on_the_features_it_takes(head: Entry, outputs: int, registry: Registry) -> None:
    """The output is (batch, outputs), or that for each token, finite, and the same each time in eval mode."""
    kinds = {str(task.targets) for task in tasks_of(head.spec, registry)}
    for features in _features(head.spec, registry):
        with blaming(f"build() fails on {_said(features)}", "let build take (features, outputs)"):
            module = build_head(head.spec, features, outputs).eval()
        x = _values(features)
        with blaming(f"it does not run on {_said(features)}", "take only the kinds that it can read"), torch.no_grad():
            one, two = module(x), module(x)
        for i, (name, (first, second)) in enumerate(_pairs(one, two).items()):  # the first has as many as asked for
            shaped = isinstance(first, Tensor) and first.shape[:1] == (BATCH,)
            if not shaped or (i == 0 and not _shaped(first, x, outputs, kinds)):
                actual = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
                wrong(
                    f"for {outputs} outputs it gives {actual} at batch {BATCH}{name}",
                    f"return one tensor {(BATCH, outputs)}, or one per token; a task of its own may have others",
                )
            if not torch.isfinite(first).all() or not torch.equal(first, second):
                wrong("two runs on one input differ, or are not finite", "switch off dropout unless self.training")


def _pairs(one: object, two: object) -> dict[str, tuple[Any, Any]]:
    """Outputs of two runs, by words for errors."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return {f" as {name!r}": (one[name], two[name]) for name in one}
    return {"": (one, two)}


def _shaped(out: Tensor, x: Tensor | dict[str, Tensor], outputs: int, kinds: set[str]) -> bool:
    """Whether an output is as its task's targets would have it: classes, numbers and flags have one for each."""
    if kinds == {"arrays"}:
        return True
    tokens = {each.shape[1] for each in (x.values() if isinstance(x, dict) else [x]) if each.ndim == 3}
    return tuple(out.shape) in {(BATCH, outputs), *((BATCH, length, outputs) for length in tokens)}


def test_it_can_be_trained(head: Entry, registry: Registry) -> None:
    """Its loss, or without one the sum of its squared outputs, is a number and gives every parameter a gradient."""
    features = next(iter(_features(head.spec, registry)), None)
    loss = getattr(functional, head.spec.loss, None) if head.spec.loss else lambda out, y: out.square().sum()
    if features is None or loss is None:
        pytest.skip("its features or its loss are unknown")
    classes = {task.targets for task in tasks_of(head.spec, registry)} == {"classes"} and head.spec.loss
    with torch.random.fork_rng(), blaming("a step of training fails", "return logits that its loss takes"):
        torch.manual_seed(0)
        module: nn.Module = build_head(head.spec, features, BATCH).train()
        out = module(_values(features))
        if isinstance(out, Mapping):
            value = torch.stack([each.square().sum() for each in out.values()]).sum()
        elif classes and head.spec.loss == "cross_entropy":
            out = out.flatten(0, -2)  # each token is a sample of its own
            value = loss(out, torch.arange(len(out)) % BATCH)
        else:
            value = out.square().sum() if head.spec.loss == "cross_entropy" else loss(out, torch.rand(out.shape))
        if any(p.requires_grad for p in module.parameters()):
            value.backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if not torch.isfinite(value) or without:
        wrong(f"its loss is {float(value)}, and {without or 'nothing'} has no gradient", "use every parameter")


def test_it_knows_its_classes(head: Entry, registry: Registry) -> None:
    """A pretrained head has a label for each output, and no two of them are equal."""
    if head.spec.labels is None:
        decided = [task for task in tasks_of(head.spec, registry) if task.training and task.targets == "classes"]
        if head.spec.weights is not None and decided and not head.spec.outputs:
            wrong("it has weights and no labels", "give labels=, a function that returns a tuple of names")
        pytest.skip("it has no classes")
    with blaming("labels() fails", "return a tuple of names"):
        labels = head.spec.labels()
    if not isinstance(labels, tuple) or not all(isinstance(n, str) and n and n.strip() == n for n in labels):
        wrong(f"its labels are {labels!r:.80}", "return a tuple of names without spaces around them")
    if len(set(labels)) != len(labels) or len(labels) < 2:
        wrong(f"of its {len(labels)} labels {len(set(labels))} differ", "give two or more, each once")


def test_its_weights_fit(head: Entry, registry: Registry) -> None:
    """The pinned file holds the state dict of what is built for its backbone and labels."""
    spec: HeadSpec = head.spec
    if spec.weights is None or spec.labels is None:
        pytest.skip("it is not pretrained")
    if not spec.backbone:
        wrong("it has weights and no backbone", "name the backbone whose features they were trained on")
    if reason := unavailable(spec.weights):
        pytest.skip(reason)
    (features,) = _features(spec, registry)
    with blaming("its weights do not fit", "pin the file that build() belongs to; prefix and read rename its keys"):
        load_state(build_head(spec, features, len(spec.labels())), read_weights(spec.weights), spec.name)


def _features(spec: HeadSpec, registry: Registry) -> list[FeatureSpecs]:
    """Those of its backbone, or small examples: each kind that it takes, or by the names that it reads."""
    kinds = [kind for kind in spec.takes if kind in SHAPES]
    every = spec.reads == (ALL,)
    if not spec.backbone and len(spec.reads) < 2 and not every:
        return [FeatureSpec(kind, SHAPES[kind]) for kind in kinds]
    if not spec.backbone:
        names = [f"one-{kind}" for kind in kinds] if every else spec.reads
        turns = range(1 if every else len(kinds))  # which name has which kind nobody says, so each has its turn
        return [
            {name: FeatureSpec(kind, SHAPES[kind]) for name, kind in zip(names, cycle(kinds[i:] + kinds[:i]))}
            for i in turns
        ]
    with blaming(f"its backbone {spec.backbone!r}", "declare that backbone in pocketzoo_backbones"):
        backbone = registry.get("backbone", spec.backbone)
    try:
        return [feature_choice(spec, backbone, backbone.features).built_on]
    except HeadMismatchError as error:
        wrong(error.message, "correct takes, reads or backbone")


def _said(features: FeatureSpecs) -> str:
    """Features in words."""
    if isinstance(features, Mapping):
        return " and ".join(f"{name!r}, a {each.kind} {each.shape}" for name, each in features.items())
    return f"a {features.kind} {features.shape}"


def _values(features: FeatureSpecs) -> Any:
    """The same each time; an axis of free length is short, and nothing is padded."""
    if isinstance(features, Mapping):
        return {name: _values(each) for name, each in features.items()}
    if features.kind == "mask":
        return torch.ones(BATCH, 9)
    shape = [9 if isinstance(d, str) else d for d in features.shape[1:]]
    return torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(0))
