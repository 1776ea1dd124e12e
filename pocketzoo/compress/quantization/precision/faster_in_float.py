"""Which layers of an int8 plan a target computes faster in float32, as its graphs are timed there.

An int8 kernel may be slower than the float one of the same layer: where a first convolution reads three channels, where
a depthwise one has no multiple of 16 channels, where there is none at all. A layer by itself says little, as each
change between integers and floats costs a pass over the tensor. So runs of adjacent layers are looked at: times of
nodes say which may gain, and whole graphs decide, timed in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from onnx import ModelProto

from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization.int8 import apply, exclude
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.files import scratch_folder
from pocketzoo.zoo.backends.timing import speedup, time_in_turn
from pocketzoo.zoo.catalog.backend import GraphTimer
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name

LEAST_GAIN = 0.02  # of the int8 graph's latency: less is not worth floats,
LEAST_MS = 0.05  # nor is this, of graphs whose latency is mostly that of being called
MOST_WEIGHTS = 0.1  # of all weights in int8 that may return to float: a file is to be small, too
STEP = 0.005  # of the latency that one more layer has to gain
ROUNDS = 3  # in which runs grow and shrink at their ends
GROWN = 2  # runs that do, those that gain most
CONFIRMATIONS = 4  # times that the last two are timed, until the interval of what is gained is clear
SECONDS, LEAST, MOST = 0.15, 11, 60  # that each graph is timed for, and the runs of each that count

Floats = frozenset[str]
NONE: Floats = frozenset()
TimeInTurn = Callable[[Sequence[Floats]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """What one layer takes in both, in milliseconds, and how many weights it has."""

    layer: str
    int8: float
    float32: float
    weights: int

    @property
    def gain(self) -> float:
        """What float32 saves; below 0 where int8 is faster."""
        return self.int8 - self.float32

    def __str__(self) -> str:
        if self.gain <= 0:
            return "the layers next to it are faster in float32 here, and a change between the two takes longer"
        return f"faster in float32 here: {_shown(self.float32)} against {_shown(self.int8)}"


def _shown(ms: float) -> str:
    return f"{ms:.2f} ms" if ms >= 1 else f"{1e3 * ms:.0f} us"


def tune(model: ModelProto, plan: Int8Plan, x: Arrays, target: TargetSpec, timer: GraphTimer) -> Int8Plan:
    """The plan with what a target computes faster in float32, in ``faster``; other targets keep what they have.

    ``x`` is one sample. Whole graphs decide, timed in turn by ``timer``: what is left in float makes the graph faster
    by 2% and 50 us at least, or none is.
    """
    plan = replace(plan, faster={name: floats for name, floats in plan.faster.items() if name != target.name})
    if not plan.layers:
        return plan
    with scratch_folder() as folder:
        layers = _layer_times(model, plan, x, target, timer, folder)
        found = choose(layers, partial(_time, model, plan, x, target, timer, folder))
    reasons = {each.layer: str(each) for each in layers if each.layer in found}
    return replace(plan, faster={**plan.faster, target.name: reasons}) if reasons else plan


def choose(layers: Sequence[LayerTimes], time: TimeInTurn) -> Floats:
    """The layers, in graph order, that are left in float32: those of the fastest graph of several, where it pays.

    ``time`` gives milliseconds of graphs with these layers in float32, run in turn: item i of each is of round i.
    """
    runs = [run for run in _runs(layers) if run]
    allowed = MOST_WEIGHTS * sum(each.weights for each in layers)
    if sum(each.gain for run in runs for each in run) < LEAST_MS:
        return NONE
    unions = [frozenset(each.layer for run in runs[:count] for each in run) for count in _doubled(len(runs))]
    tried = {NONE}
    best = NONE
    for _ in range(1 + ROUNDS):
        new = [floats for floats in dict.fromkeys(unions) if floats not in tried and _size(layers, floats) <= allowed]
        if not new:
            break
        tried.update(new)
        times = time([best, *new])
        ratios = [_ratio(each, times[0]) for each in times[1:]]
        fastest = int(np.argmin(ratios))
        if ratios[fastest] > 1 - STEP:
            break
        best = new[fastest]
        unions = _neighbors(layers, best)
    if not best:
        return NONE
    before, after = list[float](), list[float]()
    for _ in range(CONFIRMATIONS):  # anew, as the fastest of several was lucky, too; longer where others work here
        all_int8, mixed = time([NONE, best])
        before.extend(all_int8)
        after.extend(mixed)
        gain = speedup(after, before)
        if gain is None or gain.middle < 1 + LEAST_GAIN or np.median(before) - np.median(after) < LEAST_MS:
            return NONE
        if gain.low > 1 + LEAST_GAIN / 2:
            return best
    return NONE


def _runs(layers: Sequence[LayerTimes]) -> list[Sequence[LayerTimes]]:
    """Runs of adjacent layers that gain most together, the one that gains most first, of few enough weights in all.

    They are the maximal scoring subsequences of what layers gain (Ruzzo and Tompa, ISMB 1999).
    """
    found: list[tuple[int, int, float, float]] = []  # begin, end, sum of all before it, and with it
    total = 0.0
    for i, each in enumerate(layers):
        before, total = total, total + each.gain
        if each.gain <= 0:
            continue
        run = (i, i + 1, before, total)
        while True:
            lower = next((k for k in reversed(range(len(found))) if found[k][2] < run[2]), None)
            if lower is None or found[lower][3] >= run[3]:
                found.append(run)
                break
            run = (found[lower][0], run[1], found[lower][2], run[3])
            del found[lower:]
    ordered = sorted((run[3] - run[2], run[0], run[1]) for run in found)
    whole = sum(each.int8 for each in layers)
    runs, left = [], MOST_WEIGHTS * sum(each.weights for each in layers)
    for gain, begin, end in reversed(ordered):
        size = sum(each.weights for each in layers[begin:end])
        if gain >= STEP * whole and size <= left:
            runs.append(layers[begin:end])
            left -= size
    return runs


def _doubled(count: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return [*(1 << i for i in range(count.bit_length()) if 1 << i < count), *([count] if count else [])]


def _neighbors(layers: Sequence[LayerTimes], floats: Floats) -> list[Floats]:
    """The same layers, but for one more or one less at an end of the runs that gain most."""
    inside = [each.layer in floats for each in layers]
    edges = np.flatnonzero(np.diff([False, *inside, False])).reshape(-1, 2)
    gains = [sum(each.gain for each in layers[begin:end]) for begin, end in edges]
    found = []
    for begin, end in (edges[i] for i in np.argsort(gains)[::-1][:GROWN]):
        found += [floats | {layers[at].layer} for at in (end, begin - 1) if 0 <= at < len(layers)]
        found += [floats - {layers[at].layer} for at in (end - 1, begin)]
    return [each for each in found if each]


def _size(layers: Iterable[LayerTimes], floats: Floats) -> int:
    return sum(each.weights for each in layers if each.layer in floats)


def _ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Of latencies, the median over the rounds."""
    return float(np.median(np.asarray(times) / np.maximum(reference, 1e-9)))


