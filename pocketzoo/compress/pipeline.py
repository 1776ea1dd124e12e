"""Run a recipe: bundle in, steps in order, smaller bundle out, everything measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from pocketzoo.compress.base import Compressor, GraphCompressor, ModuleCompressor
from pocketzoo.compress.recipe import read_recipe
from pocketzoo.errors import DataError, RecipeError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle, Draft, Step, graph_name, read_bundle, travelling, writing
from pocketzoo.zoo.cost import layer_costs
from pocketzoo.zoo.data import Batches, Dataset, Skipped, aligned, load_data
from pocketzoo.zoo.graph import onnx_from_model
from pocketzoo.zoo.measure import candidate, candidates, measure
from pocketzoo.zoo.model import load_module
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.save import save_model
from pocketzoo.zoo.specs import TargetSpec
from pocketzoo.zoo.typed import to_plain


@dataclass(frozen=True)
class Inputs:
    """The samples of a split without their targets: what compressors calibrate on."""

    batches: Batches
    progress: Progress = SILENT
    label: str = ""

    def __iter__(self) -> Iterator[Array]:
        return (x for x, _ in self.progress.track(self.batches, self.label, len(self.batches)))


def compress(
    model: str | Path,
    out: str | Path,
    *,
    data: str | Path | Dataset,
    steps: Sequence[Any] = (),
    recipe: str | Path | None = None,
    targets: Sequence[str] = ("cpu",),
    samples: int = 256,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Compress a bundle or registered model and write the result as a bundle at ``out``.

    ``steps`` are configs (``PruneConfig``, ...) or ``recipe`` a file of them. Up to ``samples`` samples of the training
    split calibrate; the test split measures. The first of ``targets`` decides channel multiples; an int8 step writes a
    graph for each of them. The source is not changed.

    Raises:
        RecipeError: no steps, an int8 step that is not the last, or a model whose graph is int8 already.
        UnknownNameError: an unknown model, data set, target or layer.
        DataError: data that cannot be read or does not fit.
    """
    work = _prepare(model, data, steps, recipe, targets, samples, seed, skip_bad, registry, progress)
    with writing(Path(out)) as draft:
        _run_module_steps(draft, Path(out).name, work)
        for compressor, config in _of_form("graph", work.configs):
            _graph_step(draft, compressor, config, work)
        _measure(draft, work)
    return read_bundle(Path(out))


def dry_run(
    model: str | Path,
    *,
    data: str | Path | Dataset,
    steps: Sequence[Any] = (),
    recipe: str | Path | None = None,
    targets: Sequence[str] = ("cpu",),
    samples: int = 256,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Step]:
    """The steps that ``compress`` would take, with their plans and what they would save; nothing is written."""
    work = _prepare(model, data, steps, recipe, targets, samples, seed, skip_bad, registry, progress)
    module, taken = load_module(work.source, work.registry), []
    for compressor, config in _of_form("module", work.configs):
        module, step = _module_step(module, compressor, config, work)
        taken.append(step)
    for compressor, config in _of_form("graph", work.configs):
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / graph_name()
            onnx_from_model(module, work.source.manifest.input, graph)
            plan = compressor.plan(onnx.load(graph), config, work.samples)
            taken.append(Step(kind=compressor.name, config=to_plain(config), plan=to_plain(plan)))
    return taken


def encode(bundle: Bundle, target: TargetSpec, registry: Registry) -> onnx.ModelProto | None:
    """The graph of a bundle encoded for a target it has none for yet, from its plan; None for a float bundle."""
    graph: onnx.ModelProto | None = None
    for step in bundle.manifest.steps:
        compressor = registry.get("compressor", step.kind)
        if isinstance(compressor, GraphCompressor):
            graph = compressor.apply(
                graph or onnx.load(bundle.file(graph_name())), compressor.read_plan(step.plan), target
            )
    return graph


@dataclass(frozen=True)
class _Work:
    """What a run is made of, looked up and checked before anything long begins."""

    source: Bundle
    dataset: Dataset
    configs: list[tuple[Compressor, Any]]
    targets: list[TargetSpec]
    samples: Inputs
    tests: Batches
    skipped: Skipped  # of the samples, once they were read
    registry: Registry
    progress: Progress

    def describe(self) -> dict[str, Any]:
        return {
            "data": self.dataset.name,
            "seed": self.dataset.seed,
            "sha256": self.dataset.digest(),
            "samples": self.samples.batches.samples - len(self.skipped.names),
            "skipped_pictures": len(self.skipped.names),
        }


def _prepare(
    model: str | Path,
    data: str | Path | Dataset,
    steps: Sequence[Any],
    recipe: str | Path | None,
    targets: Sequence[str],
    samples: int,
    seed: int,
    skip_bad: bool,
    registry: Registry | None,
    progress: Progress,
) -> _Work:
    registry = registry or default_registry()
    if not targets:
        raise RecipeError("there is no target", "name one or more, such as cpu")
    if samples < 1:
        raise DataError(f"{samples} samples cannot calibrate", "give one or more")
    target_specs = [registry.get("target", name) for name in targets]
    configs = [*(read_recipe(Path(recipe), registry) if recipe else ()), *steps]
    pairs = [(_compressor(config, registry), config) for config in configs]
    source = open_model(model, registry=registry, progress=progress)
    _check_order(pairs, source, registry)
    numeric = source.manifest.gives == "values"
    dataset = data if isinstance(data, Dataset) else load_data(data, seed=seed, numeric=numeric, registry=registry)
    dataset = aligned(dataset, source.manifest.labels)
    skipped = Skipped()
    spec, files = source.manifest.input, source.travelled()
    return _Work(
        source=source,
        dataset=dataset,
        configs=pairs,
        targets=target_specs,
        samples=Inputs(
            Batches(dataset.split("train"), spec, limit=samples, skipped=skipped if skip_bad else None, files=files)
        ),
        tests=Batches(dataset.split("test"), spec, skipped=Skipped() if skip_bad else None, files=files),
        skipped=skipped,
        registry=registry,
        progress=progress,
    )


