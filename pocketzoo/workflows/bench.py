"""The ``bench`` function: measure bundles side by side in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import DataError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.measure.measure_graphs import BATCHES, Candidate, candidates, measure
from pocketzoo.zoo.backends.open_backend import Way, version_of
from pocketzoo.zoo.backends.runtimes import CPU, check_runtime
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.backends.timing import LEAST
from pocketzoo.zoo.bundles.bundle import Bundle, updating
from pocketzoo.zoo.bundles.bundle_lock import check_unsigned, check_writable
from pocketzoo.zoo.bundles.measured_on import RANDOM
from pocketzoo.zoo.bundles.measurement import Measurement, digest_of, measured_now, with_run
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples, sample_of
from pocketzoo.zoo.data.target_kinds import without_targets
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.model_facts import model_facts
from pocketzoo.zoo.tasks.open_task import open_task, reading_of

SAMPLES = 64  # random ones, where there are no data
ROUNDS = 12  # at the least: fewer than 8 allow no interval


@survives_exit
def bench(
    models: Sequence[str | Path],
    *,
    data: str | Path | Dataset | None = None,
    runtimes: Sequence[str] = (CPU,),
    batch_sizes: Sequence[int] = BATCHES,
    lengths: Sequence[int] = (),
    seconds: float = 0.5,
    threads: int = 1,
    outputs: Sequence[str] = (),
    memory: bool = True,
    save: bool = False,
    seed: int = 0,
    skip_bad: bool = False,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Measurement]:
    """Measure every graph of the bundles; the first bundle's float graph is the baseline of agreement and SQNR.

    Each of ``runtimes`` measures all of them: graphs as they are, modules, or what its back end builds. Ratios are
    against the first row, taken round by round (``zoo.backends.timing``). Timing continues until the intervals are
    narrow, for at most ``PATIENCE`` times ``seconds`` per model. ``lengths`` are sequence lengths to time texts at.
    ``memory`` measures the peak of a separate process for each row. Of ``outputs``, by name, the worst is a row's SQNR;
    all where none is named.

    Without ``data`` the samples are random, so there is no metric, and agreement says little: the rows
    are marked so, and replace none that were measured on data. With ``save`` the rows
    are stored in the manifest of every bundle that is not a registered model; ``force`` stores them in one that is
    signed too, which drops its signature.

    Raises:
        SignatureError: a bundle is signed, and ``save`` without ``force`` would change it.
        UnknownNameError: no such model, data set or output, or a runtime that does not work here.
        DataError: bundles of different input shapes or classes, or data that does not fit them.
        ExportError: a back end refuses a graph that it is to build.
        PluginError: one fails in a way that it does not explain.
    """
    if not models:
        raise DataError("no bundles are given", "name one or more bundles")
    resolver = Resolver.of(registry)
    ways = [check_runtime(runtime, resolver.registry) for runtime in runtimes]
    bundles = [open_model(m, registry=resolver, progress=progress) for m in models]
    kept = [bundle for bundle, model in zip(bundles, models, strict=True) if save and Path(model).exists()]
    for bundle in kept:
        check_unsigned(bundle.path, force=force)
        check_writable(bundle.path)
    first = bundles[0].manifest
    task = open_task(first, resolver.registry)
    processor = processor_of(bundles[0], resolver.registry)
    for bundle in bundles[1:]:
        other = bundle.manifest
        known = open_task(other, resolver.registry)
        shapes = (processor_of(bundle, resolver.registry).inputs, other.model.outputs, known and known.spec.name)
        if shapes != (processor.inputs, first.model.outputs, task and task.spec.name):
            raise DataError(
                f"{other.name} and {first.name} do not have the same input and output shapes",
                "measure them in separate runs",
            )
    dataset: Dataset | None = None
    if data is None:
        arrays = random_samples(processor, SAMPLES)
        batches = Batches(Split([sample_of(arrays, i, processor.inputs) for i in range(SAMPLES)]), processor)
    else:
        skipped = Skipped() if skip_bad else None
        dataset = load_data(
            data,
            seed=seed,
            **reading_of(task),
            skipped=skipped,
            reads=first.processor,
            fitted=first.data_columns,
            registry=resolver.registry,
            progress=progress,
        )
        facts = model_facts(bundles[0], processor, resolver.registry)
        dataset = without_targets(dataset) if task is None else task.prepared(dataset, facts)
        batches = Batches(dataset.split("test"), processor, skipped=skipped)
    with scratch_folder() as folder:
        contenders: list[Candidate] = []
        for i, way in enumerate(ways):
            if way.backend.builds:
                from pocketzoo.workflows.bench_engines import engine_candidates

                largest, place = max(batches.size, *batch_sizes), folder / str(i)
                place.mkdir()
                contenders += engine_candidates(
                    bundles, way.runtime.name, largest, place, registry=resolver, progress=progress
                )
            else:
                contenders += _distinct(bundles, way)
        rows = measure(
            contenders,
            batches,
            task=task,
            outputs=outputs,
            batch_sizes=batch_sizes,
            lengths=lengths,
            seconds=seconds,
            threads=threads,
            least=ROUNDS if seconds else LEAST,
            precise=seconds > 0,
            memory=memory,
            registry=resolver.registry,
            progress=progress,
        )
    gpu = find_gpu()
    rows = measured_now(
        rows,
        {way.runtime.name: version_of(way.backend) for way in ways},
        data=RANDOM if dataset is None else dataset.name,
        sha256=dataset.digest() if dataset is not None and save else "",
        gpu="" if gpu is None else gpu.name,
    )
    for bundle in kept:
        with updating(bundle, force=force, progress=progress) as draft:
            assert draft.manifest is not None
            stored = draft.manifest.measurements
            draft.manifest = replace(draft.manifest, measurements=with_run(stored, rows))
    return rows


def _distinct(bundles: Sequence[Bundle], way: Way) -> list[Candidate]:
    """Every graph of the bundles once: a step that only quantizes leaves the float graph as it was. Or every module."""
    by_digest: dict[str, Candidate] = {}
    runtime, modules = way.runtime.name, way.backend.form == "module"
    for bundle in bundles:
        for candidate in candidates(bundle, [""] if modules else None):
            file = bundle.path / "model.safetensors" if modules else candidate.graph
            if file.name not in bundle.manifest.files:
                raise DataError(
                    f"{bundle.manifest.name} was imported as an ONNX graph, which {runtime} cannot run",
                    f"--runtime {CPU}",
                )
            artifact = None if modules else candidate.artifact
            measured = replace(candidate, graph=file, artifact=artifact, runtime=runtime, source=bundle.path)
            digest = digest_of(bundle.manifest.files[path.name].sha256 for path in measured.files)
            by_digest.setdefault(digest, replace(measured, digest=digest))
    return list(by_digest.values())
