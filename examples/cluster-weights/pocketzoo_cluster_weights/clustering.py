"""k-means of the weights of each layer, and the graph that looks them up.

Han, Mao and Dally 2016, "Deep Compression", arXiv:1510.00149, section 3: one codebook a layer, values that start evenly
spaced between the least and the largest weight, since large weights matter more than there are of them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.api import BundleError, UnknownNameError
from pocketzoo_cluster_weights import ClusterConfig, ClusterPlan

LAYERS = ("Conv", "Gemm", "MatMul")  # whose second input is the weight
ROUNDS = 50  # of k-means, at most
Floats = npt.NDArray[np.float32]


def plan(model: ModelProto, config: ClusterConfig) -> ClusterPlan:
    """Cluster each layer's weights; a layer with no more weights than 8 times the values is left alone.

    Raises:
        UnknownNameError: ``config.skip`` names no layer.
    """
    weights = layer_weights(model)
    for pattern in config.skip:
        if not any(fnmatchcase(layer, pattern) for layer in weights):
            raise UnknownNameError(f"no layer is called {pattern!r}", hint=f"layers: {', '.join(weights)}")
    values, left, tensors = dict[str, int](), dict[str, str](), dict[str, npt.NDArray[np.generic]]()
    for layer, weight in weights.items():
        if any(fnmatchcase(layer, pattern) for pattern in config.skip):
            continue
        if weight.size <= 8 * config.values:
            left[layer] = f"{weight.size} weights are too few to share {config.values} values"
            continue
        codebook, indices = cluster(weight, config.values)
        values[layer] = len(codebook)
        tensors |= {f"{layer}.codebook": codebook, f"{layer}.indices": indices}
    return ClusterPlan(values=values, left=left, tensors=tensors)


def layer_weights(model: ModelProto) -> dict[str, Floats]:
    """The constant float32 weights of layers, by layer, in graph order."""
    given = {value.name for value in model.graph.input}  # one that is an input too could be given from outside
    constants = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.name not in given}
    names = dict.fromkeys(node.input[1] for node in model.graph.node if node.op_type in LAYERS)
    found = {name: numpy_helper.to_array(constants[name]) for name in names if name in constants}
    return {name.removesuffix(".weight"): weight for name, weight in found.items() if weight.ndim >= 2}


def cluster(weight: Floats, count: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """The values, ascending, of shape (count,), and for each weight the index of the one that is nearest to it.

    In one dimension clusters are intervals, so a round is a search among sorted values. A value that no weight is
    nearest to stays where it is.
    """
    flat = weight.reshape(-1).astype(np.float64)
    values = np.linspace(flat.min(), flat.max(), count)
    for _ in range(ROUNDS):
        indices = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        sizes = np.bincount(indices, minlength=count)
        sums = np.bincount(indices, weights=flat, minlength=count)
        moved = np.where(sizes > 0, sums / np.maximum(sizes, 1), values)
        if np.array_equal(moved, values):
            break
        values = moved
    indices = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
    return values.astype(np.float32), indices.astype(np.uint8).reshape(weight.shape)


def apply(model: ModelProto, plan: ClusterPlan) -> ModelProto:
    """A new graph in which each planned weight is looked up: ``Gather(codebook, indices)``, under the weight's name.

    Raises:
        BundleError: the plan's tensors are missing.
    """
    encoded = ModelProto()
    encoded.CopyFrom(model)
    taken = {name for node in encoded.graph.node for name in (node.name, *node.input, *node.output)}
    taken |= {t.name for t in encoded.graph.initializer}
    weights = {t.name.removesuffix(".weight"): t for t in encoded.graph.initializer}
    lookups: list[NodeProto] = []
    for layer in plan.values:
        if f"{layer}.indices" not in plan.tensors:
            raise BundleError(f"the plan has no tensors for layer {layer!r}", "compress the model again")
        weight = weights[layer]
        codebook, indices, wide = (_fresh(f"{weight.name}.{word}", taken) for word in ("codebook", "indices", "int32"))
        encoded.graph.initializer.extend(
            [
                numpy_helper.from_array(np.asarray(plan.tensors[f"{layer}.codebook"]), codebook),
                numpy_helper.from_array(np.asarray(plan.tensors[f"{layer}.indices"]), indices),
            ]
        )
        lookups += [
            helper.make_node("Cast", [indices], [wide], to=TensorProto.INT32),  # which Gather wants
            helper.make_node("Gather", [codebook, wide], [weight.name]),
        ]
        encoded.graph.initializer.remove(weight)
    nodes = [*lookups, *encoded.graph.node]
    del encoded.graph.node[:]
    encoded.graph.node.extend(nodes)
    onnx.checker.check_model(encoded)
    return encoded


def _fresh(name: str, taken: set[str]) -> str:
    """A name that nothing in the graph has yet, and which has it from now on."""
    fresh, count = name, 0
    while fresh in taken:
        count += 1
        fresh = f"{name}_{count}"
    taken.add(fresh)
    return fresh
