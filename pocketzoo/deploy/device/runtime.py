"""The device runtime: a loaded bundle that predicts from images, texts or arrays. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays, batch_size, row_of
from pocketzoo.core.errors import DataError, MissingDependencyError, PocketzooError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.deploy.device.fastest_runtime import Choice, choose, key_of, remember, remembered
from pocketzoo.deploy.device.providers import (
    WayToRun,
    check_providers,
    graph_of,
    own_provider,
    way_of_built,
    way_of_graph,
    ways_of,
)
from pocketzoo.zoo.backends.built_files import built_files
from pocketzoo.zoo.backends.open_backend import Way, backends, why_not
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.task import Answers
    from pocketzoo.zoo.models.resolver import Resolver
    from pocketzoo.zoo.tasks.open_task import ModelTask

FEW = 8  # values of an output that are shown
CPU = "cpu"  # the target whose graph is run where no other is asked for


class Runtime:
    """A model that is ready to predict. A context manager; ``close`` frees its memory.

    Any number of threads may call ``predict`` at a time: give ``load_runtime`` the number of cores for each call.
    """

    def __init__(
        self, bundle: Bundle, file: Path, runner: Runner, choice: Choice, registry: Registry | None = None
    ) -> None:
        """Take over ``runner``, which runs ``file`` of the bundle. ``load_runtime`` makes one of these."""
        self.bundle, self.file, self.choice = bundle, file, choice
        self._runner, self.registry = runner, registry
        self._turn = Condition()
        self._running, self._closed = 0, False
        self.processor = processor_of(bundle, registry)

    @survives_exit
    def predict(self, batch: Any, *, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Predict a batch: one output of the model as its graph has it, one row per sample, such as (B, classes).

        Of a model of several outputs it is ``output``; ``infer`` gives all of them, and ``answers`` what they mean, as
        the bundle's decoder reads them.

        A batch is one sample or a sequence of them, as the model's processor reads them: image files, their bytes,
        Pillow images or uint8 pixels (height, width[, 3]); texts, or ``Path`` to text files; rows of numbers. All take
        the preprocessed array as well, such as float32 (B, C, H, W) or int64 (B, T), or a mapping of arrays by the
        names of the inputs, and pass it on without a copy. With ``out``, an array of the output's shape and type, the
        output is written there.

        Raises:
            DataError: wrong shape, type or range, with what is expected; or a file that cannot be read.
            MemoryShortError: the batch is too large for the device.
            MissingPluginError: of several outputs a decoder would say which, and no plugin here declares it.
            ValueError: the runtime is closed.
        """
        return self.infer(batch, out=None if out is None else {self.output: out})[self.output]

    @survives_exit
    def infer(self, batch: Any, *, out: Arrays | None = None) -> Arrays:
        """All outputs of the model for a batch, by their names in the graph (``signature``), each as the graph has it.

        One that has another shape for each sample, such as the boxes of a detector, is an array (N,) of objects.

        A batch is what ``predict`` takes. Outputs that ``out`` has an array for, of their shape and type, are written
        there.

        Raises:
            DataError: as ``predict``.
            MemoryShortError: the batch is too large for the device.
            ValueError: the runtime is closed.
        """
        return self._infer(self.processor.batch(batch), out)

    @property
    def signature(self) -> ModelSignature:
        """What the model reads and outputs, by name."""
        return self._runner.signature

    @cached_property
    def output(self) -> str:
        """The output that ``predict`` gives: the first that the bundle's decoder reads; without one the first.

        Raises:
            MissingPluginError: no plugin here declares the decoder of a model of several outputs.
        """
        names = [tensor.name for tensor in self.signature.outputs]
        if len(names) == 1 or not self.bundle.manifest.task:
            return names[0]
        return next((name for name in self.task.reads if name in names), names[0])

    def _infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        with self._turn:
            if self._closed:
                raise ValueError("the runtime is closed")
            self._running += 1
        try:
            return self._runner.infer(inputs, out)
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify_all()

    @cached_property
    def task(self) -> ModelTask:
        """The model's task and the decoder of its outputs, opened when they are first asked for.

        Raises:
            DataError: nobody said what its outputs mean.
            MissingPluginError: no plugin here declares them; the hint says what to install.
        """
        from pocketzoo.zoo.models.resolver import Resolver
        from pocketzoo.zoo.tasks.open_task import need_task

        return need_task(self.bundle.manifest, Resolver.of(self.registry).registry)

    @survives_exit
    def answers(self, batch: Any) -> Answers:
        """The answers to a batch in the canonical form of the model's task: ``Classes``, ``Values``, ...

        Raises:
            DataError: as ``predict``; or nobody said what the outputs mean.
        """
        task, inputs = self.task, self.processor.batch(batch)
        return task.answers(self._infer(inputs), inputs)

    def answer_rows(self, batch: Any, *, top: int = 5) -> list[Mapping[str, Any]]:
        """The answers as plain data, one mapping per sample: ``{"top": [...]}``, ``{"values": [...]}``, by the task.

        Raises:
            DataError: as ``answers``.
        """
        return self.task.rows(self.answers(batch), top)

    def output_rows(self, batch: Any) -> list[Mapping[str, Any]]:
        """The outputs as plain data, one mapping per sample, for a model of which nobody said what they mean.

        Of each output by its name: type, shape, least, mean and greatest value, and the first few.

        Raises:
            DataError: as ``infer``.
        """
        inputs = self.processor.batch(batch)
        outputs = self._infer(inputs)
        axes = {tensor.name: tensor.batch for tensor in self.processor.inputs}
        return [
            {
                tensor.name: _described(row_of(outputs[tensor.name], row, tensor.batch))
                for tensor in self.signature.outputs
            }
            for row in range(batch_size(inputs, axes) or 1)
        ]

    def classify(self, batch: Any, *, top: int = 5) -> list[tuple[tuple[str, float], ...]]:
        """The most likely classes of each sample with their probabilities, best first.

        Raises:
            DataError: as ``predict``; and the model has no classes.
        """
        rows = self.answer_rows(batch, top=top)
        if any("top" not in row for row in rows):
            raise DataError(
                f"{self.bundle.manifest.name} is for {self.task.spec.name} and has no classes",
                "fit a head with classes: pocketzoo fit ...",
            )
        return [tuple((each["label"], each.get("probability", 1.0)) for each in row["top"]) for row in rows]

    def close(self) -> None:
        """Give the memory back, once what other threads still predict has ended. Twice is once."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._turn.wait_for(lambda: self._running == 0)
        self._runner.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _described(x: npt.NDArray[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"dtype": x.dtype.name, "shape": list(x.shape)}
    if x.size and x.dtype.kind in "biuf":
        wide = x.astype(np.float64)
        facts |= {"least": float(wide.min()), "mean": float(wide.mean()), "greatest": float(wide.max())}
    return {**facts, "first": x.ravel()[:FEW].tolist()}


@survives_exit
@keywords_renamed(providers="provider")
def load_runtime(
    model: str | Path | Bundle,
    *,
    target: str | None = None,
    threads: int = 0,
    provider: str | Sequence[str] | None = None,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Runtime:
    """Open a bundle, verify its files, and return a runtime that is ready to predict.

    ``target`` selects the graph; by default the one for the CPU, or the float graph. ``provider`` is a runtime of a
    back end by its name or a shorter one ("cpu", "cuda", "onnxruntime-openvino"), or "engine", what a back end built of
    the bundle; several are tried in this order. By default each that works here is timed on one sample, its outputs are
    checked, and the fastest is used and remembered. ``threads`` = 0 uses all cores.

    Raises:
        BundleError: it is not a bundle, is damaged, or does not run here.
        UnknownNameError: no such model or target.
        DataError: no runtime is called so.
        MissingDependencyError: onnxruntime or the provider is not installed; the hint says what would run here.
        PluginError: the back end of the provider fails.
    """
    bundle = model if isinstance(model, Bundle) else _open(model, registry, progress)
    specs = _registry(registry)
    graphs = bundle.targets()
    if target is not None and target not in graphs:
        specs.get("target", target)
    if provider is None and target is not None:
        provider = own_provider(target, specs)
    names = (provider,) if isinstance(provider, str) else provider
    only = graphs[0] if len(graphs) == 1 else CPU  # a bundle that was packed for one target has no other
    graph = graph_of(bundle, only if target is None else target)
    if names is None:
        return _fastest(bundle, graph, target, threads, specs, progress)
    failures: list[PocketzooError] = []
    for ways in [ways_of(bundle, graph, target, name, threads, specs) for name in check_providers(names, specs)]:
        for way in ways:
            try:
                return Runtime(bundle, way.file, way.start(), Choice(way=way.label), specs)
            except PocketzooError as error:
                failures.append(error)
    raise failures[0]


def _fastest(
    bundle: Bundle, graph: Path, target: str | None, threads: int, registry: Registry, progress: Progress
) -> Runtime:
    """Every way that works here, timed in turn; the first of them is what the others are held against."""
    candidates = [
        (way, why_not(way))
        for way in backends(registry).ways.values()
        if way.backend.form == "graph" and way.backend.loads_graphs and way.runtime.automatic
    ]
    working = (way for way, (why, _) in candidates if not why)
    ways = {way.label: way for way in (way_of_graph(each, bundle, graph, threads) for each in working)}
    idle: set[str] = set()
    for built in built_files(bundle, registry):
        if target not in (None, built.entry.target):
            continue
        if why := why_not(Way(built.backend, built.backend.ways[0]))[0]:
            idle.add(why)
            continue
        way = way_of_built(built, threads, registry, bundle=bundle)
        ways[way.label] = way
    for why in sorted(idle):
        progress.say(f"{why}: {graph.name} runs instead of an engine")
    if not ways:
        reasons = dict.fromkeys(why for _, (why, _) in candidates)
        raise MissingDependencyError(
            f"no runtime works here: {'; '.join(reasons)}", "pip install 'pocketzoo[edge]'; or see pocketzoo doctor"
        )
    choice = _choice(bundle, graph, ways, threads, registry, progress)
    return Runtime(bundle, ways[choice.way].file, ways[choice.way].start(), choice, registry)


def _choice(
    bundle: Bundle, graph: Path, ways: dict[str, WayToRun], threads: int, registry: Registry, progress: Progress
) -> Choice:
    if len(ways) == 1:
        return Choice(way=next(iter(ways)))
    digests = [entry.sha256 for name, entry in bundle.manifest.files.items() if name.endswith(".onnx")]
    facts = [f"{label} {way.digest}" for label, way in ways.items()]
    key = key_of(" ".join([graph.name, *sorted(digests)]), facts, threads)
    if (choice := remembered(key, ways)) is None:
        starts = {label: way.start for label, way in ways.items()}
        choice = choose(starts, random_samples(processor_of(bundle, registry), 1), progress=progress)
        remember(key, choice)
    progress.say(f"running on {choice}")
    return choice


def _registry(given: Registry | Resolver | None) -> Registry:
    """The registry alone: a bundle on a device needs no resolver, which imports all that talks to the Hub."""
    if given is None or isinstance(given, Registry):
        return given or default_registry()
    return given.registry


def _open(model: str | Path, registry: Registry | Resolver | None, progress: Progress) -> Bundle:
    """A bundle by its path without asking for models, which would take longer than all the rest."""
    if (Path(model) / MANIFEST).is_file():
        return read_bundle(model)
    from pocketzoo.zoo.models.open_model import open_model

    return open_model(model, registry=registry, progress=progress)
