"""What plans for a graph make of a few samples, before one of them is chosen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization.calibration import activations, one_by_one
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.graphs.foreign.selections import compared_tensors
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import out_axis
from pocketzoo.zoo.tasks.agreement import noise_to_signal

FEW, MANY = 6, 16  # samples that plans are compared on at the least, and at most,
VALUES = 2**21  # while they have no more values than these
HIDING = {"Softmax", "Sigmoid"}  # what is between 0 and 1 after them says little of errors before
SHAPING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}


class Trial:
    """Plans for one graph, as ``encode`` writes it, on its first samples."""

    def __init__(
        self, model: ModelProto, samples: Iterable[Arrays], encode: Callable[[ModelProto, Int8Plan], ModelProto]
    ) -> None:
        self.model, self._samples, self._encode = model, samples, encode
        # By a plan's layers in int8 and its ranges, the errors of outputs and those before.
        self._known: dict[tuple[Hashable, ...], tuple[dict[str, float], dict[str, float]]] = {}
        constants = {tensor.name for tensor in model.graph.initializer}
        index = GraphIndex(model)
        compared = compared_tensors(index, [output.name for output in model.graph.output])
        floats = {
            output: tuple(n for n in tensors if index.types.get(n) == TensorProto.FLOAT and n not in constants)
            for output, tensors in compared.items()
        }
        self.outputs = {output: tensors for output, tensors in floats.items() if tensors}  # with what is compared
        self._selected = any(tensors != (output,) for output, tensors in self.outputs.items())

    @cached_property
    def few(self) -> list[Arrays]:
        """The samples, in batches of one."""
        few: list[Arrays] = []
        for sample in islice(one_by_one(self.model, self._samples), MANY):
            few.append(sample)
            if len(few) >= FEW and len(few) * sum(np.size(value) for value in sample.values()) >= VALUES:
                break
        return few

    @cached_property
    def hidden(self) -> dict[str, str]:
        """What a softmax or sigmoid reads that makes a tensor, by that tensor; the others are themselves."""
        index = GraphIndex(self.model)
        found = {}
        for name in self._tensors:
            node = index.producers.get(name)
            while node is not None and node.op_type in SHAPING:
                node = index.producers.get(node.input[0])
            hides = node is not None and node.op_type in HIDING and node.input[0] in index.producers
            found[name] = node.input[0] if hides and node is not None else name
        return found

    @property
    def hides(self) -> bool:
        """Whether some output is made by a softmax or sigmoid."""
        return any(name != before for name, before in self.hidden.items())

    @property
    def _tensors(self) -> list[str]:
        """What is compared, each once."""
        return list(dict.fromkeys(name for tensors in self.outputs.values() for name in tensors))

    @cached_property
    def _reference(self) -> list[dict[str, np.ndarray]]:
        outputs = list(activations(self.model, self._tensors, self.few))
        if not self.hides:
            return outputs
        before = activations(self.model, list(dict.fromkeys(self.hidden.values())), self.few, finite=False)
        return [{**more, **values} for values, more in zip(outputs, before, strict=True)]

    def _is_finite(self, name: str) -> bool:
        """Before a softmax a mask may have put minus infinity, of which no distance says anything."""
        return all(bool(np.isfinite(values[name]).all()) for values in self._reference)

    def noise(self, plan: Int8Plan, *, hidden: bool = False) -> dict[str, float]:
        """The error of each output, as a fraction of its power; what is not finite is endless noise.

        ``hidden``: before the softmax or sigmoid that makes it. Of an output whose length depends on the data it is the
        worst of what it is selected from.
        """
        if not self.outputs:
            return {}
        key = (plan.layers, plan.dynamic, frozenset(plan.ranges.items()))
        if key not in self._known:
            encoded = self._encode(self.model, plan)
            present = {name for node in encoded.graph.node for name in node.output}
            ours = self._encoded_names(encoded)
            before = {
                name: (inside, inside) if inside in present and self._is_finite(inside) else (ours[name], name)
                for name, inside in self.hidden.items()
            }
            pairs = {name: (own, name) for name, own in ours.items()}
            every = dict.fromkeys((*pairs.values(), *before.values()))
            actual = list(activations(encoded, list(dict.fromkeys(own for own, _ in every)), self.few, finite=False))
            each = {
                (own, name): noise_to_signal([v[own] for v in actual], [v[name] for v in self._reference])
                for own, name in every
            }
            self._known[key] = self._worst(pairs, each), self._worst(before, each)
        return self._known[key][hidden]

    def _worst(self, pairs: Mapping[str, tuple[str, str]], noise: Mapping[tuple[str, str], float]) -> dict[str, float]:
        return {output: max(noise[pairs[name]] for name in tensors) for output, tensors in self.outputs.items()}

    def _encoded_names(self, encoded: ModelProto) -> dict[str, str]:
        """What is compared -> what it is called in the encoded graph: otherwise, where it is inside."""
        if not self._selected:
            return {name: name for name in self._tensors}
        theirs = compared_tensors(GraphIndex(encoded), self.outputs)
        return {
            name: own
            for output, tensors in self.outputs.items()
            for name, own in zip(tensors, theirs[output], strict=True)
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
