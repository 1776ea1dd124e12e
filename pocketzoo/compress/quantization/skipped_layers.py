"""Which of the layers that an int8 config names a graph has, where a model runs in several."""

from __future__ import annotations

from dataclasses import replace

from onnx import ModelProto

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization.embedding_tables import tables
from pocketzoo.core.name_patterns import matches
from pocketzoo.zoo.graphs.index import GraphIndex, left_alone, quantizable
from pocketzoo.zoo.graphs.node import layer_name


def for_graph(config: Int8Config, model: ModelProto) -> Int8Config:
    """The config without the patterns of ``skip`` that match no layer of this graph: to name one is an error."""
    index = GraphIndex(model)
    known = [layer_name(name) for name in [*(node.input[1] for node in quantizable(index, ())), *tables(index)]]
    known += left_alone(index)
    return replace(config, skip=tuple(p for p in config.skip if any(matches(name, [p]) for name in known)))
