"""int8 by Olive's own passes. See common.py for the arguments."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
from common import Samples, measured
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxDynamicQuantization, OnnxStaticQuantization


class Calibration:
    """As torch's data sets: an item is the input by name, and a label that nobody reads."""

    def __init__(self, name: str, batches: list) -> None:
        self.name, self.batches = name, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> tuple[dict, int]:
        return {self.name: self.batches[i][0]}, 0


def main() -> None:
    method, graph, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    name = onnx.load(graph).graph.input[0].name

    @Registry.register_dataset("calibration")
    def _dataset(**_: object) -> Calibration:
        return Calibration(name, list(Samples(samples, size=1)))

    data = DataConfig(
        name="calibration",
        load_dataset_config=DataComponentConfig(type="calibration"),
        pre_process_data_config=DataComponentConfig(type="skip_pre_process"),
        dataloader_config=DataComponentConfig(params={"batch_size": 1}),
    )
    with measured():
        if method == "dynamic":
            step = create_pass_from_dict(OnnxDynamicQuantization, {}, disable_search=True)
        else:
            config = {"data_config": data, "calibrate_method": {"minmax": "MinMax", "entropy": "Entropy"}[method]}
            step = create_pass_from_dict(OnnxStaticQuantization, config, disable_search=True)
        made = step.run(ONNXModelHandler(model_path=str(graph)), str(out.with_suffix("")))
        shutil.copyfile(made.model_path, out)


if __name__ == "__main__":
    main()
