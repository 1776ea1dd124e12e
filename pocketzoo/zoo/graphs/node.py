"""One node of an ONNX graph: its attributes by name, and what it is called."""

from __future__ import annotations

import re
from typing import Any

from onnx import NodeProto, helper


def attribute(node: NodeProto, name: str, default: object) -> Any:
    """An attribute's value, or what it is where it is left out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def node_name(node: NodeProto) -> str:
    """A node's name, or what it outputs."""
    return str(node.name or node.output[0])


def layer_name(weight: str) -> str:
    """The module's name of the layer a weight tensor belongs to."""
    return re.sub(r"_quantized(_\d+)?$", "", weight).removesuffix(".weight")
