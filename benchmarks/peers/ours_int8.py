"""int8 by pocketzoo: one plan, and an encoding of it for the target that METHOD names. See common.py.

METHOD may end in a number of samples: "cpu:4096".
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from common import Samples, measured

from pocketzoo import default_registry
from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8


def main() -> None:
    (target, _, count), graph, samples, out = sys.argv[1].partition(":"), *map(Path, sys.argv[2:])
    with measured():
        model = onnx.load(graph)
        plan = int8.plan(model, Int8Config(), Samples(samples, count=int(count) if count else None))
        onnx.save(int8.apply(model, plan, default_registry().get("target", target)), out)


if __name__ == "__main__":
    main()
