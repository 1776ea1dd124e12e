"""The device runtime: a loaded bundle that predicts from images, texts or arrays. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.device.fastest_runtime import Choice, choose, key_of, remember, remembered
from pocketzoo.zoo.backends.onnxruntime.providers import PROVIDERS, installed_providers
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.registry import Registry
    from pocketzoo.zoo.catalog.task import Answers
    from pocketzoo.zoo.models.resolver import Resolver
    from pocketzoo.zoo.tasks.open_task import ModelTask

ENGINE = "engine"  # as a provider: the bundle's engine, on the GPU
OWN_PROVIDER = ("cpu", "cuda", "openvino")  # targets that one provider of onnxruntime stands for


class Runtime:
    """A model that is ready to predict. A context manager; ``close`` frees its memory.

    Any number of threads may call ``predict`` at a time: give ``load_runtime`` the number of cores for each call.
    """

    def __init__(
        self,
        bundle: Bundle,
        file: Path,
        runner: Runner,
        choice: Choice,
        registry: Registry | Resolver | None = None,
    ) -> None:
        """Take over ``runner``, which runs ``file`` of the bundle. ``load_runtime`` makes one of these."""
        self.bundle, self.file, self.choice = bundle, file, choice
        self._runner, self.registry = runner, registry
        self._turn = Condition()
        self._running, self._closed = 0, False
        self.processor = processor_of(bundle, _registry(registry))

    def predict(self, batch: Any, *, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Predict a batch: the outputs of the model's head, one row per sample, (B, outputs).

        A batch is one sample or a sequence of them, as the model's processor reads them: image files, their bytes,
        Pillow images or uint8 pixels (height, width[, 3]); texts, or ``Path`` to text files; rows of numbers. All take
        the preprocessed array as well, such as float32 (B, C, H, W) or int64 (B, T), or a mapping of arrays by the
        names of the inputs, and pass it on without a copy. With ``out``, an array of the outputs' shape and type, the
        outputs are written there.

        Raises:
            DataError: wrong shape, type or range, with what is expected; or a file that cannot be read.
            MemoryShortError: the batch is too large for the device.
            ValueError: the runtime is closed.
        """
        name = self._runner.signature.outputs[0].name
        return self._infer(self.processor.batch(batch), None if out is None else {name: out})[name]

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


def load_runtime(
    model: str | Path | Bundle,
    *,
    target: str | None = None,
    threads: int = 0,
    providers: str | Sequence[str] | None = None,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Runtime:
    """Open a bundle, verify its files, and return a runtime that is ready to predict.

    ``target`` selects the graph; by default the one for the CPU, or the float graph. ``providers`` are those of
    onnxruntime ("cpu", "cuda", "tensorrt", "openvino"), one or several in order of preference, or "engine", that of the
    bundle. By default each available one is timed on one sample, its outputs are checked, and the fastest is used and
    remembered. ``threads`` = 0 uses all cores.

    Raises:
        BundleError: it is not a bundle, is damaged, or does not run here.
        UnknownNameError: no such model or target.
        MissingDependencyError: onnxruntime or a provider is not installed; the hint says what would run here.
    """
    bundle = model if isinstance(model, Bundle) else _open(model, registry, progress)
    graphs = bundle.encodings()
    if target is not None and target not in graphs:
        _check_target(target, registry)
    only = next(iter(graphs)) if len(graphs) == 1 else "cpu"  # a bundle that was packed for one target has no other
    graph = bundle.graph(only if target is None else target)
    if providers is None and target in OWN_PROVIDER:
        providers = target
    if providers is not None:
        names = (providers,) if isinstance(providers, str) else tuple(providers)
        if not names:
            raise DataError("no provider is given", f"name one of {', '.join(PROVIDERS)}, or leave providers out")
        if names == (ENGINE,):
            return _engine(bundle, target, registry)
        runner = OnnxRunner(graph, threads=threads, providers=names)
        return Runtime(bundle, graph, runner, Choice(way=names[0]), registry)
    ways: dict[str, Callable[[], Runner]] = {
        provider: partial(OnnxRunner, graph, threads=threads, providers=(provider,))
        for provider in installed_providers()
    }
    if engines := _engines(bundle, target):
        ways |= {f"engine for {name}": partial(_start, path, name, registry) for name, path in engines.items()}
        if find_gpu() is None:
            progress.say(f"this machine has no NVIDIA GPU or driver: {graph.name} runs instead of an engine")
            ways = {way: start for way, start in ways.items() if not way.startswith(ENGINE)}
    choice = _fastest(bundle, graph, ways, threads, progress, registry)
    file = engines.get(choice.way.removeprefix("engine for "), graph)
    return Runtime(bundle, file, ways[choice.way](), choice, registry)


def _engines(bundle: Bundle, target: str | None) -> dict[str, Path]:
    """The engines of a bundle by target: all of them, or that for one; those alone that were built here."""
    engines = {e.target: name for name, e in bundle.manifest.files.items() if name.endswith(".engine")}
    if not engines:
        return {}
    from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache

    cache, files = EngineCache(), bundle.manifest.files
    return {
        each: bundle.path / name
        for each, name in engines.items()
        if target in (None, each) and cache.built(files[name].sha256)
    }


def _engine(bundle: Bundle, target: str | None, registry: Registry | Resolver | None) -> Runtime:
    """The bundle's engine and nothing else."""
    engines = _engines(bundle, target)
    if not engines:
        exporter = target or "tensorrt"
        raise BundleError(
            f"{bundle.path} has no engine{f' for {target}' if target else ''} that was built on this machine",
            f"build one: pocketzoo export {bundle.path} --to {exporter}",
        )
    name, path = next(iter(engines.items()))
    return Runtime(bundle, path, _start(path, name, registry), Choice(way=f"engine for {name}"), registry)


def _start(path: Path, target: str, registry: Registry | Resolver | None) -> Runner:
    from pocketzoo.zoo.backends.tensorrt.engine_runner import EngineRunner
    from pocketzoo.zoo.models.resolver import Resolver

    return EngineRunner(path, Resolver.of(registry).registry.get("target", target).engine)


def _fastest(
    bundle: Bundle,
    graph: Path,
    ways: dict[str, Callable[[], Runner]],
    threads: int,
    progress: Progress,
    registry: Registry | Resolver | None,
) -> Choice:
    if len(ways) == 1:
        return Choice(way=next(iter(ways)))
    digests = [entry.sha256 for name, entry in bundle.manifest.files.items() if name.endswith((".onnx", ".engine"))]
    key = key_of(" ".join([graph.name, *sorted(digests)]), ways, threads)
    if (choice := remembered(key, ways)) is None:
        choice = choose(ways, random_samples(processor_of(bundle, _registry(registry)), 1), progress=progress)
        remember(key, choice)
    progress.say(f"running on {choice}")
    return choice


def _open(model: str | Path, registry: Registry | Resolver | None, progress: Progress) -> Bundle:
    """A bundle by its path without asking any plugin, which would take longer than all the rest."""
    if (Path(model) / MANIFEST).is_file():
        return read_bundle(model)
    from pocketzoo.zoo.models.open_model import open_model

    return open_model(model, registry=registry, progress=progress)


def _registry(registry: Registry | Resolver | None) -> Registry | None:
    """That of a resolver, which is not imported here for it."""
    known: Registry | None = getattr(registry, "registry", registry)  # type: ignore[arg-type]
    return known


def _check_target(target: str, registry: Registry | Resolver | None) -> None:
    from pocketzoo.zoo.models.resolver import Resolver

    Resolver.of(registry).registry.get("target", target)
