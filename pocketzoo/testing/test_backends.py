"""Conformance of back ends: runtimes, outputs as onnxruntime's, refusals by name, threads, a missing package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pocketzoo.core.errors import DataError, PocketzooError, message_of
from pocketzoo.core.progress import SILENT
from pocketzoo.testing import two_of_each
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.backends.open_backend import is_installed, open_backend
from pocketzoo.zoo.catalog.backend import BackendSpec, Support
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import TargetSpec

TOLERANCE = 1e-4
# In a process in which the module of its package cannot be imported: what opening and running it say.
WITHOUT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
sys.modules[sys.argv[3]] = None
from pathlib import Path
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.backends.open_backend import open_backend, why_not, backends
from pocketzoo.zoo.catalog.registry import default_registry
registry = default_registry()
spec = registry.get("backend", sys.argv[2])
said = []
for name, way in backends(registry).ways.items():
    if way.backend.name == spec.name:
        said.append(why_not(way)[0])
try:
    open_backend(spec)
    said.append("")
except PocketzooError as error:
    said.append(error.message)
print(json.dumps(said))
"""


class BackendTrial:
    """A back end that was opened, and what it makes of a graph of two inputs and two outputs."""

    def __init__(self, spec: BackendSpec, registry: Registry, folder: Path) -> None:
        self.spec, self.registry, self.folder = spec, registry, folder
        self.graph = folder / "model.onnx"
        onnx.save(two_of_each.graph(), self.graph)
        self.inputs = two_of_each.inputs(2)

    @cached_property
    def backend(self) -> Any:
        """The back end; a check of one whose package is not installed is skipped."""
        if not is_installed(self.spec):
            pytest.skip(f"{self.spec.module} is not installed")
        try:
            return open_backend(self.spec)
        except PocketzooError as error:
            pytest.skip(f"it does not open (see test_it_is_whole): {error.message}")

    @property
    def runtimes(self) -> list[str]:
        """Those that work here."""
        names = [way.name for way in self.spec.ways if not self.backend.why_not(way.name)]
        if not names:
            pytest.skip(f"none of its runtimes works here: {self.backend.why_not(self.spec.ways[0].name)}")
        if self.spec.form != "graph":
            pytest.skip("it runs bundles' modules, no graphs")
        return names

    @cached_property
    def target(self) -> TargetSpec | None:
        """What it builds for."""
        named = [e.spec for e in self.registry.entries("target").values() if e.spec.backend == self.spec.name]
        if self.spec.target:
            return self.registry.get("target", self.spec.target)  # type: ignore[no-any-return]
        return named[0] if named else None

    def prepared(self, graph: Path) -> Path:
        """What it loads: the graph, or what it builds of it."""
        if not self.spec.suffix or self.spec.loads_graphs:
            return graph
        if self.target is None:
            pytest.skip("it builds, and no target names it")
        support = self.backend.support(self.target)
        if not support.builds:
            pytest.skip(f"it does not build here: {support.why}")
        out = graph.with_suffix(self.spec.suffix)
        if not out.exists():
            self.backend.build(graph, out, self.target, options=EngineOptions(), progress=SILENT)
        return out

    def load(self, runtime: str, threads: int = 0) -> Any:
        """A runner of the graph."""
        with blaming(f"load() fails for {runtime}", "load what build() writes, or a graph where it says loads_graphs"):
            model = self.prepared(self.graph)
            return self.backend.load(model, runtime=runtime, target=self.target, threads=threads)


@pytest.fixture
def trial(backend: Entry, registry: Registry, tmp_path: Path) -> BackendTrial:
    """Of one back end."""
    return BackendTrial(backend.spec, registry, tmp_path)


def test_it_names_its_runtimes(trial: BackendTrial, registry: Registry) -> None:
    """Each once, in all back ends; and each says whether it works here."""
    own = [way.name for way in trial.spec.ways]
    others = [
        way.name for name, e in registry.entries("backend").items() if name != trial.spec.name for way in e.spec.ways
    ]
    if len(set(own)) < len(own) or set(own) & set(others):
        wrong(f"its runtimes are {', '.join(own)}, of which one is there twice", "begin each with the back end's name")
    for name in own:
        with blaming(f"why_not({name!r}) fails", 'return why it does not work here, or ""'):
            why = trial.backend.why_not(name)
        if not isinstance(why, str):
            wrong(f"why_not({name!r}) returns {why!r:.40}", 'return why it does not work here, or ""')


def test_it_is_whole(trial: BackendTrial, registry: Registry) -> None:
    """It has all methods, and the target that it builds for is there."""
    if is_installed(trial.spec):
        with blaming("it does not open", "import the runtime in open(), and return what has all methods"):
            open_backend(trial.spec)
    if trial.spec.target:
        with blaming(f"its target {trial.spec.target!r}", "declare it in pocketzoo_targets, or name one that ships"):
            registry.get("target", trial.spec.target)
    if trial.spec.builds and trial.target is None:
        wrong("it builds, and no target names it", 'declare one: TargetSpec(..., backend="its name")')
    if trial.target is not None and not isinstance(trial.backend.support(trial.target), Support):
        wrong(f"support() returns {trial.backend.support(trial.target)!r:.40}", "return Support(builds=..., runs=...)")


