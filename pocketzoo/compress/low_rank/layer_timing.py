"""Time a layer against its factorized replacement: tiny graphs on onnxruntime, one thread, run in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.backends.timing import time_in_turn

SECONDS = 0.05  # for each of the two, at the least
LEAST, MOST = 9, 200  # runs of each that count


def race(before: nn.Module, after: nn.Module, shape: Sequence[int]) -> tuple[float, float]:
    """Milliseconds of one sample of ``shape`` through each: the fastest run of several, taken in turn.

    Both are chains of Conv2d and Linear layers. A convolution that pads in an unusual way is timed with zeros.
    """
    x = np.zeros((1, *shape), np.float32)
    graphs = [_graph(module, x.shape) for module in (before, after)]
    sessions = [open_session(graph, threads=1) for graph in graphs]
    runs = [partial(session.run, None, {"x": x}) for session in sessions]
    spent = time_in_turn(runs, SECONDS, least=LEAST, most=MOST)
    return min(spent[0].wall), min(spent[1].wall)


def _graph(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    nodes, constants, last = [], [], "x"
    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for i, layer in enumerate(layers):
        weight, bias, out = f"w{i}", f"b{i}", f"y{i}"
        matrix = layer.weight.detach().float()
        convolution = isinstance(layer, nn.Conv2d)
        constants.append(numpy_helper.from_array((matrix if convolution else matrix.T).contiguous().numpy(), weight))
        if layer.bias is not None:
            constants.append(numpy_helper.from_array(layer.bias.detach().float().numpy(), bias))
        if isinstance(layer, nn.Conv2d):
            inputs = [last, weight, bias][: 2 + (layer.bias is not None)]
            nodes.append(helper.make_node("Conv", inputs, [out], **_attributes(layer)))
        else:
            nodes.append(helper.make_node("MatMul", [last, weight], [f"m{i}" if layer.bias is not None else out]))
            if layer.bias is not None:
                nodes.append(helper.make_node("Add", [f"m{i}", bias], [out]))
        last = out
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _attributes(layer: nn.Conv2d) -> dict[str, Any]:
    common = {"strides": list(layer.stride), "dilations": list(layer.dilation), "group": layer.groups}
    if isinstance(layer.padding, str):
        return {**common, "auto_pad": "SAME_UPPER" if layer.padding == "same" else "VALID"}
    pads = [layer.padding[0], layer.padding[1]] * 2
    return {**common, "pads": pads}


def fits(layer: nn.Module, shape: Sequence[int]) -> bool:
    """Whether a sample of ``shape`` is large enough for a convolution that is timed with the padding it states."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return True
    return all(
        size + 2 * pad >= (kernel - 1) * dilation + 1
        for size, pad, kernel, dilation in zip(shape[1:], layer.padding, layer.kernel_size, layer.dilation, strict=True)
    )
