"""Make sessions of onnxruntime: the one place that does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pocketzoo.core.optional import require
from pocketzoo.core.untrusted.limits import IMPORT_BYTES
from pocketzoo.zoo.backends.onnxruntime.bounded_session import FATAL, BoundedSession, TimeLeft
from pocketzoo.zoo.backends.onnxruntime.providers import CPU
from pocketzoo.zoo.graphs.files.weight_files import weight_files, weights_place

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import SessionOptions

# How far onnxruntime rewrites a graph: "basic" stays within the standard's operators, "none" runs it as it is written.
Optimization = Literal["all", "basic", "none"]
LEVELS = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}
# It grows by what is asked for, and no more.
ARENA = {"arena_extend_strategy": 1, "initial_chunk_size_bytes": 1 << 20, "max_dead_bytes_per_chunk": -1}
_registered: list[int] = []  # the limit in bytes of the arena that this process has


def open_session(
    graph: Path | ModelProto,
    *,
    providers: Sequence[str] = (CPU,),
    threads: int = 0,
    optimization: Optimization = "all",
    arena: bool = True,
    profile: str = "",
    optimized: Path | None = None,
    without: Sequence[str] = (),
    extra: str | None = None,
    whose: str = "",
    time_left: TimeLeft | None = None,
) -> BoundedSession:
    """A session on a graph in a file, or in memory.

    ``providers`` are onnxruntime's names, of which the first that can run a node does. ``threads`` within a node, 0 for
    all cores. Without ``arena`` it gives memory back at once.
    ``profile``: the prefix of the file that times of nodes go to. ``optimized``: where the rewritten graph is written.
    ``without``: rewrites that are left out, by onnxruntime's names.
    ``whose`` it is, errors say: a file by its name unless told. Each run has its time, or all together ``time_left``,
    which a foreign graph has while it is imported; its memory is bounded then, too.
    ``extra`` is the one to install where onnxruntime is missing; None for the smallest that brings it.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        Exception: onnxruntime's own, which share no other base, for a graph that it does not load.
    """
    runtime = require("onnxruntime", extra=extra)
    _quieten()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, LEVELS[optimization])
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = FATAL
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        if _is_large(graph):
            for key, value in (("file_name", weights_place(optimized).name), ("min_size_in_bytes", "1024")):
                options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    if time_left is not None:
        _bound_memory(options)
        if _is_large(graph):  # mapped into memory from its file; packed for speed, a few runs would not pay the copy
            options.add_session_config_entry("session.disable_prepacking", "1")
    with nullcontext(str(graph)) if isinstance(graph, Path) else _loadable(graph) as source:
        session = runtime.InferenceSession(
            source, options, providers=list(providers), disabled_optimizers=list(without)
        )
    return BoundedSession(session, whose or (graph.name if isinstance(graph, Path) else "the graph"), time_left)


def _loadable(model: ModelProto) -> AbstractContextManager[bytes | str]:
    from pocketzoo.zoo.graphs.files.graph_files import loadable  # here: graphs in files run without onnx

    return loadable(model)


def _is_large(graph: Path | ModelProto) -> bool:
    """Whether its weights lie in a file of their own, or have to."""
    if isinstance(graph, Path):
        return bool(weight_files(graph))
    from pocketzoo.zoo.graphs.files.graph_files import fits

    return not fits(graph)


@cache  # a caller who sets another afterwards has it
def _quieten() -> None:
    """What belongs to no session, such as an allocator, logs by a severity of the process."""
    require("onnxruntime").set_default_logger_severity(FATAL)


def _bound_memory(options: SessionOptions) -> None:
    """Take the memory of runs from an arena that all foreign graphs share, and that does not grow without end.

    What a graph computes the size of from its inputs, no look at it can tell. The arena keeps the limit of the first
    graph of a process: onnxruntime registers one, and takes no other.
    """
    runtime = require("onnxruntime")
    if not _registered:
        info = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
        runtime.create_and_register_allocator(info, runtime.OrtArenaCfg({"max_mem": IMPORT_BYTES.value, **ARENA}))
        _registered.append(IMPORT_BYTES.value)
    options.add_session_config_entry("session.use_env_allocators", "1")
