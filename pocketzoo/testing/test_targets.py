"""What every target promises: an encoding of int8 that can be, and facts that survive a manifest."""

from __future__ import annotations

import json

from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.zoo.registry import Entry
from pocketzoo.zoo.specs import TargetSpec
from pocketzoo.zoo.typed import from_plain, to_plain

OPSET = 13  # per-channel quantisation came with it


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
    if spec.opset < OPSET:
        wrong(f"its opset is {spec.opset}", f"state {OPSET} or more")
    if spec.engine and not all(part.isidentifier() for part in spec.engine.split(".")):
        wrong(f"its engine is {spec.engine!r}", "name the Python module that builds engines, or leave it out")


def test_its_facts_are_plain(target: Entry) -> None:
    """They come back from JSON as they were."""
    with blaming("it does not come back from JSON", "use the types that TargetSpec states"):
        if from_plain(TargetSpec, json.loads(json.dumps(to_plain(target.spec)))) != target.spec:
            wrong("it comes back from JSON as another target", "use the types that TargetSpec states")
