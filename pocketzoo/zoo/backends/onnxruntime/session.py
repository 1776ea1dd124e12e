"""Make sessions of onnxruntime: the one place that does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pocketzoo.core.optional import require
from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession, TimeLeft
from pocketzoo.zoo.backends.onnxruntime.providers import CPU

if TYPE_CHECKING:
    from onnx import ModelProto

# How far onnxruntime rewrites a graph: "basic" stays within the standard's operators, "none" runs it as it is written.
Optimization = Literal["all", "basic", "none"]
LEVELS = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}
ERRORS, FATAL = 3, 4  # log severities


def open_session(
    graph: Path | ModelProto,
    *,
    providers: Sequence[str] = (CPU,),
    threads: int = 0,
    optimization: Optimization = "all",
    severity: int | None = None,
    arena: bool = True,
    profile: str = "",
    optimized: Path | None = None,
    extra: str | None = None,
    whose: str = "",
    time_left: TimeLeft | None = None,
) -> BoundedSession:
    """A session on a graph in a file, or in memory up to protobuf's 2 GB.

    ``providers`` are onnxruntime's names, of which the first that can run a node does. ``threads`` within a node, 0 for
    all cores. ``severity`` from which on it logs, None for its own. Without ``arena`` it gives memory back at once.
    ``profile``: the prefix of the file that times of nodes go to. ``optimized``: where the rewritten graph is written.
    ``whose`` it is, errors say: a file by its name unless told. Each run has its time, or all together ``time_left``.
    ``extra`` is the one to install where onnxruntime is missing; None for the smallest that brings it.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        Exception: onnxruntime's own, which share no other base, for a graph that it does not load.
    """
    runtime = require("onnxruntime", extra=extra)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, LEVELS[optimization])
    options.enable_cpu_mem_arena = arena
    if severity is not None:
        options.log_severity_level = severity
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    session = runtime.InferenceSession(source, options, providers=list(providers))
    return BoundedSession(session, whose or (graph.name if isinstance(graph, Path) else "the graph"), time_left)
