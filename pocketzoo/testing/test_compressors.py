"""Conformance of compressors, tried on tinynet: plan then apply, plans as data, inputs unchanged."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from pocketzoo.core.reading.tensor_files import parse_arrays
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.testing import two_of_each
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import BATCHES, OUTPUTS, Backbone, config_of, logits, samples
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.compressor import Compressor, LayerDecision, ModuleCompressor
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.models.build import example


class CompressorTrial:
    """A compressor on tinynet: a plan and what it makes, each made once."""

    def __init__(self, spec: Compressor, tinynet: Backbone, registry: Registry) -> None:
        self.spec, self.tinynet, self.registry = spec, tinynet, registry
        self.samples = samples(tinynet.spec.input)

    @property
    def model(self) -> Any:
        """The module, or the graph."""
        if isinstance(self.spec, ModuleCompressor):
            return self.tinynet.model
        if isinstance(self.tinynet.exported, Exception):
            raise self.tinynet.exported
        return self.tinynet.exported

    def new_plan(self) -> Any:
        config = config_of(self.spec)
        with blaming("plan() fails on tinynet", "mend plan()"):
            if isinstance(self.spec, ModuleCompressor):
                return self.spec.plan(self.model, config, self.samples, self.registry.get("target", "cpu"))
            return self.spec.plan(self.model, config, self.samples)

    @cached_property
    def plan(self) -> Any:
        return self.new_plan()

    @cached_property
    def compressed(self) -> list[Any]:
        """The smaller module, or the graphs for both ways to write them."""
        plan = self.plan
        with blaming("apply() fails on tinynet", "mend apply()"):
            if isinstance(self.spec, ModuleCompressor):
                return [self.spec.apply(self.model, plan, self.samples)]
            targets = [self.registry.get("target", name) for name in ("cpu", "tensorrt")]
            return [self.spec.apply(self.model, plan, target) for target in targets]


@pytest.fixture(scope="module")
def trial(compressor: Entry, tinynet: Backbone, registry: Registry) -> CompressorTrial:
    """Of one compressor, for all checks of it."""
    return CompressorTrial(compressor.spec, tinynet, registry)


def test_its_config_and_plan_are_frozen(compressor: Entry) -> None:
    """Dataclasses that nothing changes after they were made."""
    for what, kind in (("config", compressor.spec.config), ("plan_type", compressor.spec.plan_type)):
        if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[union-attr]
            wrong(f"its {what} is {kind!r}, which is not a frozen dataclass", "write @dataclass(frozen=True) above it")


def test_its_config_is_read_from_a_recipe(compressor: Entry) -> None:
    """A recipe is TOML: tables of plain values."""
    config = config_of(compressor.spec)
    with blaming("its config does not come back from a recipe", "use fields of plain types and tuples of them"):
        if from_plain(compressor.spec.config, json.loads(json.dumps(to_plain(config)))) != config:
            wrong(f"{config} comes back from a recipe as another config", "use fields of plain types")


def test_planning_changes_nothing(trial: CompressorTrial) -> None:
    """The model and the samples are as before."""
    before, drawn = _bytes(trial.model), [x.tobytes() for batch in trial.samples for x in batch.values()]
    trial.new_plan()
    if _bytes(trial.model) != before:
        wrong("plan() changes the model it is given", "decide in plan and change a copy in apply")
    if [x.tobytes() for batch in trial.samples for x in batch.values()] != drawn:
        wrong("plan() changes the samples it is given", "work on copies of the arrays")


def test_two_plans_agree(trial: CompressorTrial) -> None:
    """One model, config and samples make one plan."""
    if trial.plan != trial.new_plan():
        wrong("two plans for one model differ", "take chance from a seed in the config")


def test_a_plan_is_saved_and_read(trial: CompressorTrial) -> None:
    """A bundle keeps it as JSON, and the tensors it may have as safetensors."""
    if not isinstance(trial.plan, trial.spec.plan_type):
        wrong(f"plan() returns a {type(trial.plan).__name__}", f"return a {trial.spec.plan_type.__name__}")
    with blaming("its plan does not come back from JSON", "use fields of plain types, tuples and mappings of them"):
        tensors = parse_arrays(save(dict(getattr(trial.plan, "tensors", {}))))
        read = trial.spec.read_plan(json.loads(json.dumps(to_plain(trial.plan))), tensors)
    if read != trial.plan:
        wrong("its plan comes back from JSON as another one", "use tuples for sequences, and text for keys")
    if not isinstance(trial.spec, ModuleCompressor):
        again = trial.spec.apply(trial.model, read, trial.registry.get("target", "cpu"))
        if _bytes(again) != _bytes(trial.compressed[0]):
            wrong("a saved plan encodes to another graph", "keep all that is decided in the plan or its tensors")


def test_applying_makes_a_new_model_that_runs(trial: CompressorTrial) -> None:
    """What was given stays; what comes out is finite and of the same shape."""
    before = _bytes(trial.model)
    for compressed in trial.compressed:
        if compressed is trial.model or _bytes(trial.model) != before:
            wrong("apply() changes the model it is given", "change a copy of it")
        for batch in BATCHES:
            with blaming("what apply() makes does not run", "keep inputs and outputs as they are"):
                out = _run(compressed, example(trial.tinynet.spec.input, batch))
            if out.shape != (batch, OUTPUTS) or not np.isfinite(out).all():
                wrong(f"what apply() makes gives {out.shape} or values that are not finite", "see which layer does")


def test_a_saved_plan_replays_the_structure(trial: CompressorTrial) -> None:
    """A bundle is opened by applying its plan without samples, then loading its weights."""
    if not isinstance(trial.spec, ModuleCompressor):
        pytest.skip("it works on graphs, which are saved whole")
    (compressed,) = trial.compressed
    with blaming("a saved plan does not replay", "let apply(model, plan, None) make the same structure"):
        again = trial.spec.apply(trial.model, trial.plan, None)
        again.load_state_dict(compressed.state_dict())
    x = example(trial.tinynet.spec.input)
    if not np.array_equal(_run(compressed, x), _run(again, x), equal_nan=True):
        wrong("a replayed plan with the saved weights gives other outputs", "keep all that is decided in plan or state")


def test_several_inputs_and_outputs_stay(trial: CompressorTrial) -> None:
    """Of a model that reads an image and a row, and outputs scores and a vector: all of them, by name."""
    is_module = isinstance(trial.spec, ModuleCompressor)
    model: Any = two_of_each.module() if is_module else two_of_each.graph()
    target, config = trial.registry.get("target", "cpu"), config_of(trial.spec)
    spec: Any = trial.spec  # which of the two it is decides what its functions take
    drawn = [two_of_each.inputs(4)]
    with blaming("it fails on a model of two inputs and two outputs", "take samples as mappings, input -> array"):
        plan = spec.plan(model, config, drawn, *([target] if is_module else []))
        compressed = spec.apply(model, plan, drawn if is_module else target)
    with blaming("what it makes of two inputs and two outputs does not run", "keep inputs and outputs as they are"):
        if is_module:
            with torch.no_grad():
                tensors = (torch.from_numpy(x) for x in drawn[0].values())
                outputs = {name: x.numpy() for name, x in compressed(*tensors).items()}
        else:
            session = open_session(compressed)
            names = [output.name for output in session.get_outputs()]
            outputs = dict(zip(names, session.run(None, drawn[0]), strict=True))
    if sorted(outputs) != sorted(two_of_each.OUTPUTS):
        wrong(f"it leaves the outputs {', '.join(outputs)}", "keep every output by its name")
    for name, size in two_of_each.OUTPUTS.items():
        if outputs[name].shape != (4, size) or not np.isfinite(outputs[name]).all():
            wrong(f"{name} is {outputs[name].shape}, or not finite", "keep the shapes of outputs")


def test_it_says_what_a_plan_does(trial: CompressorTrial) -> None:
    """Layer by layer, in words: for --dry-run and the report."""
    if trial.spec.describe is None:
        pytest.skip("it does not describe its plans")
    with blaming("describe() fails", "give a LayerDecision for each layer that was looked at"):
        decisions = list(trial.spec.describe(trial.plan))
    for each in decisions:
        if not isinstance(each, LayerDecision) or not each.layer or not each.what.strip():
            wrong(f"it says {each!r:.80}", "give a LayerDecision with a layer, and what is done to it")
    names = [each.layer for each in decisions]
    if len(set(names)) < len(names):
        wrong("it says two things of one layer", "give each layer once")


def test_excluded_layers_are_left_as_they_were(trial: CompressorTrial) -> None:
    """To meet a budget: without them the plan says so, and what it was is as before."""
    exclude = getattr(trial.spec, "exclude", None)
    if exclude is None:
        pytest.skip("it excludes no layers")
    stored = [each.layer for each in trial.spec.decisions(trial.plan) if each.precision]
    if not stored:
        wrong("it says of no layer of tinynet which precision it gets", "let describe() say it: precision=")
    before = repr(to_plain(trial.plan))
    with blaming("exclude() fails", "return the plan without these layers"):
        plan = exclude(trial.plan, stored[:1])
    if repr(to_plain(trial.plan)) != before:
        wrong("exclude() changes the plan that it is given", "return another: dataclasses.replace")
    still = [each.layer for each in trial.spec.decisions(plan) if each.precision]
    if still != stored[1:]:
        wrong(f"without {stored[0]} it stores {', '.join(still) or 'nothing'}", "leave out that layer, and no other")
    graph: Any = trial.spec.apply(trial.model, plan, trial.registry.get("target", "cpu"))
    old = {tensor.name: tensor for tensor in trial.model.graph.initializer}
    new = {tensor.name: tensor for tensor in graph.graph.initializer}
    weights = [name for name in old if name.removesuffix(".weight") == stored[0]]
    if any(name not in new or new[name].raw_data != old[name].raw_data for name in weights):
        wrong(f"the weight of {stored[0]} is not as it was", "leave the layers that are excluded in float")


def test_a_weaker_config_asks_for_less(trial: CompressorTrial) -> None:
    """To meet a budget: with a fraction of 1 as much as was asked."""
    weaker = trial.spec.weaker
    if weaker is None:
        pytest.skip("it has no weaker configs")
    config = config_of(trial.spec)
    for fraction in (1.0, 0.5, 0.1):
        with blaming(f"weaker(config, {fraction}) fails", "return a config of the same type"):
            less = weaker(config, fraction)
        if not isinstance(less, trial.spec.config):
            wrong(f"weaker() returns a {type(less).__name__}", f"return a {trial.spec.config.__name__}")
        if fraction == 1.0 and less != config:
            wrong(f"weaker(config, 1.0) is {less}", "let 1.0 be as much as was asked for")
    if weaker(config, 0.5) == config:
        wrong("weaker(config, 0.5) asks for as much", "remove half as much")


def _run(model: nn.Module | onnx.ModelProto, x: torch.Tensor) -> Any:
    if isinstance(model, onnx.ModelProto):
        return logits(model, {model.graph.input[0].name: x.numpy()})
    with torch.no_grad():
        return model(x).numpy()


def _bytes(model: nn.Module | onnx.ModelProto) -> object:
    """All that a model is made of, to compare."""
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(deterministic=True)
    return repr(model), {key: value.numpy().tobytes() for key, value in model.state_dict().items()}
