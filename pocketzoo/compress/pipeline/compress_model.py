"""The ``compress`` function: run the steps of a recipe on a bundle, measure each, write a smaller bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from pocketzoo.compress.pipeline.acceptance import nothing_left
from pocketzoo.compress.pipeline.checkpoints import checkpoints
from pocketzoo.compress.pipeline.job import Job, prepare
from pocketzoo.compress.pipeline.layer_tables import layer_table
from pocketzoo.compress.pipeline.module_step import plan_for_shipping
from pocketzoo.compress.pipeline.planned_graph import PlannedGraph, PlannedGraphs, check_names, load_floats, plan_graph
from pocketzoo.compress.pipeline.settings import DEFAULTS, CompressSettings
from pocketzoo.compress.pipeline.steps import take
from pocketzoo.core.files import scratch_folder, sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.measure.measure_graphs import candidates, measure
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends, size_of
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.bundles.bill_of_materials import packages
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name, updating
from pocketzoo.zoo.bundles.manifest import MANIFEST, MODEL
from pocketzoo.zoo.bundles.measurement import measured_now
from pocketzoo.zoo.bundles.saved_plans import saved_plan
from pocketzoo.zoo.bundles.step_record import Change, StepRecord, StepReport
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.compressor import Compressor, GraphCompressor, ModuleCompressor
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import message_bytes, save_graph
from pocketzoo.zoo.models.model_costs import macs_of
from pocketzoo.zoo.models.resolver import Resolver

if TYPE_CHECKING:
    from torch import nn

    from pocketzoo.compress.pipeline.forecast import Cost

SECONDS = 0.2  # that each row is timed for


@survives_exit
def compress(
    model: str | Path,
    out: str | Path,
    *,
    data: str | Path | Dataset,
    steps: Sequence[Any] = (),
    recipe: str | Path | None = None,
    targets: Sequence[str] = ("cpu",),
    samples: int = 256,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    keep_slower: bool = False,
    accept: bool = False,
    outputs: Sequence[str] = (),
    seed: int = 0,
    skip_bad: bool = False,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Compress a bundle or registered model and write the result as a bundle at ``out``. The source is not changed.

    Args:
        model: A bundle, a registered name or a reference to the Hub.
        out: Where the new bundle is written. Finished steps are kept next to it while the run lasts: after a kill the
            same call resumes from there.
        data: What ``load_data`` reads, or a data set. Samples of its training split calibrate, the validation split
            decides, the test split measures. "none": there is none, and samples are made of what the model tells.
        steps: In order, each a ``Step("int8", Int8Config())``, or a bare config where exactly one registered compressor
            declares its type. They come after those of ``recipe``.
        recipe: A recipe's file, of steps or of a whole job: of that, ``[compress]`` is read. What it says of
            ``targets``, ``samples``, ``max_drop``, ``min_sqnr``, ``keep_slower``, ``accept`` and ``outputs`` holds
            where these have their default.
        targets: Names. The first decides channel multiples and is what latency is measured for; an int8 step writes a
            graph for each of them.
        samples: Maximum number of calibration samples, of the training split; 1 or more.
        max_drop: What all steps together may cost of the task's metric, at least 0 and below 1: points of a fraction,
            such as accuracy or R2; of a metric with a unit a fraction of its value. Where targets are not known, of
            answers that stay the same. What a step removes is reduced until it fits. None: no budget.
        min_sqnr: In dB, for an int8 step: it leaves layers in float until each output of its graph is as close to the
            float one's. None: the config's own.
        keep_slower: Keep a step that makes the graph larger, or slower on the target. Otherwise it is rejected, and the
            manifest says so (``rejected``).
        accept: Keep a step that changes nothing, or after which more than a fifth of the metric above chance is gone,
            or, where targets are not known, an output keeps less than 10 dB. Otherwise it is rejected as well.
        outputs: Names of the outputs that ``min_sqnr`` and the 10 dB hold for; all where none is named. All are
            measured.
        seed: Random seed of the splits of ``data``.
        skip_bad: Leave out samples that cannot be read, and say so, instead of failing.
        force: Replace a finished bundle at ``out``.
        registry: Where names are looked up, or a resolver; None: everything installed.
        progress: Receives progress messages; silent by default.

    Raises:
        BundleError: ``out`` is a finished bundle, or something else; ``model`` is none, or damaged.
        RecipeError: no steps, an int8 step that is not the last, or a model whose graph is int8 already.
        UnknownNameError: an unknown model, data set, target, layer or output.
        DataError: data that cannot be read or does not fit.
        RejectedError: every step is; nothing is written.
        BusyError: another process is writing ``out``.
    """
    settings = CompressSettings(
        steps=tuple(steps),
        recipe=recipe,
        targets=tuple(targets),
        samples=samples,
        max_drop=max_drop,
        min_sqnr=min_sqnr,
        keep_slower=keep_slower,
        accept=accept,
        outputs=tuple(outputs),
        seed=seed,
        skip_bad=skip_bad,
        force=force,
    )
    return compress_with(model, out, settings, data=data, registry=registry, progress=progress)


