"""Graphs that would run for longer than anyone waits, and a bundle of one, as somebody may offer it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, seal


def loop(reads: str, writes: str, prefix: str = "") -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """A node that goes through 2^60 rounds, and its constants."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Tanh", ["v"], ["w"])], "body",
        [helper.make_tensor_value_info("n", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    constants = {f"{prefix}rounds": np.array(2**60), f"{prefix}true": np.array(True)}
    node = helper.make_node("Loop", [*constants, reads], [writes], body=body)
    return [node], [numpy_helper.from_array(value, name) for name, value in constants.items()]


def endless_bundle(bundle: Bundle, place: Path) -> Bundle:
    """A copy of a bundle whose graph is the same, and then goes through a loop; it verifies."""
    shutil.copytree(bundle.path, place)
    path = place / "model.onnx"
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}_before" if name == output else name for name in names]
    nodes, constants = loop(f"{output}_before", output, "endless_")
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    onnx.save(model, path)
    seal(place, bundle.manifest, bundle.manifest.files)
    return read_bundle(place)
