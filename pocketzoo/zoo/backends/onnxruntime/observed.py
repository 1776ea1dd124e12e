"""What the tensors inside a graph are while it runs once: for sizes that inference does not know."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto, helper

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.scopes import Observed


def observe(model: ModelProto, feeds: Arrays, shapes: Collection[str], values: Collection[str]) -> Observed:
    """The dims of some tensors and the values of others, of one run; nothing where onnxruntime does not run it."""
    watched = ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    fresh = FreshNames.of(watched)
    dims = {fresh(f"{name}_dims"): name for name in shapes}
    watched.graph.node.extend(helper.make_node("Shape", [name], [output]) for output, name in dims.items())
    given = {value.name for value in watched.graph.input}
    asked = [name for name in values if name not in given]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in (*dims, *asked))
    try:
        session = open_session(watched, optimization="none", threads=1)
        found: dict[str, npt.NDArray[Any]] = dict(
            zip((*dims, *asked), session.run([*dims, *asked], dict(feeds)), strict=True)
        )
    except Exception:
        return {}, {}
    sizes = {name: tuple(int(size) for size in found[output]) for output, name in dims.items()}
    return sizes, {name: found[name] for name in asked if isinstance(found[name], np.ndarray)}