def test_outputs_are_those_of_onnxruntime(trial: BackendTrial) -> None:
    """By the names of the graph, within 1e-4, at other batch sizes too."""
    session = open_session(trial.graph)
    for runtime in trial.runtimes:
        with trial.load(runtime) as runner:
            _check_signature(runner.signature)
            for count in (2, 1):
                inputs = {name: x[:count] for name, x in trial.inputs.items()}
                names = [output.name for output in session.get_outputs()]
                expected = dict(zip(names, session.run(None, inputs), strict=True))
                with blaming(f"{runtime} does not run", "let infer() take arrays by name"):
                    outputs = runner.infer(inputs)
                _compare(outputs, expected, runtime)


def test_outputs_are_written_where_they_are_to_be(trial: BackendTrial) -> None:
    """``out`` has arrays for some of them."""
    for runtime in trial.runtimes:
        with trial.load(runtime) as runner:
            expected = runner.infer(trial.inputs)["scores"].copy()
            place = np.zeros_like(expected)
            with blaming(f"{runtime} writes to no array", "let infer() take out="):
                outputs = runner.infer(trial.inputs, {"scores": place})
            if not np.allclose(place, expected, atol=1e-6) or sorted(outputs) != ["scores", "vector"]:
                wrong(f"{runtime} leaves the array of out= as it was", "write the output to it, and give all outputs")


def test_inputs_that_do_not_fit_are_refused(trial: BackendTrial) -> None:
    """By a DataError that names the input; nothing is converted in silence."""
    image, row = trial.inputs["image"], trial.inputs["row"]
    odd = {
        "one is missing": {"image": image},
        "one is unknown": {"image": image, "row": row, "sound": row},
        "one is float64": {"image": image.astype(np.float64), "row": row},
        "one has another shape": {"image": image[:, :, :5], "row": row},
    }
    for runtime in trial.runtimes:
        with trial.load(runtime) as runner:
            for what, inputs in odd.items():
                try:
                    runner.infer(inputs)
                except DataError:
                    continue
                except Exception as error:
                    wrong(f"{runtime}, where {what}: {type(error).__name__}: {message_of(error)}", "raise DataError")
                wrong(f"{runtime} runs, where {what}", "hold names, shapes and types against the signature")


def test_threads_change_nothing(trial: BackendTrial) -> None:
    """One thread, or all cores."""
    for runtime in trial.runtimes:
        with trial.load(runtime, threads=1) as one, trial.load(runtime) as every:
            _compare(one.infer(trial.inputs), every.infer(trial.inputs), f"{runtime} with one thread")


def test_an_operator_that_it_does_not_know_is_named(trial: BackendTrial) -> None:
    """When it is checked, built, loaded or run: by an error of the family that says which."""
    graph = trial.folder / "unknown.onnx"
    onnx.save(two_of_each.unknown_operator(), graph)
    for runtime in trial.runtimes:
        try:
            if trial.target is not None:
                _, findings = trial.backend.check(graph, trial.target, options=EngineOptions())
                if any("Unheard" in f"{finding.what} {' '.join(finding.nodes)}" for finding in findings):
                    continue
            with trial.backend.load(trial.prepared(graph), runtime=runtime, target=trial.target, threads=0) as runner:
                runner.infer({"x": np.zeros((1, 4), np.float32)})
        except PocketzooError as error:
            if "Unheard" not in f"{error.message} {error.hint}":
                wrong(f"of an unknown operator {runtime} says: {error.message}", "name the operator in the error")
            continue
        except pytest.skip.Exception:
            raise
        except Exception as error:
            wrong(
                f"an unknown operator gives {type(error).__name__}: {message_of(error):.80}",
                "raise BundleError or ExportError",
            )
        wrong(f"{runtime} runs an operator that nobody knows", "refuse it, by name")


def test_without_its_package_it_says_so(trial: BackendTrial) -> None:
    """And takes nothing else down: an error of the family, or a reason, never a traceback."""
    command = [sys.executable, "-c", WITHOUT, json.dumps(sys.path), trial.spec.name, trial.spec.module]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        wrong(f"without {trial.spec.module} it fails: {said}", "import the runtime in open() alone")
    if not any(json.loads(done.stdout.splitlines()[-1])):
        pytest.skip(f"it opens without {trial.spec.module}, which is imported when a model is loaded")


def _check_signature(signature: Any) -> None:
    inputs = [tensor.name for tensor in signature.inputs]
    outputs = [tensor.name for tensor in signature.outputs]
    if sorted(inputs) != ["image", "row"] or sorted(outputs) != ["scores", "vector"]:
        wrong(f"its signature has {inputs} and {outputs}", "give the inputs and outputs by the names of the graph")


def _compare(outputs: Any, expected: Any, what: str) -> None:
    if sorted(outputs) != sorted(expected):
        wrong(f"{what} gives {', '.join(outputs)}", f"give every output by its name: {', '.join(expected)}")
    for name, x in expected.items():
        if outputs[name].shape != x.shape or not np.allclose(outputs[name], x, rtol=TOLERANCE, atol=TOLERANCE):
            away = np.abs(outputs[name] - x).max() if outputs[name].shape == x.shape else outputs[name].shape
            wrong(f"{what} is off by {away} in {name!r}", "compute in float32 where the graph does")
