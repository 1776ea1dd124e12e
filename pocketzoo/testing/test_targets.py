"""Conformance of targets: consistent facts that survive a manifest, and usable checks."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.deploy.check.check_model import check_graph
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import Backbone
from pocketzoo.zoo.catalog.registry import Entry
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
    if spec.engine and not all(part.isidentifier() for part in spec.engine.split(".")):
        wrong(f"its engine is {spec.engine!r}", "name the Python module that builds engines, or leave it out")
    if spec.versions and not spec.engine:
        wrong("it has versions and no engine", "name the Python module that they are versions of")
    if spec.dla is not None and not spec.engine:
        wrong("it has a DLA and no engine", "name the Python module that builds engines for it")
    if spec.engine and spec.device != "gpu":
        wrong(f"it has engines and its device is {spec.device!r}", 'state device="gpu"')


def test_a_graph_can_be_held_against_it(target: Entry, tinynet: Backbone, tmp_path: Path) -> None:
    """What it refuses of a plain convolutional network would leave little."""
    graph = tmp_path / "model.onnx"
    onnx.save(tinynet.exported_in(target.spec.opset), graph)
    with blaming("a graph of tinynet cannot be held against it", "use the types that TargetSpec states"):
        report = check_graph(graph, target.spec)
    if report.refused:
        first = report.findings[0]
        wrong(f"it refuses tinynet: {first.what}", "state what it really refuses; convolutions and Relu are the least")


def test_its_facts_are_plain(target: Entry) -> None:
    """They come back from JSON as they were."""
    with blaming("it does not come back from JSON", "use the types that TargetSpec states"):
        if from_plain(TargetSpec, json.loads(json.dumps(to_plain(target.spec)))) != target.spec:
            wrong("it comes back from JSON as another target", "use the types that TargetSpec states")
