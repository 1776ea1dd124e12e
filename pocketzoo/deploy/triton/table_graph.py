"""Rows of a table as an ONNX graph, for servers that run nothing else: what is missing filled in, then standardized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.files import replacing_file
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.graphs.fresh_names import FreshNames

ROWS = "rows"  # float32 (batch, columns) in the units of the table, NaN where a number is missing
OPSET = 18


def save_table_graph(spec: TableSpec, path: Path) -> None:
    """Write the graph: ``ROWS`` to what the model reads. Its output is called as the model's input, unless that is
    ``ROWS``."""
    with replacing_file(path) as temporary:
        onnx.save(table_graph(spec), temporary)


def table_graph(spec: TableSpec) -> onnx.ModelProto:
    """The graph. Without ``missing`` NaN stays NaN: nobody on a server can say which row lacks a number."""
    fresh = FreshNames([ROWS])
    out = fresh(spec.name)
    nodes, constants, value = [], [], ROWS

    def constant(name: str, numbers: tuple[float, ...]) -> str:
        constants.append(numpy_helper.from_array(np.asarray(numbers, np.float32), fresh(name)))
        return str(constants[-1].name)

    def add(op: str, *inputs: str) -> str:
        nodes.append(helper.make_node(op, list(inputs), [fresh(op.lower())]))
        return str(nodes[-1].output[0])

    if spec.missing:
        value = add("Where", add("IsNaN", value), constant("missing", spec.missing), value)
    if spec.mean:
        value = add("Sub", value, constant("mean", spec.mean))
    if spec.std:
        value = add("Div", value, constant("std", spec.std))
    nodes.append(helper.make_node("Identity", [value], [out]))
    shape: list[str | int | None] = ["batch", spec.width]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info(ROWS, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
