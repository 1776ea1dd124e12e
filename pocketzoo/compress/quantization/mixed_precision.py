"""Choose layers to keep in float: measure the effect of each on accuracy and latency, keep the best.

It works for every compressor that can exclude layers from its plan.

A layer's effect is what changes when it alone goes back to float in the compressed graph: noise of the output against
the float graph's (Wu et al. 2020, arXiv:2004.09602, section 6.1, do it with accuracy and quantize one layer alone,
which costs the same and does not see how errors meet), and time, or bytes. Layers are taken in the order of dB gained
for what is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pocketzoo.compress.quantization.calibration import one_by_one
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.measure.measure_graphs import median_milliseconds
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.zoo.backends.onnxruntime.observed import observe
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.weight_files import graph_bytes, remove_graph
from pocketzoo.zoo.tasks.agreement import noise_to_signal

ALONE, GROUPS = 128, 32  # layers up to which each is tried alone; groups of layers that are tried of very many
GIVEN_BACK = 16  # layers at most that are tried in int8 again in the end
SAMPLES = 16  # that noise is measured on
SECONDS = 0.06  # that a layer's graph and the int8 graph are timed for, each
LEAST = 0.002  # fraction of the latency below which no difference can be told from chance


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatEffect:
    """What leaving one layer in float does to a compressed graph."""

    layer: str
    gained: float  # dB, of the output's SQNR against the float graph
    lost: float  # fraction of the graph's latency, on targets that do not run here of all MACs; or of its bytes
    milliseconds: float | None = None  # the same in milliseconds, where it was measured
    bytes: int | None = None  # the same in bytes, where those are the price
    together: int = 1  # layers that were left in float at once; all numbers are an equal part of what that did

    @property
    def worth(self) -> float:
        """dB gained for what is lost."""
        return self.gained / max(self.lost, LEAST)

    def __str__(self) -> str:
        price = f"{self.milliseconds:+.3f} ms" if self.milliseconds is not None else f"{self.lost:.1%} of the MACs"
        price = price if self.bytes is None else f"{self.bytes:+,} bytes"
        shared = f" (a part of what {self.together} layers do together)" if self.together > 1 else ""
        return f"{self.gained:+.2f} dB for {price}{shared}"


def float_effects(
    compressor: GraphCompressor[Any, Any],
    model: onnx.ModelProto,
    plan: Any,
    samples: Iterable[Arrays],
    target: TargetSpec,
    folder: Path,
    progress: Progress = SILENT,
    held: Collection[str] = (),
) -> list[FloatEffect]:
    """The effect of every layer that can be excluded, the most worth first. ``folder`` is for graphs on their way.

    It is that on the outputs that are ``held`` to something; all where none is named.

    Every trial writes and runs a whole graph, so of many layers neighbors are tried together (``neighbors``), and each
    has an equal part of what that does.
    """
    exclude = compressor.exclude
    assert exclude is not None
    xs = list(islice(one_by_one(model, samples), SAMPLES))
    full, one = folder / "full.onnx", folder / "one.onnx"
    write(compressor, model, plan, target, full)
    save_graph(model, one)
    float_outputs = _answers(one, xs)
    own = [value.name for value in model.graph.output if not held or value.name in held]
    names = forms_of_files([one]).compared(own)
    macs = Counter[str]()  # a weight that is used twice is a layer twice, under one name
    for cost in layer_costs(one, xs[0] if xs else None, observe):
        macs[cost.layer] += cost.macs
    noise = _noise(full, xs, float_outputs, names)
    effects: list[FloatEffect] = []
    groups = neighbors(excludable(compressor, plan))
    for layers in progress.track(groups, f"{compressor.name}: effect of each layer", len(groups)):
        write(compressor, model, exclude(plan, layers), target, one)
        left = _noise(one, xs, float_outputs, names)
        comparable = 0 < left < np.inf and 0 < noise < np.inf
        gained = float(10 * np.log10(noise / left)) if comparable else np.inf if left < noise else 0.0
        if compressor.price == "bytes":
            small, large = graph_bytes(full), graph_bytes(one)
            effects += _each(layers, gained, large / small - 1, size=large - small)
            continue
        if not target.timed_here:  # its time here would say nothing of its time there
            effects += _each(layers, gained, sum(macs[layer] for layer in layers) / max(macs.total(), 1))
            continue
        before, after = median_milliseconds([full, one], xs[0], SECONDS)
        effects += _each(layers, gained, after / before - 1, milliseconds=after - before)
    remove_graph(one, missing_ok=True)
    remove_graph(full)
    return sorted(effects, key=lambda effect: -effect.worth)


def neighbors(layers: Sequence[str]) -> list[Sequence[str]]:
    """The layers in the groups that are tried together: alone up to ``ALONE``, of more the fewer groups the more.

    So trials times layers grows no further, until there are ``GROUPS`` left.
    """
    count = max(GROUPS, ALONE * ALONE // max(len(layers), ALONE))
    size = -(-len(layers) // count)
    return [layers[at : at + size] for at in range(0, len(layers), size)] if layers else []


def _each(
    layers: Sequence[str], gained: float, lost: float, *, milliseconds: float | None = None, size: int | None = None
) -> list[FloatEffect]:
    """The effect of some layers together, in equal parts."""
    count = len(layers)
    return [
        FloatEffect(
            layer=layer,
            gained=gained / count,
            lost=lost / count,
            milliseconds=None if milliseconds is None else milliseconds / count,
            bytes=None if size is None else size // count,
            together=count,
        )
        for layer in layers
    ]


def search(
    compressor: GraphCompressor[Any, Any],
    model: onnx.ModelProto,
    plan: Any,
    samples: Iterable[Arrays],
    target: TargetSpec,
    enough: Callable[[Path], bool],
    folder: Path,
    progress: Progress = SILENT,
    held: Collection[str] = (),
    others: Sequence[TargetSpec] = (),
) -> tuple[Any, list[FloatEffect]] | None:
    """The plan with as few layers in float as make its graph good ``enough``, and those layers; None if none does.

    ``enough`` takes the graph encoded for ``target``, and for each of ``others``. How many layers it takes is found by
    doubling, then halving; then those that gain least are given back where it is enough without.
    """
    graph, exclude = folder / "candidate.onnx", compressor.exclude
    assert exclude is not None

    def passes(effects: Sequence[FloatEffect]) -> bool:
        less = exclude(plan, [e.layer for e in effects])
        for each in (target, *others):
            write(compressor, model, less, each, graph)
            if not enough(graph):
                return False
        return True

    try:
        if passes([]):
            return plan, []
        # Alone a layer may gain nothing where another spoils the same output; so all are there, those that gain first.
        effects = float_effects(compressor, model, plan, samples, target, folder, progress, held)
        order = sorted(effects, key=lambda e: e.gained <= 0)
        count = 1
        while count <= len(order) and not passes(order[:count]):
            count *= 2
        low, high = count // 2, min(count, len(order))
        if count > len(order) and (not order or not passes(order)):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(order[:middle]) else (middle, high)
        left_in_float = order[:high]
        # What gains nothing by itself may stand before what does; the last one is what it was not enough without.
        for effect in sorted(left_in_float[:-1], key=lambda e: e.gained)[:GIVEN_BACK]:
            if passes(rest := [e for e in left_in_float if e is not effect]):
                left_in_float = rest
        return exclude(plan, [e.layer for e in left_in_float]), left_in_float
    finally:
        remove_graph(graph, missing_ok=True)


def excludable(compressor: GraphCompressor[Any, Any], plan: Any) -> list[str]:
    """The layers that a plan compresses, as the compressor describes it."""
    return list(dict.fromkeys(d.layer for d in compressor.decisions(plan) if d.precision and not d.why))


def write(
    compressor: GraphCompressor[Any, Any], model: onnx.ModelProto, plan: Any, target: TargetSpec, place: Path
) -> None:
    """Save the graph encoded for a target."""
    save_graph(compressor.apply(model, plan, target), place)


def _answers(graph: Path, xs: Sequence[Arrays]) -> list[Arrays]:
    with scratch_folder() as folder, closing(with_selections(OnnxRunner, folder)(graph)) as runner:
        return [runner.infer(x) for x in xs]


def _noise(graph: Path, xs: Sequence[Arrays], reference_outputs: Sequence[Arrays], names: Collection[str]) -> float:
    """The error of what is compared of outputs, each as a fraction of its own power: the worst has the most say."""
    outputs = _answers(graph, xs) if reference_outputs else []
    return sum(noise_to_signal([g[name] for g in outputs], [w[name] for w in reference_outputs]) for name in names)