def _compressor(config: Any, registry: Registry) -> Compressor:
    for entry in registry.entries("compressor").values():
        if entry.spec.config is type(config):
            compressor: Compressor = entry.spec
            return compressor
    raise RecipeError(f"no compressor takes a {type(config).__name__}", "use the config class of a registered one")


def _check_order(pairs: Sequence[tuple[Compressor, Any]], source: Bundle, registry: Registry) -> None:
    if not pairs:
        raise RecipeError("there is nothing to do", "give a recipe with -r, or --prune, --low-rank, --int8")
    forms = [compressor.form for compressor, _ in pairs]
    if "graph" in forms and "module" in forms[forms.index("graph") :]:
        raise RecipeError(f"{pairs[forms.index('graph')][0].name} is not the last step", "put prune and low-rank first")
    if len(forms) - len([f for f in forms if f == "module"]) > 1:
        names = " and ".join(compressor.name for compressor, _ in pairs if compressor.form == "graph")
        raise RecipeError(f"two steps work on the graph: {names}", "keep one of them, as the last step")
    done = [s.kind for s in source.manifest.steps if registry.get("compressor", s.kind).form == "graph"]
    if done:
        raise RecipeError(f"{source.manifest.name} is already {done[0]}", "compress the bundle it was made from")


def _of_form(form: str, pairs: Sequence[tuple[Compressor, Any]]) -> Iterator[tuple[Any, Any]]:
    return ((compressor, config) for compressor, config in pairs if compressor.form == form)


def _run_module_steps(draft: Draft, name: str, work: _Work) -> None:
    """Put the float model into the draft: compressed and exported, or copied where no step works on the module."""
    manifest = work.source.manifest
    provenance = {**manifest.provenance, "compressed_from": manifest.name}
    steps = list(_of_form("module", work.configs))
    if not steps:
        for path, file in work.source.travelled().items():
            shutil.copyfile(file, draft.folder / travelling(path))
        for name_ in ("model.safetensors", graph_name()):
            shutil.copyfile(work.source.file(name_), draft.mark(name_, precision="float32"))
        draft.manifest = replace(manifest, name=name, provenance=provenance, metrics={}, measurements=())
        return
    module, taken = load_module(work.source, work.registry), list(manifest.steps)
    for compressor, config in steps:
        module, step = _module_step(module, compressor, config, work)
        taken.append(step)
    work.progress.say("exporting and checking the graph")
    save_model(
        draft,
        module,
        manifest.model,
        name=name,
        labels=manifest.labels,
        returns=manifest.gives,
        license=manifest.license,
        input_spec=manifest.input,
        provenance=provenance,
        steps=tuple(taken),
        opset=max(target.opset for target in work.targets),
        files=work.source.travelled(),
    )


def _module_step(
    module: nn.Module, compressor: ModuleCompressor[Any, Any], config: Any, work: _Work
) -> tuple[nn.Module, Step]:
    work.progress.say(f"{compressor.name}: planning")
    plan = compressor.plan(module, config, work.samples, work.targets[0])
    work.progress.say(f"{compressor.name}: applying")
    smaller = compressor.apply(module, plan, work.samples)
    report = {"parameters_before": _parameters(module), "parameters_after": _parameters(smaller)}
    return smaller, Step(kind=compressor.name, config=to_plain(config), plan=to_plain(plan), report=report)


def _graph_step(draft: Draft, compressor: GraphCompressor[Any, Any], config: Any, work: _Work) -> None:
    if draft.manifest is None:
        raise ValueError("the float graph comes first")
    model = onnx.load(draft.folder / graph_name())
    samples = replace(work.samples, progress=work.progress, label=f"{compressor.name}: calibrating")
    plan = compressor.plan(model, config, samples)
    for target in work.targets:
        quantised = compressor.apply(model, plan, target)
        name = graph_name(target.name, compressor.precision)
        onnx.save(quantised, draft.mark(name, target=target.name, precision=compressor.precision))
    after = draft.folder / graph_name(work.targets[0].name, compressor.precision)
    report = {
        "bytes_before": (draft.folder / graph_name()).stat().st_size,
        "bytes_after": after.stat().st_size,
    }
    step = Step(kind=compressor.name, config=to_plain(config), plan=to_plain(plan), report=report)
    draft.manifest = replace(draft.manifest, steps=(*draft.manifest.steps, step))


def _measure(draft: Draft, work: _Work) -> None:
    """The source's graph and the new ones in one run; the rows and the layers' costs go into the manifest."""
    manifest = draft.manifest
    if manifest is None:
        raise ValueError("nothing to measure")
    graphs = [(name, entry) for name, entry in draft.kinds.items() if name.endswith(".onnx")]
    new = [candidate(manifest, draft.folder / name, entry) for name, entry in graphs]
    rows = measure([*candidates(work.source, [""]), *new], work.tests, seconds=0.2, progress=work.progress)
    scored = {row.target or "float": row.accuracy for row in rows[1:] if row.accuracy is not None}
    draft.manifest = replace(
        manifest,
        provenance={**manifest.provenance, "calibration": work.describe()},
        metrics={f"test_accuracy_{target}": accuracy for target, accuracy in scored.items()},
        measurements=tuple(to_plain(row) for row in rows),
        layers={**manifest.layers, **{c.target: to_plain(layer_costs(c.graph)) for c in new if c.target}},
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
