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
from graph_generator import Generated
from graph_noise import FEED, bound, noisy, operands
from graph_recount import recounted
from onnx import ModelProto, TensorProto, numpy_helper

CALIBRATED, ROWS, FEW = 24, 32, 4  # samples of a plan, of a comparison, and of one with the reference evaluator
# An error's energy over that of the simulation's: 1 in the median, and 4 at the most in hundreds of graphs.
NOISE = 8.0
DRAWS = 12  # of the simulation, where one is exceeded
LEVEL = 1e-6  # of the energy of an output, which float32 differs by from one order of summation to another
CUTS = 1.5  # of the energy of that noise: a value that lies between two steps may go either way


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


def outputs_of(model: ModelProto, feed: FEED, *, rewritten: bool = True) -> dict[str, Any]:
    """All outputs by name, with all of onnxruntime's rewriting or with none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewritten else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    read = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in feed.items() if k in read}), strict=True))


def referred(model: ModelProto, feed: FEED) -> dict[str, Any] | None:
    """All outputs by ONNX's reference evaluator; None where it has no implementation of an operator."""
    from onnx.reference import ReferenceEvaluator

    try:
        names = [output.name for output in model.graph.output]
        with np.errstate(all="ignore"):
            return dict(zip(names, ReferenceEvaluator(model, new_ops=_pairs()).run(names, feed), strict=True))
    except Exception:  # of its own, with no common base
        return None


@functools.cache
def _pairs() -> list[Any]:
    """The evaluator's Q/DQ nodes are of opset 19 and later; what earlier ones say of them is the same."""
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_25
    from onnx.reference.ops.op_quantize_linear import QuantizeLinear_25

    pairs = {"DequantizeLinear": DequantizeLinear_25, "QuantizeLinear": QuantizeLinear_25}
    return [type(name, (own,), {"op_domain": ""}) for name, own in pairs.items()]


def energy(a: Any, b: Any) -> float:
    """The sum of squares of a difference."""
    return float(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).sum())


def unequal(a: dict[str, Any], b: dict[str, Any], room: dict[str, float]) -> str:
    """The first output by which two runs differ by more than ``room``, and by how much; "" where none does."""
    for name, out in a.items():
        other = b[name]
        if out.shape != other.shape or out.dtype != other.dtype:
            return f"{name} is {out.dtype}{out.shape}, not {other.dtype}{other.shape}"
        if np.issubdtype(out.dtype, np.floating):
            lost = energy(out, other)
            if not lost <= room[name]:
                return f"{name} differs by {lost:.2g} of {energy(other, 0):.2g}, more than {room[name]:.2g}"
    return ""


