"""int8 by NVIDIA Model Optimizer. See common.py for the arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from common import Samples, measured
from modelopt.onnx.quantization import quantize
from onnxruntime.quantization import CalibrationDataReader


class Reader(CalibrationDataReader):
    def __init__(self, name: str, samples: Samples) -> None:
        self.name, self.samples = name, samples
        self.rewind()

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}

    def get_first(self) -> dict:
        """A batch to infer shapes from; the tool asks for it alongside the others."""
        return {self.name: next(iter(self.samples))}

    def rewind(self) -> None:
        self.batches = iter(self.samples)


def main() -> None:
    method, graph, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    with measured():
        quantize(
            str(graph),
            quantize_mode="int8",
            calibration_method=method,
            calibration_data_reader=Reader(onnx.load(graph).graph.input[0].name, Samples(samples)),
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",  # what is not int8 stays as it was, as with every other tool here
            dq_only=True,  # int8 weights in the file, and not float ones with their quantization after them
            output_path=str(out),
            log_level="ERROR",
        )


if __name__ == "__main__":
    main()
