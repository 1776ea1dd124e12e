"""TensorRT, or its API twin TensorRT-RTX, as a back end: engines are built, checked, loaded and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import ExportError, PocketzooError, in_a_line
from pocketzoo.zoo.backends.tensorrt.build_machine import check_machine, is_importable, lacks_fp8
from pocketzoo.zoo.backends.tensorrt.facts import facts_of
from pocketzoo.zoo.backends.tensorrt.identify_gpu import driver_check, find_gpu
from pocketzoo.zoo.catalog.backend import Check, Support, TargetFinding, TritonModel
from pocketzoo.zoo.catalog.signature import BATCH

if TYPE_CHECKING:
    from pocketzoo.core.progress import Progress
    from pocketzoo.zoo.backends.tensorrt.engine_runner import EngineRunner
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.catalog.specs import TargetSpec

ENGINE = ".engine"
TWIN = "tensorrt_rtx"  # whose parser is asked where TensorRT's is not installed


@dataclass(frozen=True, slots=True)
class NvidiaBackend:
    """What builds engines with one Python module, "tensorrt" or "tensorrt_rtx"."""

    module: str

    def why_not(self, runtime: str) -> str:
        if not is_importable(self.module):
            return f"{self.module} is not installed"
        return "" if find_gpu() else "this machine has no NVIDIA GPU, or no driver for it"

    def support(self, target: TargetSpec, precision: str = "") -> Support:
        gpu = find_gpu()
        try:
            check_machine(target, gpu)
        except PocketzooError as error:
            return Support(builds=False, runs=False, why=error.message, fix=error.hint)
        if precision == "fp8" and (why := lacks_fp8(target, gpu)):
            fix = "use --precision fp16; --to onnx writes the graph for another GPU"
            return Support(builds=False, runs=False, why=why, fix=fix)
        if gpu is None:
            return Support(builds=True, runs=False, why="no GPU", fix="copy the engine to a machine with one")
        return Support(builds=True, runs=True)

    def check(self, model: Path, target: TargetSpec, *, options: EngineOptions) -> tuple[str, Sequence[TargetFinding]]:
        from pocketzoo.zoo.backends.tensorrt.build_engine import check_engine

        facts = facts_of(target)
        if options.dla is not None and facts.dla is None:
            raise ExportError(f"target {target.name!r} has no DLA", "leave out --dla, or use --target jetson-orin")
        if model.suffix == ENGINE:
            check_engine(model, target)
            return f"loaded by {facts.module} on {find_gpu()}", ()
        asked, refused = _ask_parser(model, target)
        return asked, [*refused, *_findings(model, target, dla=options.dla is not None)]

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine

        save_engine(graph, out, target, options=options, progress=progress)

    def load(self, model: Path, *, runtime: str, target: TargetSpec | None = None, threads: int = 0) -> EngineRunner:
        from pocketzoo.zoo.backends.tensorrt.engine_runner import EngineRunner

        return EngineRunner(model, self.module if target is None else facts_of(target).module)


def _ask_parser(graph: Path, target: TargetSpec) -> tuple[str, list[TargetFinding]]:
    """NVIDIA's own, where it is installed."""
    from pocketzoo.zoo.backends.tensorrt.build_engine import refusals

    wanted = facts_of(target).module
    for module in dict.fromkeys((wanted, TWIN)):
        try:
            reasons = refusals(graph, module)
        except PocketzooError:  # it is not installed, or does not start
            continue
        twin = "" if module == wanted else f" (in place of {wanted}, which is not installed)"
        todo = f"compress the model for it (--target {target.name}), or change these nodes"
        said = [TargetFinding(level="refused", what=f"{module}: {reason}", todo=todo) for reason in reasons]
        return f"asked the parser of {module}{twin}", said
    return f"{wanted} is not installed, so no parser was asked", []


def _findings(path: Path, target: TargetSpec, *, dla: bool) -> Iterator[TargetFinding]:
    """What the graph says of engines: fp8 on this GPU, lengths to build for, what leaves the DLA."""
    from onnx import TensorProto

    from pocketzoo.zoo.backends.tensorrt.dla_rules import DLA_RULES
    from pocketzoo.zoo.graphs.files.load_graph import load_graph
    from pocketzoo.zoo.graphs.index import GraphIndex

    graph = GraphIndex(load_graph(path))
    float8 = {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2} & {*graph.types.values()}
    if float8 and "fp8" in target.precisions and (why := lacks_fp8(target, find_gpu())):
        yield TargetFinding(level="refused", what=why, todo="export the model with --precision fp16")
    free = {d for name in graph.inputs for d in graph.shapes.get(name, [])[1:] if isinstance(d, str) and d}
    axes = sorted(free - {BATCH})  # of a state it may lie elsewhere
    if axes:
        yield TargetFinding(
            level="note",
            what=f"dynamic axes besides the batch: {', '.join(axes)}",
            todo=f"give the range of lengths: export ... --shape {axes[0]}=MIN:OPT:MAX",
        )
    for rule in DLA_RULES if dla else ():
        yield from rule(graph, target)


def built_here(sha256: str) -> bool:
    """Whether an engine was built on this machine."""
    from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache

    return EngineCache().built(sha256)


def triton_model(target: TargetSpec) -> TritonModel:
    """How the Triton server runs engines of a target.

    Raises:
        ExportError: it does not: it has no TensorRT-RTX.
    """
    module = facts_of(target).module
    if module != "tensorrt":
        raise ExportError(
            f"Triton does not run engines of {module}", "use --target cuda, or --target tensorrt on that GPU"
        )
    return TritonModel(backend="tensorrt", file="model.plan")


def examine_gpu() -> list[Check]:
    """The GPU, by its driver's own tool."""
    return [driver_check()]


def examine_builder(module: str, extra: str) -> list[Check]:
    """Whether the builder starts, which a broken installation or driver keeps from."""
    name, install = f"{module} builder", f"'pocketzoo[{extra}]'"
    if not is_importable(module):
        return [Check(name, False, f"{module} is missing", f"pip install {install}")]
    try:
        trt = __import__(module)
        works = trt.Builder(trt.Logger(trt.Logger.ERROR)) is not None
    except Exception as error:  # a broken native library fails in its own ways; that is what is reported
        return [Check(name, False, in_a_line(error), f"pip install --force-reinstall {install}")]
    return [
        Check(name, works, "starts" if works else "does not start", "" if works else "check the driver: nvidia-smi")
    ]
