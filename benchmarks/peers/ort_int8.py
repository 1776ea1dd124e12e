"""int8 by onnxruntime's quantizer, prepared as its documentation asks. See common.py for the arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from common import Samples, measured
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

# The last row's options make what NVIDIA's parser takes: symmetric int8 activations and float biases.
STATIC = {
    "minmax": (CalibrationMethod.MinMax, QuantType.QUInt8, {}),
    "entropy": (CalibrationMethod.Entropy, QuantType.QUInt8, {}),
    "symmetric": (CalibrationMethod.MinMax, QuantType.QInt8, {"ActivationSymmetric": True, "QuantizeBias": False}),
}


class Reader(CalibrationDataReader):
    def __init__(self, name: str, samples: Samples) -> None:
        self.name, self.batches = name, iter(samples)

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def main() -> None:
    method, graph, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    name = onnx.load(graph).graph.input[0].name
    with measured():
        prepared = out.with_suffix(".prepared.onnx")
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        if method == "dynamic":
            quantize_dynamic(prepared, out, per_channel=True, weight_type=QuantType.QInt8)
        else:
            calibration, activations, options = STATIC[method]
            quantize_static(
                prepared,
                out,
                Reader(name, Samples(samples)),
                quant_format=QuantFormat.QDQ,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=calibration,
                extra_options=options,
            )
        prepared.unlink()


if __name__ == "__main__":
    main()
