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
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import METRICS, PER_TOKEN, RETURNS, FeatureKind, FeatureSpec, HeadSpec
from pocketzoo.zoo.hub.weights import load_state, read_weights
from pocketzoo.zoo.models.heads import build_head

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


def test_its_loss_and_metric_exist(head: Entry) -> None:
    """``fit`` looks both up by name; what it does not train yet may leave its loss out."""
    spec: HeadSpec = head.spec
    if spec.returns not in RETURNS:
        wrong(f"it returns {spec.returns!r}", f"name one of: {', '.join(RETURNS)}; softmax is added by losses")
    if not callable(getattr(functional, spec.loss, None)) and (spec.loss or spec.returns in METRICS):
        wrong(f"its loss is {spec.loss!r}", "name a function of torch.nn.functional, such as cross_entropy")
    if spec.metric != METRICS.get(spec.returns, ""):
        wrong(f"its metric is {spec.metric!r}", f"for {spec.returns} it is {METRICS.get(spec.returns, '')!r}")


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
    for features in _features(head.spec, registry):
        with blaming(f"build() fails on a {features.kind} {features.shape}", "let build take (features, outputs)"):
            module = build_head(head.spec, features, outputs).eval()
        x = _values(features)
        with blaming(f"it does not run on a {features.kind}", f"leave {features.kind!r} out of takes"), torch.no_grad():
            one, two = module(x), module(x)
        expected = (BATCH, x.shape[1], outputs) if head.spec.returns in PER_TOKEN else (BATCH, outputs)
        if not isinstance(one, Tensor) or one.shape != expected:
            actual = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
            wrong(f"for {outputs} outputs it gives {actual} at batch {BATCH}", f"return one tensor {expected}")
        if not torch.isfinite(one).all() or not torch.equal(one, two):
            wrong("two runs on one input differ, or are not finite", "switch off dropout unless self.training")


def test_it_can_be_trained(head: Entry, registry: Registry) -> None:
    """Its loss, or without one the sum of its squared outputs, is a number and gives every parameter a gradient."""
    features = next(iter(_features(head.spec, registry)), None)
    loss = getattr(functional, head.spec.loss, None) if head.spec.loss else lambda out, y: out.square().sum()
    if features is None or loss is None:
        pytest.skip("its features or its loss are unknown")
    with torch.random.fork_rng(), blaming("a step of training fails", "return logits that its loss takes"):
        torch.manual_seed(0)
        module: nn.Module = build_head(head.spec, features, BATCH).train()
        out = module(_values(features)).flatten(0, -2)  # each token is a sample of its own
        classes = torch.arange(len(out)) % BATCH
        value = loss(out, classes if head.spec.loss == "cross_entropy" else torch.rand(out.shape))
        if any(p.requires_grad for p in module.parameters()):
            value.backward()
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if not torch.isfinite(value) or without:
        wrong(f"its loss is {float(value)}, and {without or 'nothing'} has no gradient", "use every parameter")


def test_it_knows_its_classes(head: Entry) -> None:
    """A pretrained head has a label for each output, and no two of them are equal."""
    if head.spec.labels is None:
        if head.spec.weights is not None and head.spec.returns in ("logits", "token-logits"):
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
