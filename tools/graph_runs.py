"""Run graphs in onnxruntime and in ONNX's reference evaluator, and compare what two runs give."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto

Array = Any
FEED = dict[str, Array]


class Separate(dict[str, Array]):
    """Samples of a graph whose runs do not take any number: an index of the first axis each, or so many ``rows``."""

    def __init__(self, rows: int = 0) -> None:
        super().__init__()
        self.rows = rows

    def each(self) -> list[FEED]:
        """The runs."""
        places: Iterable[int | slice] = range(len(next(iter(self.values()))))
        if self.rows:
            places = [slice(place, place + self.rows) for place in list(places)[:: self.rows]]
        return [{name: array[place] for name, array in self.items()} for place in places]


def runs(feed: FEED) -> list[FEED]:
    """What a graph takes, a run each."""
    return feed.each() if isinstance(feed, Separate) else [feed]


def stacked(feed: FEED, made: list[list[Array]]) -> list[Array]:
    """What runs gave as one."""
    if not isinstance(feed, Separate):
        return made[0]
    return [np.stack(every) for every in zip(*made, strict=True)]


def outputs_of(model: ModelProto, feed: FEED, *, rewritten: bool = True) -> dict[str, Any]:
    """All outputs by name, with all of onnxruntime's rewriting or with none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewritten else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    read = {value.name for value in session.get_inputs()}
    made = [session.run(names, {k: v for k, v in each.items() if k in read}) for each in runs(feed)]
    return dict(zip(names, stacked(feed, made), strict=True))


def referred(model: ModelProto, feed: FEED) -> dict[str, Any] | None:
    """All outputs by ONNX's reference evaluator; None where it has no implementation of an operator."""
    from onnx.reference import ReferenceEvaluator

    try:
        names = [output.name for output in model.graph.output]
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(model, new_ops=_pairs())
            made = [evaluator.run(names, each) for each in runs(feed)]
            return dict(zip(names, stacked(feed, made), strict=True))
    except Exception:  # of its own, with no common base
        return None


@functools.cache
def _pairs() -> list[Any]:
    """The evaluator's Q/DQ nodes are of opset 19 and later; what earlier ones say of them is the same."""
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_25
    from onnx.reference.ops.op_quantize_linear import QuantizeLinear_25

    pairs = {"DequantizeLinear": DequantizeLinear_25, "QuantizeLinear": QuantizeLinear_25}
    return [type(name, (own,), {"op_domain": ""}) for name, own in pairs.items()]


def wide(model: ModelProto) -> ModelProto:
    """The graph with everything that its nodes make as outputs."""
    made = ModelProto()
    made.CopyFrom(model)
    own = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in own]
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return made


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from every_node(inner)


def energy(a: Any, b: Any) -> float:
    """The sum of squares of a difference."""
    return float(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).sum())


def unequal(a: dict[str, Any], b: dict[str, Any], room: dict[str, float]) -> str:
    """The first output by which two runs differ by more than ``room``, and by how much; "" where none does."""
    for name, out in a.items():
        other = b[name]
        if out.shape != other.shape or out.dtype != other.dtype:
            return f"{name} is {out.dtype}{out.shape}, not {other.dtype}{other.shape}"
        if np.issubdtype(out.dtype, np.floating):
            lost = energy(out, other)
            if not lost <= room[name]:
                return f"{name} differs by {lost:.2g} of {energy(other, 0):.2g}, more than {room[name]:.2g}"
    return ""