def compress_with(
    model: str | Path,
    out: str | Path,
    settings: CompressSettings,
    *,
    data: str | Path | Dataset,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """``compress``, for those who have its settings as one value."""
    check_place(Path(out), force=settings.force)
    job = prepare(model, settings, data=data, registry=registry, progress=progress)
    job.check_tests()
    if job.settings.max_drop is not None:
        job.judge.value(job.judge.reference)  # or there is nothing that may drop
    with closing(job), checkpoints(Path(out), job.key, progress, force=settings.force) as desk:
        # What another run rejected is said in the source.
        bundle = desk.bundle or replace(job.source, manifest=replace(job.source.manifest, rejected=()))
        while desk.finished < len(job.configs):
            bundle = take(bundle, desk.finished, job, desk)
        if len(bundle.manifest.steps) == len(job.source.manifest.steps):
            raise nothing_left(bundle.manifest)
        finished = desk.folder / "finished"
        with updating(bundle, finished) as draft:
            _measure(draft, Path(out).name, job)
        return desk.deliver(finished)


def dry_run(
    model: str | Path,
    settings: CompressSettings = DEFAULTS,
    *,
    data: str | Path | Dataset,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[StepRecord]:
    """The steps that ``compress`` would take as they are asked for, planned and applied; nothing is written or timed.

    Each step's report predicts parameters, MACs and bytes of the graph before and after. What budgets and measured
    latency would change is not known yet.
    """
    with closing(prepare(model, settings, data=data, registry=registry, progress=progress)) as job:
        return _forecast(job)


def _forecast(job: Job) -> list[StepRecord]:
    # Here, because compressing a graph needs no torch.
    from pocketzoo.compress.pipeline.forecast import Cost, module_cost
    from pocketzoo.zoo.models.export_graph import onnx_from_model

    manifest, taken = job.source.manifest, list[StepRecord]()
    plans: dict[str, Any]
    module: nn.Module | None = None  # loaded for steps on it: a graph from elsewhere has none
    spec = job.processor
    artifact = artifact_of(job.source)
    cost = Cost(parameters=manifest.parameters, macs=macs_of(job.source), bytes=size_of(artifact))
    for compressor, config in job.configs:
        before, plans = cost, {}
        in_float: dict[str, Mapping[str, str]] = {}
        if isinstance(compressor, ModuleCompressor):
            if module is None:
                module = job.load_module(job.source)
                before = module_cost(module, spec)
            job.progress.say(f"{compressor.name}: planning")
            plan = plan_for_shipping(compressor, module, config, job)
            module = compressor.apply(module, plan, job.samples)
            cost = module_cost(module, spec)
        else:
            graphs = dict[str, PlannedGraph]()
            with scratch_folder() as folder:
                if module is not None:
                    onnx_from_model(module, spec, folder / graph_name())
                    artifact = Artifact(graphs={MODEL: folder / graph_name()})
                end = ends(artifact)[0]
                if len(artifact.graphs) > 1:
                    check_names(compressor, config, artifact.graphs.values())
                for name in end.graphs:
                    calls = end.calls(name, job.graph_samples, partial(OnnxRunner, threads=1))
                    path = artifact.graphs[name]
                    graph = plan_graph(path, compressor, config, calls, one_of=len(end.graphs))
                    plans[name], graphs[name] = graph.plan, graph
            planned, sizes = PlannedGraphs(graphs), list[int]()
            for target in job.targets:
                models = {n: compressor.apply(each.model, each.plan, target) for n, each in graphs.items()}
                in_float[target.name] = planned.in_float(compressor, models, target)
                sizes.append(sum(map(message_bytes, models.values())))
            plan, cost = plans.pop(MODEL, {}), replace(before, bytes=sizes[0])
        taken.append(
            StepRecord(
                compressor=compressor.name,
                provider=job.providers.get(compressor.name, ""),
                config=to_plain(config),
                plan=to_plain(plan),
                plan_version=compressor.plan_version,
                graphs={name: to_plain(each) for name, each in plans.items()},
                decisions=tuple(row for each in (plan, *plans.values()) if each for row in compressor.decisions(each)),
                report=replace(_changes(before, cost), in_float=in_float),
            )
        )
    return taken


def _changes(before: Cost, after: Cost) -> StepReport:
    return StepReport(
        parameters=Change(before=before.parameters, after=after.parameters),
        macs=Change(before=before.macs, after=after.macs),
        bytes=Change(before=before.bytes, after=after.bytes),
    )


def encode(
    bundle: Bundle, target: TargetSpec, compressors: Mapping[str, Compressor], name: str = MODEL
) -> onnx.ModelProto | None:
    """A graph of a bundle encoded for a target it has none for yet, from its plan; None where it has no plan.

    ``compressors`` are those of its steps, by kind (``Resolver.compressors``).
    """
    graph: onnx.ModelProto | None = None
    for compressor, plan in graph_plans(bundle, compressors, name):
        graph = compressor.apply(graph or load_floats(bundle.graph("", name)), plan, target)
    return graph


def graph_plans(
    bundle: Bundle, compressors: Mapping[str, Compressor], name: str = MODEL
) -> Iterator[tuple[GraphCompressor[Any, Any], Any]]:
    """The steps on one of the graphs that a bundle went through, in order: what took them, and the plan it saved."""
    of_graph = "" if name == MODEL else name
    for step in bundle.manifest.steps:
        compressor = compressors[step.compressor]
        planned = of_graph in step.graphs or (not of_graph and bool(step.plan))
        if isinstance(compressor, GraphCompressor) and planned:
            yield compressor, saved_plan(bundle, step, compressor, of_graph)


def encode_graphs(
    bundle: Bundle, target: TargetSpec, compressors: Callable[[], Mapping[str, Compressor]], folder: Path
) -> dict[str, Path]:
    """Every graph of a bundle for a target: stored, or else encoded from its plans into ``folder``, or float.

    ``compressors`` gives those of the bundle's steps, where they are needed.
    """
    graphs = bundle.graphs(target.name)
    if not any(entry.target for name, entry in bundle.manifest.files.items() if name.endswith(".onnx")):
        return graphs  # nothing but float graphs: no step made them target-specific
    first = ends(artifact_of(bundle))[0].graphs
    for name in bundle.graphs(""):
        if target.name in bundle.encodings(name):
            continue
        reports = [step.report.generation.get(target.name) for step in bundle.manifest.steps]
        if name not in first and any(report is not None and report.why for report in reports):
            continue  # it was tried for this target, and did not pay
        if (encoded := encode(bundle, target, compressors(), name)) is not None:
            graphs[name] = folder / f"{name}.encoded.onnx"
            save_graph(encoded, graphs[name])
    return graphs


def _measure(draft: Draft, name: str, job: Job) -> None:
    """The source's graph and the new ones in one run; the rows and the layers' costs go into the manifest."""
    assert draft.manifest is not None
    source = job.source.manifest
    answers = job.answers
    manifest = replace(
        draft.manifest,
        name=name,
        data_columns=source.data_columns,
        task=answers.task,
        tag=answers.tag,
        task_provider=answers.provider,
        decoder=answers.decoder,
        returns=answers.returns or draft.manifest.returns,
    )
    order = ["", *(target.name for target in job.targets)]
    made = Bundle(draft.folder, replace(manifest, files=draft.kinds))
    new = [row for target in order for row in candidates(made, [target])]
    rows = measure(
        [*candidates(job.source, [""]), *new],
        job.tests,
        task=job.task,
        outputs=job.settings.outputs,
        seconds=SECONDS,
        progress=job.progress,
    )
    scored = {
        f"test_{row.metric.key}_{row.target or 'float'}": row.metric for row in rows[1:] if row.metric is not None
    }
    gpu = find_gpu()
    draft.manifest = replace(
        manifest,
        provenance={
            **manifest.provenance,
            "compressed_from": {"name": source.name, "manifest": sha256(job.source.path / MANIFEST)},
            "calibration": job.describe(),
            "packages": packages(),
        },
        metrics={
            **{key: metric.value for key, metric in scored.items()},
            **({"intervals": {key: [m.low, m.high] for key, m in scored.items()}} if scored else {}),
        },
        measurements=tuple(
            measured_now(
                rows,
                {row.runtime: packages().get(row.runtime, "") for row in rows},
                data=job.dataset.name,
                sha256=job.digest,
                gpu="" if gpu is None else gpu.name,
            )
        ),
        layers={
            c.target or "float": tuple(layer_table(manifest.steps, job, c.files, new[0].files, c.target)) for c in new
        },
    )
