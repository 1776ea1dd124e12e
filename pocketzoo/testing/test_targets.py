"""Conformance of targets: consistent facts that survive a manifest, and usable checks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.deploy.check.check_model import check_graph
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import Backbone
from pocketzoo.zoo.backends.open_backend import with_facts
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import TargetSpec

OPSET = 13  # per-channel quantization came with it
PRECISIONS = ("fp32", "bf16", "fp16", "fp8", "int8")


def test_it_is_complete(target: Entry) -> None:
    """Its facts go together."""
    with blaming("its facts cannot be compared", "use the types that TargetSpec states"):
        _check(target.spec)


def _check(spec: TargetSpec) -> None:
    if spec.int8.activations not in ("uint8", "int8"):
        wrong(f"its activations are {spec.int8.activations!r}", 'state "uint8" or "int8"')
    if spec.int8.symmetric and spec.int8.activations != "int8":
        wrong("its activations are symmetric and uint8", 'state "int8": only there zero is in the middle')
    if spec.channel_multiple < 1:
        wrong(f"its channel_multiple is {spec.channel_multiple}", "state 1 or more")
    if spec.int8_multiple < 0:
        wrong(f"its int8_multiple is {spec.int8_multiple}", "state 1 or more, or 0 where it is the same")
    if spec.opset < OPSET:
        wrong(f"its opset is {spec.opset}", f"state {OPSET} or more")
    if spec.half_multiple < 1:
        wrong(f"its half_multiple is {spec.half_multiple}", "state 1 or more")
    if spec.newest_opset and spec.newest_opset < spec.opset:
        wrong(f"it reads up to opset {spec.newest_opset}, and is written in {spec.opset}", "lower its opset")
    if unknown := [p for p in spec.precisions if p not in PRECISIONS]:
        wrong(f"it computes in {unknown[0]!r}", f"state some of: {', '.join(PRECISIONS)}")
    if "fp32" not in spec.precisions:
        wrong(f"it computes in {', '.join(spec.precisions)} alone", "state fp32 too, which every graph has")
    if ("fp8" in spec.precisions) != (spec.fp8 is not None):
        wrong(
            "its precisions and its fp8 do not go together",
            "state fp8=Fp8Encoding(...) with it, or neither",
        )
    for advice in (spec.refuses, spec.slow):
        if mute := [op for op, todo in advice.items() if not todo.strip()]:
            wrong(f"it says of {mute[0]} not what to do", "say it in a few words")
    if both := sorted(set(spec.refuses) & set(spec.slow)):
        wrong(f"it refuses {both[0]}, and runs it slowly", "state one of the two")


def test_its_back_end_is_there(target: Entry, registry: Registry) -> None:
    """And knows its facts, by their type."""
    spec = with_facts(target.spec, registry)  # of fields of the previous release, which a warning names
    if spec.former:
        field, value = min(spec.former.items())
        wrong(f"no back end knows its {field} {value!r}", "state backend= and facts=, and declare that back end")
    if spec.facts is not None and not spec.backend:
        wrong("it has facts and names no back end", "name the back end that knows them: backend=")
    if not spec.backend:
        pytest.skip("it names no back end")
    with blaming(f"its back end {spec.backend!r}", "name a registered back end, or declare it"):
        owner = registry.get("backend", spec.backend)
    if spec.facts is not None and not isinstance(spec.facts, owner.facts or ()):
        known = owner.facts.__name__ if owner.facts else "none"
        wrong(f"its facts are {type(spec.facts).__name__}, and {spec.backend} knows {known}", "state those, or none")


def _has_back_end(target: TargetSpec, registry: Registry) -> bool:
    spec = with_facts(target, registry)
    if not spec.backend:
        return spec.facts is None
    entry = registry.entries("backend").get(spec.backend)
    return entry is not None and (spec.facts is None or isinstance(spec.facts, entry.spec.facts or ()))


def test_a_graph_can_be_held_against_it(target: Entry, registry: Registry, tinynet: Backbone, tmp_path: Path) -> None:
    """What it refuses of a plain convolutional network would leave little."""
    if not _has_back_end(target.spec, registry):
        pytest.skip("its back end is not there, or knows other facts")
    graph = tmp_path / "model.onnx"
    onnx.save(tinynet.exported_in(target.spec.opset), graph)
    with blaming("a graph of tinynet cannot be held against it", "use the types that TargetSpec states"):
        report = check_graph(graph, target.spec, registry=registry)
    if report.refused:
        first = report.findings[0]
        wrong(f"it refuses tinynet: {first.what}", "state what it really refuses; convolutions and Relu are the least")


def test_its_facts_are_plain(target: Entry) -> None:
    """They come back from JSON as they were."""
    with blaming("it does not come back from JSON", "use the types that TargetSpec states"):
        plain = replace(target.spec, facts=None)
        if from_plain(TargetSpec, json.loads(json.dumps(to_plain(plain)))) != plain:
            wrong("it comes back from JSON as another target", "use the types that TargetSpec states")
        facts = target.spec.facts
        if facts is not None and from_plain(type(facts), json.loads(json.dumps(to_plain(facts)))) != facts:
            wrong("its facts come back from JSON as others", "use the types that their dataclass states")
