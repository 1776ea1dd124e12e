"""int8 by pocketzoo: one plan, and an encoding of it for the target that METHOD names. See common.py.

METHOD may end in a number of samples: "cpu:4096". "cpu:none" makes its own, of EfficientNet-Lite0's module.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
from common import Samples, measured

from pocketzoo import default_registry
from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.calibration import one_by_one
from pocketzoo.compress.quantization.precision.faster_in_float import tune
from pocketzoo.zoo.backends.open_backend import timer_of


def main() -> None:
    given: Any
    (target, _, count), graph, samples, out = sys.argv[1].partition(":"), *map(Path, sys.argv[2:])
    with measured():
        model = onnx.load(graph)
        registry, given = default_registry(), Samples(samples)
        if count:
            given = _own(model) if count == "none" else Samples(samples, count=int(count))
        spec = registry.get("target", target)
        plan = int8.plan(model, Int8Config(), given)
        if timer := timer_of(spec, registry):
            plan = tune(model, plan, next(one_by_one(model, given)), spec, timer)
        onnx.save(int8.apply(model, plan, spec), out)


def _own(model: onnx.ModelProto) -> list[Any]:
    """What ``compress --data none`` calibrates on."""
    from pocketzoo.compress.samples.synthetic import synthetic_data
    from pocketzoo.zoo.bundles.manifest import ModelRef
    from pocketzoo.zoo.data.batches import Batches
    from pocketzoo.zoo.data.processors.open_processor import as_processor
    from pocketzoo.zoo.models.build import build, load_pretrained

    name, registry = "efficientnet-lite0", default_registry()
    ref = ModelRef(backbone=name, head=f"{name}-imagenet", outputs=1000)
    module, spec = build(ref, registry), registry.get("backbone", name).input
    load_pretrained(module, ref, registry)
    data = synthetic_data(as_processor(spec), 128, lambda: model, lambda: module)
    return [x for x, _ in Batches(data.split("train"), spec)]


if __name__ == "__main__":
    main()
