"""Cost of each layer, from the bundle or counted on its float graph, matched before and after compression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from pocketzoo.core.errors import PocketzooError
from pocketzoo.reports.measured.number_format import Number
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.graphs.layer_cost import LayerCost
from pocketzoo.zoo.models.model_costs import graph_costs


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of one graph."""

    name: str
    op: str
    precision: str
    parameters: Number
    nonzero: Number
    bytes: Number
    macs: Number


Layers = dict[str, list[Layer]]  # "float" or a target -> the layers of that graph, in its order


def read_layers(bundle: Bundle, index: int) -> Layers:
    """The layers of every graph of a bundle; of the float graph alone, where the manifest has none and onnx is here."""
    layers = {
        target: [_layer(row, f"layers.{target}.{i}", index) for i, row in enumerate(rows)]
        for target, rows in bundle.manifest.layers.items()
    }
    if not layers and "" in bundle.encodings() and find_spec("onnx") is not None:
        costs = _counted(bundle)
        layers["float"] = [_layer(cost, f"graph.{i}", index) for i, cost in enumerate(costs)]
    return layers


def _counted(bundle: Bundle) -> list[LayerCost]:
    """By its processor, or where that is not installed with what the graph says alone."""
    try:
        return graph_costs([bundle.graph("")], processor_of(bundle))
    except PocketzooError:
        from pocketzoo.zoo.graphs.cost import layer_costs

        return layer_costs(bundle.graph(""))


def _layer(cost: LayerCost, key: str, index: int) -> Layer:
    return Layer(
        name=cost.layer,
        op=cost.op,
        precision=cost.precision,
        parameters=Number(cost.parameters, f"{key}.parameters", index),
        nonzero=Number(cost.nonzero, f"{key}.nonzero", index),
        bytes=Number(cost.bytes, f"{key}.bytes", index),
        macs=Number(cost.macs, f"{key}.macs", index),
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer before, and what became of it: itself, its factors, or nothing."""

    name: str
    before: tuple[Layer, ...]
    after: tuple[Layer, ...]


def match(before: Sequence[Layer], after: Sequence[Layer]) -> list[Pair]:
    """Match layers by name, in the order of ``before``.

    A factorized layer "conv1" is "conv1.0" and "conv1.1" after. What has no match stays alone.
    """
    names = {layer.name for layer in before}
    pairs: dict[tuple[str, int], tuple[list[Layer], list[Layer]]] = {}
    for side, layers in enumerate((before, after)):
        seen: Counter[str] = Counter()  # a weight that is used twice is a layer twice, under one name
        for layer in layers:
            name = layer.name if side == 0 else _origin(layer.name, names)
            pairs.setdefault((name, seen[layer.name]), ([], []))[side].append(layer)
            seen[layer.name] += 1
    return [Pair(name, tuple(old), tuple(new)) for (name, _), (old, new) in pairs.items()]


def _origin(name: str, names: set[str]) -> str:
    """The layer that ``name`` was made of: the longest of ``names`` that it is, or lies below."""
    parts = name.split(".")
    shorter = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((candidate for candidate in shorter if candidate in names), name)


def costliest(pairs: Sequence[Pair], limit: int) -> tuple[list[Pair], list[Pair]]:
    """The ``limit`` pairs that cost the most, by their fractions of MACs and bytes, and the others; both in order."""
    macs = sum(layer.macs.value for pair in pairs for layer in pair.before + pair.after) or 1
    size = sum(layer.bytes.value for pair in pairs for layer in pair.before + pair.after) or 1

    def share(i: int) -> float:
        return sum(layer.macs.value / macs + layer.bytes.value / size for layer in pairs[i].before + pairs[i].after)

    indices = set(sorted(range(len(pairs)), key=share, reverse=True)[:limit])
    return [p for i, p in enumerate(pairs) if i in indices], [p for i, p in enumerate(pairs) if i not in indices]