def reason_of(message: str) -> str:
    """An error without the names and numbers of its graph."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "X", message)
    return re.sub(r"\d+", "N", message)[:160]


Change = Callable[[ModelProto, Any], ModelProto]


def anew(model: ModelProto, plan: Any, change: Change = lambda model, _: model) -> ModelProto:
    """The float graph as layers are rewritten before they are quantized, with a ``change`` to it and to each body."""
    from pocketzoo.compress.quantization import elementwise, int8, int8_bodies, smoothquant
    from pocketzoo.zoo.graphs.operands import plain_operands

    plain = int8_bodies.apply_bodies(model, plan, functools.partial(anew, change=change))
    own = int8_bodies.without_bodies(plan)
    plain = elementwise.whole_gates(plain_operands(plain, own.layers))
    return change(smoothquant.apply(plain, int8.divisors(plan)), int8.with_needed_ranges(plain, own))


def _noisy(model: ModelProto, plan: Any, *, symmetric: bool, draw: int) -> ModelProto:
    ranges = {name: (r.low, r.high, r.magnitude) for name, r in plan.ranges.items()}
    names = {*plan.layers, *(table.removesuffix(".weight") for table in plan.tables)}
    return noisy(model, ranges, names, symmetric=symmetric, draw=draw)


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
        from pocketzoo.zoo.models.import_onnx import open_graph

        fixed = all(v.type.tensor_type.shape.dim[0].dim_value == 1 for v in graph.model.graph.input[:1])
        try:
            written = outputs_of(graph.model, graph.feed(1 if fixed else FEW, 9), rewritten=False)
        except Exception as error:
            raise NotRunError from error
        if not all(np.isfinite(out).all() for out in written.values()):
            raise NotRunError
        room = {name: energy(out, 0) * (1e-4 if out.dtype == np.float16 else LEVEL) for name, out in written.items()}
        if unequal(outputs_of(graph.model, graph.feed(1 if fixed else FEW, 9)), written, room):
            checked.count("rewritten wrongly by onnxruntime as it was given")
            return
        path = self.folder / f"g{graph.seed}.onnx"
        onnx.save(graph.model, path)
        try:
            model = onnx.load(open_graph(path).file("model.onnx"))
        finally:
            path.unlink()
        checked.count("imported")
        given = outputs_of(model, graph.feed(1 if fixed else FEW, 9))
        if wrong := unequal(given, written, room):
            checked.findings.append(f"import: {wrong}")
            return
        self._recounted(graph, model, checked)
        ways = ("auto", "static", "dynamic")
        config = Int8Config(activations=ways[graph.seed % 3], smooth=graph.seed % 2 == 0)
        refine = graph.seed % 4 != 3
        plan = int8.plan(model, config, [graph.feed(CALIBRATED, 1)], refine=refine)
        checked.count("dynamic" if plan.dynamic else "static")
        if not plan.layers and not plan.tables:
            checked.count("nothing to quantize")
            if not plan.left and _has_layers(model):
                checked.findings.append("nothing was quantized, and no reason is given")
        exact = outputs_of(model, graph.feed(ROWS, 2))
        expected = self._expected(graph, model, plan, exact, checked)
        for number, target in enumerate(self.targets.values()):
            refer = number == graph.seed % len(self.targets)
            self._encoded(graph, model, plan, target, exact, expected, checked, refer=refer)

    def _recounted(self, graph: Generated, model: ModelProto, checked: Checked) -> None:
        """Hold the table of costs to a count of our own."""
        from pocketzoo.zoo.graphs.cost import layer_costs

        sample, wide = graph.feed(1, 4), ModelProto()
        wide.CopyFrom(model)
        own = {output.name for output in model.graph.output}
        names = [name for node in model.graph.node for name in node.output if name and name not in own]
        wide.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        counted = recounted(model, {**sample, **outputs_of(wide, sample, rewritten=False)})
        if counted is None:
            return
        rows = layer_costs(model, sample)
        told = sum(row.parameters for row in rows), sum(row.macs for row in rows)
        checked.count("recounted")
        if told != counted:
            checked.findings.append(f"{told} parameters and multiply-accumulates, recounted {counted}")

    def _expected(
        self, graph: Generated, model: ModelProto, plan: Any, exact: FEED, checked: Checked
    ) -> Callable[[bool, int], FEED]:
        """The energy of the noise that an output should have, by whether ranges are symmetric, and the draw."""
        feed = graph.feed(ROWS, 2)
        if (plain := anew(model, plan)) is not model:
            room = {name: 1e-8 * energy(out, 0) + 1e-12 for name, out in exact.items()}
            if wrong := unequal(outputs_of(plain, feed), exact, room):
                checked.findings.append(f"written anew in floats: {wrong}")

        @functools.cache
        def expected(symmetric: bool, draw: int) -> FEED:
            change = functools.partial(_noisy, symmetric=symmetric, draw=draw)
            simulated = outputs_of(anew(model, plan, change), feed)
            return {name: energy(simulated[name], exact[name]) for name in exact}

        return expected

    def _encoded(
        self, graph: Generated, model: ModelProto, plan: Any, target: Any, exact: FEED,
        draws: Callable[[bool, int], FEED],
        checked: Checked, *, refer: bool,
    ) -> None:  # fmt: skip
        from pocketzoo.compress.quantization import int8

        encoded = int8.apply(model, plan, target)
        onnx.checker.check_model(encoded, full_check=True)
        feed = graph.feed(ROWS, 2)
        level = {name: LEVEL * energy(out, 0) + 1e-12 for name, out in exact.items()}
        given = outputs_of(encoded, feed)
        expected = draws(target.int8.symmetric, 0)
        if unequal(given, exact, {name: NOISE * expected[name] + level[name] for name in exact}):
            # A norm of values that are nearly equal, or nearly zero, makes much of little, now and then.
            every = [draws(target.int8.symmetric, draw) for draw in range(DRAWS)]
            expected = {name: max(each[name] for each in every) for name in exact}
            checked.count("ill-conditioned")
            if wrong := unequal(given, exact, {name: NOISE * expected[name] + level[name] for name in exact}):
                checked.findings.append(f"{target.name}: more noise than its steps make: {wrong}")
        cuts = {name: CUTS * expected[name] + level[name] for name in exact}
        if wrong := unequal(given, outputs_of(encoded, feed, rewritten=False), cuts):
            checked.findings.append(f"{target.name}: with and without rewriting: {wrong}")
        checked.count(f"encoded for {target.name}")
        if refer:
            self._referred(graph, model, encoded, target, expected, checked)
        if graph.alone and plan.layers and not plan.dynamic:
            self._bounded(graph, model, encoded, feed, exact, target, checked, refine=graph.seed % 4 != 3)

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
        floats, own = referred(model, few), outputs_of(model, few)
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
