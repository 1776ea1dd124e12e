"""The graph that an engine is built of: without the If nodes that its lengths settle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.graphs.files.weight_files import weight_files

if TYPE_CHECKING:
    from onnx import ModelProto

WRITTEN = b'"\x02If'  # how a file has an operator of that name


@contextmanager
def engine_graph(graph: Path, options: EngineOptions, progress: Progress = SILENT) -> Iterator[bytes | Path]:
    """The file's bytes, or those of a graph without the If nodes that need not be asked.

    Of one whose weights lie in a file alongside it is the file, or one that is there for a while. Which branch runs
    follows from lengths that an engine has one of; or one alone runs with them.
    """
    whole = graph.read_bytes()
    source = graph if weight_files(graph) else whole
    if WRITTEN not in whole:
        yield source
        return
    # Here: other graphs are built where onnx is not installed.
    from pocketzoo.zoo.graphs.files.graph_files import loadable
    from pocketzoo.zoo.graphs.files.load_graph import read_graph
    from pocketzoo.zoo.graphs.rewriting.branches import settled
    from pocketzoo.zoo.graphs.signature import signature_of

    model = read_graph(graph)
    signature = signature_of(model)
    sizes = {name: options.sizes(name) for tensor in signature.inputs for name in tensor.free.values()}
    lengths = {name: most for name, (least, _, most) in sizes.items() if least == most}
    best = {name: best for name, (_, best, _) in sizes.items()}
    made = settled(model, lengths, partial(_runs, signature, best))
    if made is model:
        yield source
        return
    before, after = _branches(model), _branches(made)
    if after < before:
        words = ", ".join(f"{name} = {length}" for name, length in lengths.items())
        progress.say(f"{before - after} of {before} If nodes are settled{f' by {words}' if words else ''}")
    with loadable(made) as known:
        yield Path(known) if isinstance(known, str) else known


def _branches(model: ModelProto) -> int:
    from pocketzoo.zoo.graphs.fresh_names import graphs

    return sum(node.op_type == "If" for graph in graphs(model.graph) for node in graph.node)


def _runs(signature: ModelSignature, lengths: Mapping[str, int], model: ModelProto) -> bool:
    """Whether onnxruntime runs a graph with these lengths."""
    random = np.random.default_rng(0)
    feed = {}
    for tensor in signature.inputs:
        shape = [lengths[dim] if isinstance(dim, str) else dim for dim in tensor.shape]
        is_float = tensor.dtype.startswith("float")  # whole numbers are 0, which is in every table
        feed[tensor.name] = np.asarray(random.normal(size=shape) * is_float, tensor.dtype)
    try:
        session = open_session(model, optimization="none", arena=False)
        read = {value.name for value in session.get_inputs()}
        session.run(None, {name: array for name, array in feed.items() if name in read})
    except Exception:  # onnxruntime's own exceptions share no base but Exception
        return False
    return True
