"""What a generated graph must hold: imported, calibrated and in eight bits for each encoding, it computes the same."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graph_compressed import compressed
from graph_generator import Generated
from graph_noise import bound, noisy, operands
from graph_recount import recounted
from graph_runs import FEED, energy, every_node, outputs_of, referred, runs, unequal, wide
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

CALIBRATED, ROWS, FEW = 24, 32, 4  # samples of a plan, of a comparison, and of one with the reference evaluator
# An error's energy over that of the simulation's: 1 in the median, and 4 at the most in hundreds of graphs.
NOISE = 8.0
# Draws of the simulation, where one is exceeded: the rounding is one more of them, which none of so many comes near
# with a chance of one in so many. A norm of values that are nearly equal, or nearly zero, makes much of little then.
DRAWS = 256
WHOLE = 100  # one graph of so many goes through the whole command
LEVEL = 1e-6  # of the energy of an output, which float32 differs by from one order of summation to another
# Of the energy of that noise, which is step^2 / 12 a value: one that lies between two steps may go either way, and in a
# graph that doubles or halves what is on steps all of them do.
CUTS = 12.0
UNSEEN = 4.0  # times the range of calibration that what a body reads has, where it is found in each run
DYNAMIC = "DynamicQuantizeLinear"


@dataclass
class Checked:
    """What was tried of a graph, and what was wrong with it: a line each."""

    tried: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """Add to what was tried."""
        self.tried[what] = self.tried.get(what, 0) + 1


class NotRunError(Exception):
    """onnxruntime does not run the graph as it was given."""


def reason_of(message: str) -> str:
    """An error without the names and numbers of its graph."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "X", message)
    return re.sub(r"\d+", "N", message)[:160]


Change = Callable[[ModelProto, Any], ModelProto]
Draws = Callable[[bool, bool, int, frozenset[str] | None], FEED]


def anew(model: ModelProto, plan: Any, change: Change = lambda model, _: model) -> ModelProto:
    """The float graph as layers are rewritten before they are quantized, with a ``change`` to it and to each body."""
    from pocketzoo.compress.quantization import elementwise, int8, int8_bodies, smoothquant
    from pocketzoo.zoo.graphs.operands import plain_operands

    plain = int8_bodies.apply_bodies(model, plan, functools.partial(anew, change=change))
    own = int8_bodies.without_bodies(plan)
    plain = elementwise.whole_gates(plain_operands(plain, own.layers))
    return change(smoothquant.apply(plain, int8.divisors(plan)), int8.with_needed_ranges(plain, own))


def _with_ranges_of_runs(plan: Any, model: ModelProto, feed: FEED) -> Any:
    """The plan with the ranges that dynamic layers find when they run, where these are wider than it says.

    What they find inside of nodes is not seen, and taken to be up to ``UNSEEN`` times as wide.
    """
    bodies = {place: _wider(body) for place, body in plan.bodies.items()}
    plan = dataclasses.replace(plan, bodies=bodies)
    if not plan.dynamic:
        return plan
    floats = wide(anew(model, plan))
    read = {node.input[0] for node in floats.graph.node if len(node.input) > 1 and layer_of(node) in plan.dynamic}
    ranges = dict(plan.ranges)
    for name, values in (feed | outputs_of(floats, feed)).items():
        if name in read and name in ranges and values.size:
            low, high = min(float(values.min()), ranges[name].low), max(float(values.max()), ranges[name].high)
            ranges[name] = dataclasses.replace(ranges[name], low=low, high=high)
    return dataclasses.replace(plan, ranges=ranges)


def _wider(plan: Any) -> Any:
    bodies = {place: _wider(body) for place, body in plan.bodies.items()}
    if not plan.dynamic:
        return dataclasses.replace(plan, bodies=bodies)
    ranges = {
        name: dataclasses.replace(each, low=UNSEEN * each.low, high=UNSEEN * each.high)
        for name, each in plan.ranges.items()
    }
    return dataclasses.replace(plan, bodies=bodies, ranges=ranges)


def layer_of(node: NodeProto) -> str:
    """The name of the layer whose weight a node reads second."""
    return str(node.input[1]).removesuffix(".weight")


