"""Profile a model: the time of every onnxruntime node, by layer and operator, and of every torch layer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, PocketzooError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.measure.node_layers import NodeLayers
from pocketzoo.zoo.artifacts.driver import End
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.backends.timing import WARM_UP
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.bundle_signature import bundle_signature
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.layer_cost import FLOAT, FLOATS
from pocketzoo.zoo.graphs.operators import runs_layer
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver

Kind = Literal["float", "int8", "conversion"]
MOST_RUNS = 200  # the profiler keeps a million events
LEAST_RUNS = 10
INTEGERS = ("int8", "uint8")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the runtime runs it: fused, reordered, with kernels of its own."""

    name: str
    op: str
    layer: str  # of the module; "" for what belongs to none
    kind: Kind  # what it reads: integers, or floats; or it turns one into the other
    ms: float
    reads: tuple[int, ...] = ()  # the nodes before it that it takes something from


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A layer that an int8 graph runs in float, and why."""

    layer: str
    why: str
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile: milliseconds for one batch, averaged without the fastest and slowest quarter of the runs.

    With one thread, whole runs and torch's layers are measured in CPU time, so other work on the machine does not
    count.
    """

    bundle: str
    target: str  # "" for the float graph
    batch: int
    length: int | None  # tokens
    threads: int
    runs: int
    ms: float  # a whole run, what lies between the nodes included
    nodes: tuple[Node, ...]
    torch_ms: float | None = None
    torch_layers: Mapping[str, float] = field(default_factory=dict)
    left_in_float: tuple[Left, ...] = ()
    floats: str = FLOAT  # what the float graph computes in

    def by_layer(self) -> dict[str, list[Node]]:
        """The nodes of each layer, the costliest layer first; what belongs to none by its operator, in brackets."""
        return self._by(lambda node: node.layer or f"[{node.op}]")

    def by_operator(self) -> dict[str, list[Node]]:
        """The nodes of each operator, the costliest operator first."""
        return self._by(lambda node: node.op)

    def _by(self, key: Any) -> dict[str, list[Node]]:
        groups: dict[str, list[Node]] = {}
        for node in self.nodes:
            groups.setdefault(key(node), []).append(node)
        return dict(sorted(groups.items(), key=lambda item: -total(item[1])))


def total(nodes: Sequence[Node]) -> float:
    """Milliseconds of nodes together."""
    return sum(node.ms for node in nodes)