def _layer_times(
    model: ModelProto, plan: Int8Plan, x: Arrays, target: TargetSpec, timer: GraphTimer, folder: Path
) -> list[LayerTimes]:
    """Of the planned layers, in graph order, as far as their times are known in both graphs."""
    index = GraphIndex(model)
    weights = [node.input[1] for node in index.nodes if index.is_layer(node)]
    sizes = {layer_name(name): prod(index.constants[name].dims) for name in weights}
    original = folder / "float.onnx"
    save_graph(model, original)
    quantized = _encoded(model, plan, target, NONE, folder / "int8.onnx")
    floats = timer.layers(original, original, x)
    integers = timer.layers(quantized, original, x) if floats else {}
    names = [name for name in sizes if name in plan.layers and name in floats and name in integers]
    return [LayerTimes(layer=name, int8=integers[name], float32=floats[name], weights=sizes[name]) for name in names]


def _time(
    model: ModelProto,
    plan: Int8Plan,
    x: Arrays,
    target: TargetSpec,
    timer: GraphTimer,
    folder: Path,
    candidates: Sequence[Floats],
) -> list[list[float]]:
    """Milliseconds of the thread for the graphs with these layers in float32, run in turn."""
    with ExitStack() as stack:
        paths = [_encoded(model, plan, target, floats, folder / f"{i}.onnx") for i, floats in enumerate(candidates)]
        runners = [stack.enter_context(timer.open(path)) for path in paths]
        runs = [partial(runner.infer, x) for runner in runners]
        return [times.cpu for times in time_in_turn(runs, SECONDS, least=LEAST, most=MOST)]


def _encoded(model: ModelProto, plan: Int8Plan, target: TargetSpec, floats: Collection[str], place: Path) -> Path:
    save_graph(apply(model, exclude(plan, floats), target), place)
    return place