def _noisy(
    model: ModelProto, plan: Any, *, symmetric: bool, draw: int, only: frozenset[str] | None = None
) -> ModelProto:
    """With noise on all tensors that have a range, or on ``only`` those that an encoding quantizes."""
    known = {name: each for name, each in plan.ranges.items() if only is None or name in only}
    ranges = {name: (r.low, r.high, r.magnitude) for name, r in known.items()}
    names = {*plan.layers, *(table.removesuffix(".weight") for table in plan.tables)}
    return noisy(model, ranges, names, symmetric=symmetric, draw=draw)


def _rounded_tensors(encoded: ModelProto) -> frozenset[str]:
    """The tensors that a graph rounds, at any depth."""
    cutting = ("QuantizeLinear", DYNAMIC)
    return frozenset(node.input[0] for node in every_node(encoded.graph) if node.op_type in cutting)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What libraries write to the standard error from C is not shown."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


class Checker:
    """Checks graphs in one process, with a folder for what is imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["POCKETZOO_HOME"] = str(folder / "home")
        # Packages do not change while this runs, and a bundle names the version of each.
        importlib.metadata.version = functools.cache(importlib.metadata.version)
        from pocketzoo.zoo.catalog.registry import default_registry

        specs = [entry.spec for entry in default_registry().entries("target").values()]
        self.targets: dict[Any, Any] = {}  # one of each way to write eight bits
        for spec in sorted(specs, key=lambda each: each.name):
            self.targets.setdefault(dataclasses.replace(spec.int8, required=False), spec)

    def check(self, graph: Generated) -> Checked:
        """Everything of one graph. What was not expected is a finding."""
        from pocketzoo.core.errors import PocketzooError

        checked = Checked()
        try:
            onnx.checker.check_model(graph.model, full_check=True)
            self._check(graph, checked)
        except NotRunError:
            checked.count("not run by onnxruntime")
        except PocketzooError as error:
            checked.count("refused")
            checked.findings.append(f"refused: {reason_of(error.message)}")
            if not error.message or not error.hint or "\n" in error.message:
                checked.findings.append(f"not two lines: {error}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            checked.findings.append(f"traceback: {said} at {Path(where.filename).name}:{where.lineno}")
        about = f"seed {graph.seed} opset {graph.model.opset_import[0].version} {'+'.join(graph.blocks)}"
        checked.findings = [f"{about}: {finding}" for finding in checked.findings]
        return checked

    def _check(self, graph: Generated, checked: Checked) -> None:
        from pocketzoo.compress.configs import Int8Config
        from pocketzoo.compress.quantization import int8
        from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
        from pocketzoo.zoo.models.import_onnx import open_graph

        first = graph.feed(graph.rows or FEW, 9)
        try:
            written = outputs_of(graph.model, first, rewritten=False)
        except Exception as error:
            raise NotRunError from error
        if not all(np.isfinite(out).all() for out in written.values()):
            raise NotRunError
        room = {name: energy(out, 0) * (1e-4 if out.dtype == np.float16 else LEVEL) for name, out in written.items()}
        if unequal(outputs_of(graph.model, first), written, room):
            checked.count("rewritten wrongly by onnxruntime as it was given")
            return
        path = self.folder / f"g{graph.seed}.onnx"
        onnx.save(graph.model, path)
        try:
            model = onnx.load(open_graph(path, OnnxMetadata(axes=graph.sizes)).file("model.onnx"))
        finally:
            path.unlink()
        checked.count("imported")
        if graph.fixed and (kept := model.graph.input[0].type.tensor_type.shape.dim[0].dim_value):
            graph = dataclasses.replace(graph, whole=kept)  # it is inside of the graph: a run takes no more
        given = outputs_of(model, first)
        if wrong := unequal(given, written, room):
            checked.findings.append(f"import: {wrong}")
            return
        counted = self._recounted(graph, model, checked)
        ways = ("auto", "static", "dynamic")
        config = Int8Config(activations=ways[graph.seed % 3], smooth=graph.seed % 2 == 0)
        refine = graph.seed % 4 != 3
        plan = int8.plan(model, config, runs(graph.feed(CALIBRATED, 1)), refine=refine)
        checked.count("dynamic" if plan.dynamic else "static")
        if not plan.layers and not plan.tables:
            checked.count("nothing to quantize")
            if not plan.left and _has_layers(model):
                checked.findings.append("nothing was quantized, and no reason is given")
        exact = outputs_of(model, graph.feed(ROWS, 2))
        expected = self._expected(graph, model, plan, exact, checked)
        for number, target in enumerate(self.targets.values()):
            refer = number == graph.seed % len(self.targets)
            self._encoded(graph, model, plan, target, exact, expected, checked, counted, refer=refer)
        if graph.seed % WHOLE == WHOLE - 1:
            names = sorted(target.name for target in self.targets.values())
            ended, wrong = compressed(graph, names[graph.seed // WHOLE % len(names)], self.folder)
            checked.count(ended)
            checked.findings += wrong

    def _recounted(self, graph: Generated, model: ModelProto, checked: Checked) -> tuple[int, int] | None:
        """Hold the table of costs to a count of our own."""
        from pocketzoo.zoo.backends.onnxruntime.observed import observe
        from pocketzoo.zoo.graphs.cost import layer_costs

        sample = runs(graph.feed(1, 4))[0]
        counted = recounted(model, {**sample, **outputs_of(wide(model), sample, rewritten=False)})
        if counted is None:
            return None
        rows = layer_costs(model, sample, observe)
        told = sum(row.parameters for row in rows), sum(row.macs for row in rows)
        checked.count("recounted")
        if told != counted:
            checked.findings.append(f"{told} parameters and multiply-accumulates, recounted {counted}")
        return counted

    def _expected(self, graph: Generated, model: ModelProto, plan: Any, exact: FEED, checked: Checked) -> Draws:
        """The energy of the noise that an output should have, by whether ranges are symmetric, whether some are
        found in each run, the draw, and what is rounded."""
        feed = graph.feed(ROWS, 2)
        if (plain := anew(model, plan)) is not model:
            otherwise = outputs_of(model, feed, rewritten=False)
            room = {n: 1e-8 * energy(out, 0) + CUTS * energy(otherwise[n], out) + 1e-12 for n, out in exact.items()}
            if wrong := unequal(outputs_of(plain, feed), exact, room):
                checked.findings.append(f"written anew in floats: {wrong}")

        found = _with_ranges_of_runs(plan, model, feed)

        @functools.cache
        def expected(symmetric: bool, dynamic: bool, draw: int, only: frozenset[str] | None) -> FEED:
            change = functools.partial(_noisy, symmetric=symmetric, draw=draw, only=only)
            simulated = outputs_of(anew(model, found if dynamic else plan, change), feed)
            return {name: energy(simulated[name], exact[name]) for name in exact}

        return expected

    def _encoded(
        self, graph: Generated, model: ModelProto, plan: Any, target: Any, exact: FEED,
        draws: Draws, checked: Checked, counted: tuple[int, int] | None, *, refer: bool,
    ) -> None:  # fmt: skip
        from pocketzoo.compress.quantization import int8

        encoded = int8.apply(model, plan, target)
        onnx.checker.check_model(encoded, full_check=True)
        feed = graph.feed(ROWS, 2)
        otherwise = outputs_of(
            model, feed, rewritten=False
        )  # floats alone may differ that much, as before a norm of two
        level = {
            name: LEVEL * energy(out, 0) + CUTS * energy(otherwise[name], out) + 1e-12 for name, out in exact.items()
        }
        given = outputs_of(encoded, feed)
        dynamic = any(node.op_type == DYNAMIC for node in every_node(encoded.graph))
        drawn = functools.partial(draws, target.int8.symmetric)
        expected = drawn(dynamic, 0, None)

        def wrong() -> str:
            return unequal(given, exact, {name: NOISE * expected[name] + level[name] for name in exact})

        if wrong():
            checked.count("ill-conditioned")
            cut = _rounded_tensors(encoded)
            for draw in range(DRAWS):
                # What layers of both kinds read is cut at its range for some of them, and found by others.
                more = drawn(dynamic and draw % 2 == 0, draw, cut)
                expected = {name: max(expected[name], more[name]) for name in exact}
                if not wrong():
                    break
            else:
                checked.findings.append(f"{target.name}: more noise than its steps make: {wrong()}")
        cuts = {name: CUTS * expected[name] + level[name] for name in exact}
        if differs := unequal(given, outputs_of(encoded, feed, rewritten=False), cuts):
            checked.findings.append(f"{target.name}: with and without rewriting: {differs}")
        checked.count(f"encoded for {target.name}")
        if refer:
            if counted is not None:
                self._priced(encoded, runs(graph.feed(1, 4))[0], counted[1], target, checked)
            self._referred(graph, model, encoded, target, expected, checked)
        if graph.alone and plan.layers and not plan.dynamic:
            self._bounded(graph, model, encoded, feed, exact, target, checked, refine=graph.seed % 4 != 3)

    def _priced(self, encoded: ModelProto, sample: FEED, macs: int, target: Any, checked: Checked) -> None:
        """An 8-bit graph computes as many products as the float graph; of its weights there is a count of our own."""
        from pocketzoo.zoo.backends.onnxruntime.observed import observe
        from pocketzoo.zoo.graphs.cost import layer_costs

        counted = recounted(encoded, {**sample, **outputs_of(wide(encoded), sample, rewritten=False)})
        rows = layer_costs(encoded, sample, observe)
        told = sum(row.parameters for row in rows), sum(row.macs for row in rows)
        checked.count("recounted in eight bits")
        if told != counted or told[1] != macs:
            checked.findings.append(f"{target.name}: {told} parameters and MACs, recounted {counted}, {macs} in floats")

    def _referred(
        self, graph: Generated, model: ModelProto, encoded: ModelProto, target: Any, expected: FEED, checked: Checked
    ) -> None:
        """Hold it to ONNX's reference evaluator."""
        few = graph.feed(FEW, 3)
        referred_to = referred(encoded, few)
        if referred_to is None:
            checked.count("beyond the reference evaluator")
            return
        checked.count("in the reference evaluator")
        plain = outputs_of(encoded, few, rewritten=False)
        room = {name: CUTS * expected[name] + 1e-5 * energy(plain[name], 0) + 1e-12 for name in plain}
        if not (wrong := unequal(referred_to, plain, room)):
            return
        whole = wide(model)  # a norm after it may hide what the evaluator does wrongly, but not from steps between
        floats, own = referred(whole, few), outputs_of(whole, few, rewritten=False)
        if floats is None or unequal(floats, own, {name: 1e-5 * energy(own[name], 0) + 1e-12 for name in own}):
            checked.count("float graph differs in the reference evaluator")
        else:
            checked.findings.append(f"{target.name}: in the reference evaluator: {wrong}")

    def _bounded(
        self, graph: Generated, model: ModelProto, encoded: ModelProto, feed: FEED, exact: FEED, target: Any,
        checked: Checked, *, refine: bool,
    ) -> None:  # fmt: skip
        """The inequality of one operator."""
        layers = [node for node in model.graph.node if node.op_type == graph.alone]
        if len(layers) != 1 or len(feed) != 1:
            return
        layer, x = layers[0], next(iter(feed.values())).astype(np.float64)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        alpha = next((a.f for a in layer.attribute if a.name == "alpha"), 1.0)
        weight = stored[layer.input[1]].astype(np.float64) * alpha
        if any(node.op_type == "Mul" for node in encoded.graph.node):  # smoothed: other operands, the same product
            return
        taken = operands(encoded, x, graph.alone)
        largest = np.abs(taken[1]).max() / 127 * max(np.ptp(taken[0]), np.abs(taken[0]).max()) / 127
        allowed = bound(layer, graph.model.opset_import[0].version, (x, weight), taken, float(largest), refine=refine)
        out = model.graph.output[0].name
        made = outputs_of(encoded, feed)[out]
        over = np.abs(made.astype(np.float64) - exact[out]) - allowed
        checked.count("held to the bound of one operator")
        if over.max(initial=0) > 0:
            checked.findings.append(f"{target.name}: {over.max():.2g} beyond the bound of its steps")
        if not refine and (np.abs(taken[1] - weight) > 0.502 * np.abs(weight).max() / 127 + 1e-12).any():
            checked.findings.append(f"{target.name}: a weight is further than half a step")


def _has_layers(model: ModelProto) -> bool:
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return any(
        node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in stored
        for node in model.graph.node
    )