@survives_exit
def profile(
    model: str | Path,
    *,
    target: str = "cpu",
    batch: int = 1,
    length: int | None = None,
    threads: int = 1,
    seconds: float = 1.0,
    torch: bool | None = None,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Profile:
    """Profile the graph for ``target`` with onnxruntime's profiler, and the module layer by layer.

    The samples are random. ``torch``: whether to run the module too; None: if torch is installed and there is a module.
    Profiling every node takes time itself: the sum is more than ``bench`` measures.

    Raises:
        UnknownNameError: no such model or target.
        DataError: ``length`` is not one that the model reads.
    """
    resolver = Resolver.of(registry)
    if target:
        resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    x = random_samples(processor_of(bundle, resolver.registry), batch, length)
    end = ends(artifact_of(bundle, target))[0]
    ran = [_graph_of(end, name, bundle, x, threads, seconds, progress) for name in end.graphs]
    nodes = _joined(end.graphs, [each.nodes for each in ran])
    layers: dict[str, float] = {}
    took: float | None = None
    has_module = not bundle.manifest.model.backbone.startswith(GRAPH_ONLY)
    if torch or (torch is None and has_module and find_spec("torch") is not None):
        progress.say("running the module")
        took, layers = _module(bundle, resolver, x, threads, seconds)
    encoded = next(filter(None, (bundle.manifest.files[each.path.name].target for each in ran)), "")
    left = {name: _left(bundle, each) for name, each in zip(end.graphs, ran, strict=True)}
    return Profile(
        bundle=bundle.manifest.name,
        target=encoded,
        batch=batch,
        length=length,
        threads=threads,
        runs=min(each.runs for each in ran),
        ms=sum(each.ms for each in ran),
        nodes=tuple(nodes),
        torch_ms=took,
        torch_layers=layers,
        floats=bundle.float_precision,
        left_in_float=tuple(
            replace(each, layer=layer_in(end.graphs, name, each.layer)) for name in left for each in left[name]
        )
        if encoded
        else (),
    )


@dataclass(frozen=True, slots=True)
class ProfiledGraph:
    """One graph's nodes in the order they run in, the milliseconds of a whole run, and the number of runs."""

    path: Path
    nodes: list[Node]
    ms: float
    runs: int


def _graph_of(
    end: End, name: str, bundle: Bundle, x: Arrays, threads: int, seconds: float, progress: Progress
) -> ProfiledGraph:
    """One graph of an artifact, on what it first reads while a batch runs to the end: of a sequence, one call."""
    path = end.artifact.graph(name)
    progress.say(f"running {path.name}")
    for read in end.calls(name, [end.sample(x)], partial(OnnxRunner, threads=threads)):
        return profile_graph(path, bundle.graph("", name), read, threads, seconds)
    raise BundleError(f"{path.name} reads nothing of a sample", "it cannot be profiled")


def _joined(names: Sequence[str], graphs: Sequence[list[Node]]) -> list[Node]:
    """The nodes of graphs that run one after the other; where there are several, layers are called "GRAPH:LAYER"."""
    nodes: list[Node] = []
    for name, own in zip(names, graphs, strict=True):
        before = len(nodes)
        nodes += [
            replace(node, layer=layer_in(names, name, node.layer), reads=tuple(before + each for each in node.reads))
            for node in own
        ]
    return nodes


def layer_in(names: Sequence[str], graph: str, layer: str) -> str:
    """What a layer is called in an artifact of these graphs."""
    return f"{graph}:{layer}" if layer and len(names) > 1 else layer


def profile_graph(path: Path, float_graph: Path, x: Arrays, threads: int, seconds: float) -> ProfiledGraph:
    """Run a graph under onnxruntime's profiler; layers are named as in ``float_graph``, which it was encoded from.

    Raises:
        BundleError: it does not run on ``x``, or not the same nodes each time.
    """
    with scratch_folder() as folder:
        rewritten = folder / "optimized.onnx"
        session = open_session(path, threads=threads, profile=f"{folder}/run", optimized=rewritten)
        start, clock = time.perf_counter(), _clock(threads)
        spent: list[float] = []
        while len(spent) < LEAST_RUNS + WARM_UP or (len(spent) < MOST_RUNS and time.perf_counter() - start < seconds):
            begin = clock()
            try:
                session.run(None, dict(x))
            except PocketzooError:
                raise
            except Exception as error:  # onnxruntime's own exceptions share no base but Exception
                raise BundleError(
                    f"{path.name} does not run on random samples: {error}", "measure it on samples: bench --data D"
                ) from error
            spent.append((clock() - begin) * 1e3)
        events = json.loads(Path(session.end_profiling()).read_text("utf8"))
        optimized = read_graph(rewritten).graph
    runs = len(spent)
    ran = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    if not ran or len(ran) % runs:
        raise BundleError(f"{path.name} does not run the same nodes each time", "it cannot be profiled node by node")
    count = len(ran) // runs
    times = np.array([e["dur"] for e in ran], float).reshape(runs, count)[WARM_UP:] / 1e3
    wholes = np.array(spent[WARM_UP:])
    middle = _middle(times)
    layers = NodeLayers(GraphIndex(read_graph(float_graph)))
    # Both lists are in the order of execution, unless a node has a graph of its own inside.
    known = list(optimized.node)
    if [n.op_type for n in known] != [e["args"]["op_name"] for e in ran[:count]]:
        known = [onnx.NodeProto(op_type=e["args"]["op_name"]) for e in ran[:count]]
    makers: dict[str, int] = {}
    nodes: list[Node] = []
    for i, (node, event, ms) in enumerate(zip(known, ran, middle, strict=False)):
        name = event["name"].removesuffix("_kernel_time")
        nodes.append(
            Node(
                name=name,
                op=node.op_type,
                layer=layers.of(node, name, [nodes[makers[each]].layer for each in node.input if each in makers]),
                kind=_kind(node.op_type, event["args"]),
                ms=float(ms),
                reads=tuple(dict.fromkeys(makers[each] for each in node.input if each in makers)),
            )
        )
        makers |= dict.fromkeys(node.output, i)
    return ProfiledGraph(path, nodes, float(_middle(wholes[:, None])[0]), len(times))


def _clock(threads: int) -> Callable[[], float]:
    """Seconds: of the thread, where it does all the work, so that others' do not count; else of the clock."""
    return time.thread_time if threads == 1 else time.perf_counter


def _middle(times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean over the runs without the fastest and the slowest quarter: the profiler counts whole microseconds."""
    quarter = len(times) // 4
    central = np.sort(times, 0)[quarter : len(times) - quarter]
    return np.asarray(central.mean(0))


def _kind(op: str, facts: Mapping[str, Any]) -> Kind:
    if op in CONVERSIONS:
        return "conversion"
    types = [name for entry in facts.get("input_type_shape", ()) for name in entry]
    return "int8" if op.startswith("QLinear") or any(name in INTEGERS for name in types) else "float"


def _module(
    bundle: Bundle, resolver: Resolver, x: Arrays, threads: int, seconds: float
) -> tuple[float, dict[str, float]]:
    """Milliseconds of torch's whole forward pass, and of each layer."""
    import torch

    from pocketzoo.zoo.models.build import load_module
    from pocketzoo.zoo.models.layer_hooks import after, before

    module = load_module(bundle, resolver)
    names = torch_layers(module)
    began: dict[str, float] = {}
    spent: dict[str, list[float]] = {}

    def start(name: str, layer: Any, inputs: Any) -> None:
        began[name] = clock()

    def stop(name: str, layer: Any, inputs: Any, output: Any) -> None:
        run[name] = run.get(name, 0.0) + (clock() - began[name]) * 1e3

    clock = _clock(threads)
    threads_before = torch.get_num_threads()
    batch = [torch.from_numpy(x[spec.name]) for spec in bundle_signature(bundle).inputs]
    torch.set_num_threads(threads or threads_before)
    wholes: list[float] = []
    try:
        with torch.inference_mode(), before(module, names, start), after(module, names, stop):
            begin = time.perf_counter()
            while len(wholes) < LEAST_RUNS + WARM_UP or (
                len(wholes) < MOST_RUNS and time.perf_counter() - begin < seconds
            ):
                run: dict[str, float] = {}
                started = clock()
                module(*batch)
                wholes.append((clock() - started) * 1e3)
                for name, ms in run.items():
                    spent.setdefault(name, []).append(ms)
    finally:
        torch.set_num_threads(threads_before)
    layers = {name: float(_middle(np.array(times[WARM_UP:])[:, None])[0]) for name, times in spent.items()}
    return float(_middle(np.array(wholes[WARM_UP:])[:, None])[0]), layers


def torch_layers(module: Any) -> list[str]:
    """Layers with nothing in them, and those that hold all weights below them: one that pads its input by a layer."""
    taken: list[str] = []
    for name, each in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in taken)
        below = [child for child in each.children() if next(child.parameters(), None) is not None]
        own = next(each.parameters(recurse=False), None) is not None
        if name and not inside and (not any(True for _ in each.children()) or (own and not below)):
            taken.append(name)
    return taken


def _left(bundle: Bundle, graph: ProfiledGraph) -> list[Left]:
    """The layers with weights that run in float, in graph order, with the reason that the plan or the kernels give."""
    said = {layer: str(why) for step in bundle.manifest.steps for layer, why in step.report.float_layers.items()}
    left = []
    by_layer: dict[str, list[Node]] = {}
    for node in graph.nodes:
        by_layer.setdefault(node.layer, []).append(node)
    for cost in (each for each in layer_costs(graph.path) if each.parameters):
        ran = [n for n in by_layer.get(cost.layer, ()) if runs_layer(n.op)]
        spent = total(by_layer.get(cost.layer, ()))
        if cost.precision != "int8":
            stored = f"its weight is stored in {cost.precision} and computed with in floats"
            why = said.get(cost.layer, "the plan has no ranges for it" if cost.precision in FLOATS else stored)
        elif ran and all(node.kind == "float" for node in ran):
            why = (
                f"its int8 weights are dequantized: no kernel here supports the encoding, so {ran[0].op} runs in float"
            )
        else:
            continue
        left.append(Left(layer=cost.layer, why=why, ms=spent))
    return left
