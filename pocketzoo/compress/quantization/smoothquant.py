"""SmoothQuant: move the scales of input channels into the weights, so that one activation scale fits all channels.

A language model's normalizations give a few channels ten times the reach of the others, and one 8-bit step for a tensor
then leaves the others a handful of steps. Dividing channel j by s_j and multiplying row j of the weights by it changes
nothing in floating point (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438). Which s is best follows here from the error
itself instead of an exponent to tune: see ``channel_scales``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FEEDBACK = 0.3  # fraction of the weights' rounding error that is left when each error is handed on to the other weights
GAIN = 2.0  # by how much the expected error must fall before a multiplication is put into the graph for it
BALANCES = 2.0 ** np.linspace(-6, 6, 49)  # how far a range reaches above zero, over how far below
POWERS = (0.25, 0.5, 0.75, 0.85, 0.95, 1.0)  # 0 moves nothing into the weights, 1 all


@dataclass(frozen=True, slots=True)
class SharedInput:
    """MatMul nodes with constant weights (I, O) that read one tensor, whose last axis has I channels."""

    tensor: str
    weights: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """The range of each channel of a tensor over all samples, and its mean square; arrays (I,)."""

    low: Doubles
    high: Doubles
    square: Doubles


def shared_inputs(index: GraphIndex, layers: Iterable[str]) -> list[SharedInput]:
    """The tensors that the MatMul nodes read, of those whose weight ``layers`` names, in graph order.

    A weight that two nodes read is in none: what suits one of them would not suit the other.
    """
    names, weights_of = set(layers), dict[str, list[str]]()
    for node in index.nodes:
        if node.op_type != "MatMul" or node.input[1] not in names or not index.has_one_consumer(node.input[1]):
            continue
        if len(index.constants[node.input[1]].dims) == 2 and node.input[0] not in index.constants:
            weights_of.setdefault(node.input[0], []).append(node.input[1])
    return [SharedInput(tensor, tuple(weights)) for tensor, weights in weights_of.items()]


def channel_scales(channels: ChannelRanges, weight: npt.NDArray[np.floating]) -> tuple[Floats, float]:
    """Divisors s (I,) of the channels that a ``weight`` (I, O) reads, and how many times smaller the error gets.

    With ranges [l, h] for the channels, the step is D = (max h/s - min l/s) / 255, and rounding what is read costs
    D^2/12 sum_j s_j^2 |w_j|^2. For a given balance r of both ends that is least for s_j = max(h_j, -l_j r), so only r
    is searched. Rounding the weights costs more the wider s spreads them; s to a power between 0 and 1 is the
    compromise, and the power with the least sum of both is taken. The geometric mean of s is 1.
    """
    floor = 1e-4 * max(float(channels.high.max()), -float(channels.low.min()), 1e-30)
    high, low = np.maximum(channels.high, floor), np.minimum(channels.low, -floor)
    w = np.asarray(weight, np.float64)
    squares = np.square(w).sum(1)

    def reading(s: Doubles) -> float:
        return float(((high / s).max() - (low / s).min()) ** 2 / (12 * 255**2) * (s * s * squares).sum())

    def error(s: Doubles) -> float:
        steps = np.abs(w * s[:, None]).max(0) / 127
        return reading(s) + FEEDBACK / 12 * float(np.square(steps).sum() * (channels.square / (s * s)).sum())

    full = min((np.maximum(high, -low * r) for r in BALANCES), key=reading)
    plain = error(np.ones_like(full))
    best = min((full**power for power in POWERS), key=error)
    gain = plain / max(error(best), 1e-300)
    return (best / np.exp(np.log(best).mean())).astype(np.float32), gain


def plan(model: ModelProto, layers: Iterable[str], channels: Mapping[str, ChannelRanges]) -> dict[str, Floats]:
    """Tensor -> divisors of its channels, for those where it pays.

    ``channels`` holds the ranges of every ``SharedInput``; where the division costs a multiplication of its own, the
    expected error must fall to 1 / ``GAIN``.
    """
    index = GraphIndex(model)
    divisors = {}
    for shared in shared_inputs(index, layers):
        weight = np.concatenate([numpy_helper.to_array(index.constants[name]) for name in shared.weights], 1)
        scales, gain = channel_scales(channels[shared.tensor], weight)
        if gain > (1.0 if _source(index, shared) else GAIN):
            divisors[shared.tensor] = scales
    return divisors


def apply(model: ModelProto, scales: Mapping[str, Floats]) -> ModelProto:
    """A new graph that gives the same outputs, with each named tensor divided by its scales where MatMul reads it.

    The division goes into what makes the tensor where that is a normalization that nothing else reads, or the value
    projection of an attention; elsewhere it is a multiplication in front of the layers.
    """
    smoothed = ModelProto()
    smoothed.CopyFrom(model)
    index = GraphIndex(model)
    constants = GraphIndex(smoothed).constants
    weights = [name for name, tensor in index.constants.items() if len(tensor.dims) == 2]
    fresh = FreshNames.of(model)
    before: dict[str, NodeProto] = {}  # output of a consumer -> the multiplication before it
    renamed: dict[str, str] = {}
    for shared in shared_inputs(index, weights):
        if shared.tensor not in scales:
            continue
        s = np.asarray(scales[shared.tensor], np.float32)
        for name in shared.weights:
            _multiply(constants, name, s[:, None])
        if source := _source(index, shared):
            for name in source:
                _multiply(constants, name, 1 / s)
            continue
        out, factor = fresh(f"{shared.tensor}_smooth"), fresh(f"{shared.tensor}_unscale")
        smoothed.graph.initializer.append(numpy_helper.from_array((1 / s).astype(np.float32), factor))
        weights_read = set(shared.weights)
        first = next(n for n in index.consumers[shared.tensor] if n.op_type == "MatMul" and n.input[1] in weights_read)
        before[first.output[0]] = helper.make_node("Mul", [shared.tensor, factor], [out])
        renamed |= dict.fromkeys(shared.weights, out)
    nodes = []
    for node in smoothed.graph.node:
        if node.output[0] in before:
            nodes.append(before[node.output[0]])
        if node.op_type == "MatMul" and node.input[1] in renamed:
            node.input[0] = renamed[node.input[1]]
        nodes.append(node)
    replace_nodes(smoothed.graph, nodes)
    return smoothed


class ChannelStatistics:
    """Ranges and mean squares of tensors' channels, streamed."""

    def __init__(self) -> None:
        self.low: dict[str, Doubles] = {}
        self.high: dict[str, Doubles] = {}
        self.square: dict[str, Doubles] = {}
        self.rows: dict[str, int] = {}

    def add(self, name: str, value: npt.NDArray[np.floating]) -> None:
        """Take in one sample of a tensor (..., I).

        Raises:
            DataError: it is not finite.
        """
        rows = value.reshape(-1, value.shape[-1])
        square = np.einsum("ni,ni->i", rows, rows, dtype=np.float64)
        if not np.isfinite(square).all():
            raise DataError(
                f"calibration: the activation {name!r} is not finite",
                "check the samples, and the weights of the model, for NaN or infinity",
            )
        seen = rows if len(rows) else np.zeros_like(rows, shape=(1, rows.shape[1]))  # nothing reaches no further than 0
        low, high = seen.min(0).astype(np.float64), seen.max(0).astype(np.float64)
        self.low[name] = np.minimum(self.low.get(name, low), low)
        self.high[name] = np.maximum(self.high.get(name, high), high)
        self.square[name] = self.square.get(name, np.zeros_like(square)) + square
        self.rows[name] = self.rows.get(name, 0) + len(rows)

    def channels(self) -> dict[str, ChannelRanges]:
        """What was seen of each tensor."""
        return {
            name: ChannelRanges(self.low[name], self.high[name], self.square[name] / max(self.rows[name], 1))
            for name in self.low
        }


