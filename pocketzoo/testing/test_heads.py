"""Conformance of heads: accepted features, training, evaluation, classes."""

from __future__ import annotations

import json
from dataclasses import is_dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import unavailable
from pocketzoo.zoo.catalog.head_task import decoder_for, head_task
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import FeatureKind, FeatureSpec, HeadSpec
from pocketzoo.zoo.catalog.task import TaskSpec
from pocketzoo.zoo.hub.weights import load_state, read_weights
from pocketzoo.zoo.models.heads import build_head
from pocketzoo.zoo.modules.outputs import outputs_of

SHAPES: dict[FeatureKind, tuple[str | int, ...]] = {
    "map": ("batch", 12, 5, 6),
    "vector": ("batch", 12),
    "sequence": ("batch", 9, 12),
}
BATCH = 3


def test_it_takes_known_features(head: Entry) -> None:
    """At least one kind of them."""
    takes = head.spec.takes
    if not takes or not set(takes) <= set(SHAPES):
        wrong(f"head {head.name!r} takes {takes!r}", f"name one or more of: {', '.join(SHAPES)}")


def test_its_task_and_decoder_are_registered(head: Entry, registry: Registry) -> None:
    """A task by its name, "*" for what a model reads; a decoder of that task; a loss that torch has."""
    spec: HeadSpec = head.spec
    for task in _tasks(spec, registry):
        with blaming(f"its decoder is {spec.decoder or task.decoder!r}", "name one that is for its task"):
            decoder_for(spec.decoder or task.decoder, task, registry)
    if spec.loss and not callable(getattr(functional, spec.loss, None)):
        wrong(f"its loss is {spec.loss!r}", "name a function of torch.nn.functional, such as cross_entropy")


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
    """Its outputs have an item for each sample, are finite, the same each time in eval mode, and can be decoded."""
    for features in _features(head.spec, registry):
        with blaming(f"build() fails on a {features.kind} {features.shape}", "let build take (features, outputs)"):
            module = build_head(head.spec, features, outputs).eval()
        x = _values(features)
        with blaming(f"it does not run on a {features.kind}", f"leave {features.kind!r} out of takes"), torch.no_grad():
            one, two = (outputs_of(module(x)) for _ in range(2))
        for name, out in one.items():
            if not isinstance(out, Tensor) or out.shape[:1] != (BATCH,):
                actual = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                wrong(f"its output {name!r} is {actual} at batch {BATCH}", "return a tensor, or tensors by name")
            if not torch.isfinite(out).all() or not torch.equal(out, two[name]):
                wrong("two runs on one input differ, or are not finite", "switch off dropout unless self.training")
        for task in _tasks(head.spec, registry):
            decoder = decoder_for(head.spec.decoder or task.decoder, task, registry)
            config = head.spec.decoder_config
            config = decoder.config() if config is None and decoder.config is not None else config
            with blaming(f"{decoder.name} does not decode its outputs", "name a decoder of such outputs"):
                answers = decoder.open(config)({name: out.numpy() for name, out in one.items()}, {})
                if len(answers) != BATCH:
                    wrong(f"{decoder.name} gives {len(answers)} answers for {BATCH} samples", "give one for each")


def test_it_can_be_trained(head: Entry, registry: Registry) -> None:
    """The sum of its squared outputs is a number and gives every parameter a gradient."""
    features = next(iter(_features(head.spec, registry)), None)
    if features is None:
        pytest.skip("its features are unknown")
    with torch.random.fork_rng(), blaming("a step of training fails", "return tensors with gradients"):
        torch.manual_seed(0)
        module: nn.Module = build_head(head.spec, features, BATCH).train()
        value = torch.stack([out.square().sum() for out in outputs_of(module(_values(features))).values()]).sum()
        if any(p.requires_grad for p in module.parameters()):
            value.backward()
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if not torch.isfinite(value) or without:
        wrong(f"its loss is {float(value)}, and {without or 'nothing'} has no gradient", "use every parameter")


def test_it_knows_its_classes(head: Entry, registry: Registry) -> None:
    """A pretrained head has a label for each output, and no two of them are equal."""
    if head.spec.labels is None:
        kinds = {task.targets for task in _tasks(head.spec, registry)}
        if head.spec.weights is not None and kinds & {"classes", "flags"} and not head.spec.outputs:
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


def _tasks(spec: HeadSpec, registry: Registry) -> list[TaskSpec]:
    """The tasks it may be for: one, or of a head for any backbone one for each kind of input."""
    if spec.backbone:
        with blaming(f"its task is {spec.task!r}", "name a task that a plugin declares"):
            return [head_task(spec, registry.get("backbone", spec.backbone).input, registry)]
    found = [entry.spec for entry in registry.find(spec.task or "-", kind="task")]
    found += [entry.spec for entry in registry.find(kind="task") if spec.returns and spec.returns in entry.spec.former]
    if not found:
        wrong(f"its task is {spec.task!r}", f"name one of: {', '.join(registry.entries('task'))}")
    return found


def _features(spec: HeadSpec, registry: Registry) -> list[FeatureSpec]:
    """Those of its backbone, or a small example of each kind that it takes."""
    if not spec.backbone:
        return [FeatureSpec(kind, SHAPES[kind]) for kind in spec.takes if kind in SHAPES]
    with blaming(f"its backbone {spec.backbone!r}", "declare that backbone in pocketzoo_backbones"):
        features: FeatureSpec = registry.get("backbone", spec.backbone).features
    if features.kind not in spec.takes:
        wrong(f"its backbone gives a {features.kind}, it takes {', '.join(spec.takes)}", "correct takes or backbone")
    return [features]


def _values(features: FeatureSpec) -> Tensor:
    """The same each time; an axis of free length is short."""
    shape = [9 if isinstance(d, str) else d for d in features.shape[1:]]
    return torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(0))
