"""Channels pruned by pocketzoo, in one shot; METHOD is the ratio, GRAPH only says where. See common.py."""

from __future__ import annotations

import sys
from pathlib import Path

from common import Samples, measured

from pocketzoo import default_registry
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.export_graph import onnx_from_model

MODEL = "efficientnet-lite0"


def main() -> None:
    method, _, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    registry = default_registry()
    ref = ModelRef(backbone=MODEL, head=f"{MODEL}-imagenet", outputs=1000)
    module = build(ref, registry)
    load_pretrained(module, ref, registry)
    prune, batches = registry.get("compressor", "prune"), Samples(samples)
    with measured():
        plan = prune.plan(module.eval(), PruneConfig(ratio=float(method)), batches, registry.get("target", "cpu"))
        smaller = prune.apply(module, plan, batches)
        onnx_from_model(smaller, registry.get("backbone", MODEL).input, out)


if __name__ == "__main__":
    main()
