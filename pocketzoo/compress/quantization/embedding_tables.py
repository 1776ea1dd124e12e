"""Quantize embedding tables to int8: often half of a language model's bytes, of which a text reads a few rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.foreign.selections import unseen_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import BY_CHANNEL, GraphIndex
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.operators import operator_of

LEAST = 1 << 13  # values of a table that are worth three more nodes a look-up


def tables(index: GraphIndex) -> list[str]:
    """Constants (N, C) of floats from which whole rows are gathered and that nothing else reads.

    Not those that are read where nothing can be compared.
    """
    unseen = unseen_nodes(index)
    return [
        name
        for name, tensor in index.constants.items()
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] * tensor.dims[1] >= LEAST
        and index.opset >= BY_CHANNEL
        and name in index.consumers
        and name not in index.outputs
        and all(_looks_up(node, name) and node.output[0] not in unseen for node in index.consumers[name])
    ]


def quantize(model: ModelProto, names: Iterable[str]) -> None:
    """Put the tables ``names`` in int8 with one scale per row, in place.

    The rows that a text needs are gathered as integers and become floats then; the table never does. It costs
    Gather, Gather, Cast and Mul on (B, T, C) instead of one Gather.
    """
    table_names, fresh = set(names), FreshNames.of(model)
    stored: dict[str, tuple[str, str]] = {}  # table -> its integers and its scales
    for tensor in list(model.graph.initializer):
        if tensor.name in table_names:
            quantized, scale = rows_to_int8(numpy_helper.to_array(tensor))
            integers, step = fresh(f"{tensor.name}_quantized"), fresh(f"{tensor.name}_scale")
            stored[tensor.name] = integers, step
            model.graph.initializer.append(numpy_helper.from_array(scale[:, None], step))
            tensor.CopyFrom(numpy_helper.from_array(quantized, integers))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[0] not in stored:
            nodes.append(node)
            continue
        (integers, scales), ids, out = stored[node.input[0]], node.input[1], node.output[0]
        rows, step, floats = (fresh(f"{out}_{part}") for part in ("rows", "scale", "levels"))
        nodes += [
            helper.make_node("Gather", [integers, ids], [rows]),
            helper.make_node("Gather", [scales, ids], [step]),
            helper.make_node("Cast", [rows], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [floats, step], [out]),
        ]
    replace_nodes(model.graph, nodes)


def rows_to_int8(table: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers (N, C) and scales (N,): table ~ integers * scale, off by at most scale / 2. A row of zeros gets 1."""
    largest = np.abs(table).max(1)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return np.clip(np.rint(table / scale[:, None]), -127, 127).astype(np.int8), scale


def _looks_up(node: NodeProto, table: str) -> bool:
    operator = operator_of(node)
    by_rows = operator is not None and operator.form == "rows" and attribute(node, "axis", 0) in (0, -2)
    return by_rows and node.input[0] == table
