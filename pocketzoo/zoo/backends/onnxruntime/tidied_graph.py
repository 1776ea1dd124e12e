"""An imported ONNX graph, tidied: constants folded, functions inlined, of an opset that works here, its batch known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from pocketzoo.core.errors import BundleError, UnsupportedModelError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.onnxruntime.batched_graph import BatchedGraph, batched_graph, load_foreign
from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession, TimeLeft
from pocketzoo.zoo.backends.onnxruntime.constant_folding import folded_constants
from pocketzoo.zoo.graphs.contents import drop_dead, replace_nodes, store_constants
from pocketzoo.zoo.graphs.files.graph_files import changed
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.graphs.float_precision import computing_kinds, float_precision
from pocketzoo.zoo.graphs.foreign.quantized import quantizing_nodes
from pocketzoo.zoo.graphs.foreign.raised_opset import raised
from pocketzoo.zoo.graphs.fresh_names import FreshNames, assigns_once, graphs, nodes
from pocketzoo.zoo.graphs.index import BY_CHANNEL, GraphIndex, graph_inputs, opset_of
from pocketzoo.zoo.graphs.rewriting.single_precision import in_float32
from pocketzoo.zoo.graphs.tensor_sizes import check_tensor_sizes

OPSET = BY_CHANNEL  # graphs below are converted to NEWER
NEWER = 17
KEEPS_SHAPES = ("MatMulAddFusion",)  # onnxruntime's rewrites that write a batch of fixed size into the graph
IR = 8  # up to 3 a constant had to be an input as well; functions began with 8


def tidied_graph(
    model: ModelProto,
    path: Path,
    told: Mapping[str, int] | None = None,
    progress: Progress = SILENT,
    *,
    whole: bool = False,
) -> BatchedGraph:
    """The graph with a free batch axis, constants as initializers, batch norm folded; ``model`` is not changed.

    ``told`` and ``whole``: see ``batched_graph``. What nobody reads is left out. A graph that is quantized already is
    not folded, of one that computes in float16 nothing but constants, and one whose opset cannot be raised keeps it.
    What onnxruntime has no kernels of the floats for is written in float32, and said.

    Raises:
        As ``batched_graph``; and TooLargeError for tensors that no limit allows.
    """
    from onnx import inliner

    tidy = changed(model, inliner.inline_local_functions) if model.functions else _copy(model)
    check_tensor_sizes(GraphIndex(tidy), str(path))
    inputs = [_copy(value) for value in graph_inputs(tidy)]
    as_written = not model.functions and len(inputs) == len(model.graph.input)
    del tidy.graph.input[:]
    tidy.graph.input.extend(inputs)
    drop_dead(tidy.graph)  # onnxruntime was seen to abort at an integer product whose result nobody reads
    tidy.ir_version = max(tidy.ir_version, IR)  # first: the converter asks older graphs for constants as inputs
    newer = raised(tidy, NEWER) if opset_of(tidy) < OPSET else None
    if newer is None:
        return _batched(model, tidy, path, told, progress, as_written=as_written, whole=whole)
    try:
        return _batched(model, newer, path, told, progress, as_written=False, whole=whole)
    except (BundleError, UnsupportedModelError):  # raised to what computes something else, or does not run
        return _batched(model, tidy, path, told, progress, as_written=as_written, whole=whole)


def _batched(
    model: ModelProto,
    tidy: ModelProto,
    path: Path,
    told: Mapping[str, int] | None,
    progress: Progress,
    *,
    as_written: bool,
    whole: bool,
) -> BatchedGraph:
    """``tidy`` folded, with a free batch axis. ``as_written``: it is what was written of ``model``, but for names."""
    time_left = TimeLeft(str(path))
    widened = in_float32(tidy, ends=True)
    if widened is not tidy and not _loads(model, path, time_left):
        progress.say(f"{path.name} computes in {float_precision(tidy)}, which onnxruntime does not: opened in float32")
        model, tidy, as_written = widened, widened, True
    if quantizing_nodes(tidy):
        own = load_foreign(model, path, time_left, optimization="none")
        for graph in graphs(tidy.graph):
            store_constants(graph)
        _make_constant_outputs(tidy)
        return batched_graph(own, tidy, path, time_left, told, whole=whole)
    if _adds_casts(tidy):
        own = load_foreign(model, path, time_left, optimization="none")
        folded = folded_constants(tidy, path, time_left)
        _make_constant_outputs(folded)
        return batched_graph(own, folded, path, time_left, told, float_precision(folded))
    folded, session = _folded(tidy, path, time_left)
    # Loading is most of the time that a large graph takes: what is not changed is not loaded again.
    own = session if as_written else load_foreign(model, path, time_left)
    batched = batched_graph(own, folded, path, time_left, told, whole=whole)
    if not batched.alone:
        return batched
    folded, _ = _folded(tidy, path, time_left, without=KEEPS_SHAPES)
    again = batched_graph(own, folded, path, time_left, told, whole=whole)
    return batched if again.alone else again


def _loads(model: ModelProto, path: Path, time_left: TimeLeft) -> bool:
    try:
        load_foreign(model, path, time_left, optimization="none")
    except BundleError:
        return False
    return True


def _adds_casts(model: ModelProto) -> bool:
    """Whether onnxruntime would write a graph for the CPU alone, which has few kernels of float16."""
    return TensorProto.FLOAT16 in computing_kinds(model)


def _folded(
    model: ModelProto, path: Path, time_left: TimeLeft, without: Sequence[str] = ()
) -> tuple[ModelProto, BoundedSession]:
    """What onnxruntime makes of a graph with its basic rewrites, which stay within the operators of its domains.

    And the session that made it.
    """
    with scratch_folder() as folder:
        place = folder / "folded.onnx"
        session = load_foreign(model, path, time_left, optimized=place, without=without)
        folded = read_graph(place)
    domains = {opset.domain for opset in model.opset_import}
    beyond = any(node.domain not in {*domains, "", "ai.onnx"} for node in nodes(folded.graph.node))
    if beyond or not assigns_once(folded.graph):
        folded = _copy(model)  # a rewrite that this version of onnxruntime has beyond the standard
    known = [o for o in folded.opset_import if o.domain in {*domains, "", "ai.onnx"}]
    del folded.opset_import[:]
    folded.opset_import.extend(known)
    _make_constant_outputs(folded)
    return folded, session


def _make_constant_outputs(model: ModelProto) -> None:
    """Let a node make each output that is a constant, as the standard asks, in place."""
    outputs = {output.name for output in model.graph.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in outputs}
    if not stored:
        return
    fresh = FreshNames.of(model)
    made = []
    for name, tensor in stored.items():
        tensor.name = fresh(f"{name}_constant")
        made.append(helper.make_node("Identity", [tensor.name], [name]))
    replace_nodes(model.graph, [*made, *model.graph.node])  # first, as others may read the output


def _copy(message: ModelProto) -> ModelProto:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