def _multiply(constants: Mapping[str, object], name: str, factor: npt.NDArray[np.floating]) -> None:
    tensor = constants[name]
    value = numpy_helper.to_array(tensor) * factor  # type: ignore[arg-type]
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))  # type: ignore[attr-defined]


def _source(index: GraphIndex, shared: SharedInput) -> tuple[str, ...]:
    """The constants that scale with the channels of a shared input and with nothing else; () where there are none."""
    consumers, weights = index.consumers[shared.tensor], set(shared.weights)
    if shared.tensor in index.outputs or any(n.op_type != "MatMul" or n.input[1] not in weights for n in consumers):
        return ()
    producer = index.producers.get(shared.tensor)
    if producer is None:
        return ()
    if producer.op_type == "LayerNormalization":
        return _own(index, list(producer.input[1:]))
    return _values(index, producer, index.constants[shared.weights[0]].dims[0])


def _values(index: GraphIndex, node: NodeProto, channels: int) -> tuple[str, ...]:
    """Weight and bias of an attention's value projection, walked back to from what joins its heads.

    Attention mixes positions and leaves channels apart, so a channel's scale passes through it.
    """
    walk = [("Reshape", 0), ("Transpose", 0), ("MatMul", 1), ("Transpose", 0), ("Reshape", 0)]
    for step, (op, follow) in enumerate(walk):
        if node.op_type != op or (op == "Transpose" and list(node.attribute[0].ints) != [0, 2, 1, 3]):
            return ()
        name = node.input[follow]
        maker = index.producers.get(name)
        if maker is None or not index.has_one_consumer(name):
            return ()
        if step == 2 and index.producers.get(node.input[0], node).op_type != "Softmax":
            return ()
        node = maker
    constants = []
    if node.op_type == "Add":
        biases = [i for i in node.input if i in index.constants and list(index.constants[i].dims) == [channels]]
        rest = [i for i in node.input if i not in biases]
        maker = index.producers.get(rest[0]) if len(biases) == len(rest) == 1 else None
        if maker is None or not index.has_one_consumer(rest[0]):
            return ()
        node, constants = maker, biases
    if node.op_type != "MatMul" or list(index.constants[node.input[1]].dims if _fixed(index, node) else [])[1:] != [
        channels
    ]:
        return ()
    return _own(index, [node.input[1], *constants])


def _fixed(index: GraphIndex, node: NodeProto) -> bool:
    return node.input[1] in index.constants


def _own(index: GraphIndex, names: Sequence[str]) -> tuple[str, ...]:
    """``names`` where each is a constant that one node reads."""
    own = all(name in index.constants and index.has_one_consumer(name) for name in names)
    return tuple(names) if own else ()
