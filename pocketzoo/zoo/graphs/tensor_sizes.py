"""How large the tensors are that a graph computes, as far as shape inference knows: before a runtime makes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pocketzoo.core.untrusted.limits import TENSOR_VALUES
from pocketzoo.zoo.graphs.fresh_names import captured
from pocketzoo.zoo.graphs.index import GraphIndex

if TYPE_CHECKING:
    from onnx import ValueInfoProto


def check_tensor_sizes(graph: GraphIndex, whose: str) -> None:
    """Refuse tensors that are too large; of axes of any length, such as the batch, one element is counted.

    Raises:
        TooLargeError: one has more values than the limit, or all together that depend on no input: a runtime makes
            those when it loads the graph.
    """
    sizes: dict[str, int] = {}
    for value in graph.values():
        sizes[value.name] = max(_values(value), sizes.get(value.name, 0))
    if sizes and (largest := max(sizes, key=sizes.__getitem__)):
        TENSOR_VALUES.check(sizes[largest], f"the tensor {largest!r} of {whose}", "values")
    known, folded = set(graph.constants), 0
    for node in graph.nodes:
        if node.input and all(name in known for name in (*node.input, *captured(node)) if name):
            known.update(node.output)
            folded += sum(sizes.get(name, 0) for name in node.output)
    TENSOR_VALUES.check(folded, whose, "values in tensors that depend on no input")


def _values(value: ValueInfoProto) -> int:
    return math.prod(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
