"""What plans for a graph make of a few samples, before one of them is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization.calibration import activations, one_by_one
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import out_axis
from pocketzoo.zoo.tasks.agreement import noise_to_signal

TRIALS = 6  # samples that plans are compared on


class Trial:
    """Plans for one graph, as ``encode`` writes it, on its first samples."""

    def __init__(
        self, model: ModelProto, samples: Iterable[Arrays], encode: Callable[[ModelProto, Int8Plan], ModelProto]
    ) -> None:
        self.model, self._samples, self._encode = model, samples, encode
        constants = {tensor.name for tensor in model.graph.initializer}
        outputs = [o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT]
        self.outputs = [name for name in outputs if name not in constants]

    @cached_property
    def few(self) -> list[Arrays]:
        """The samples, in batches of one."""
        return list(islice(one_by_one(self.model, self._samples), TRIALS))

    @cached_property
    def _reference(self) -> list[dict[str, np.ndarray]]:
        return list(activations(self.model, self.outputs, self.few))

    def noise(self, plan: Int8Plan) -> dict[str, float]:
        """The error of each output, as a fraction of its power; what is not finite is endless noise."""
        if not self.outputs:
            return {}
        actual = list(activations(self._encode(self.model, plan), self.outputs, self.few, finite=False))
        return {
            name: noise_to_signal([v[name] for v in actual], [v[name] for v in self._reference])
            for name in self.outputs
        }

    def costs(self, layers: Sequence[NodeProto]) -> dict[str, float]:
        """What each layer multiplies for a sample, as far as sizes are known."""
        index = GraphIndex(self.model)
        sizes = index.sizes({name: np.shape(value) for name, value in self.few[0].items()}) if self.few else {}
        costs: dict[str, float] = {}
        for node in layers:
            dims, name = index.constants[node.input[1]].dims, layer_name(node.input[1])
            each = float(np.prod(dims)) / dims[out_axis(node, len(dims))]
            costs[name] = costs.get(name, 0.0) + max(sizes.get(node.output[0], 0), 1) * each
        return costs
