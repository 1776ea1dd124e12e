"""int8 by NNCF. See common.py for the arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import onnx
from common import Samples, measured


def main() -> None:
    method, graph, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    model = onnx.load(graph)
    name = model.graph.input[0].name
    with measured():
        batches = Samples(samples, size=1)  # as in its examples: it takes its statistics a sample at a time
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {name: batch}),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if method == "transformer" else None,
        )
        onnx.save(quantized, out)


if __name__ == "__main__":
    main()
