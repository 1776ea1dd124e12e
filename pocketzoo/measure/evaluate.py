"""Evaluate a bundle on labeled data, with the graph that will run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.zoo.artifacts.driver import Start
from pocketzoo.zoo.artifacts.drivers import artifact_of, main_files, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, GenerationSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.findings import too_long
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.target_kinds import labels_of, naming_hint
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver, is_graph_only
from pocketzoo.zoo.tasks.agreement import Comparison
from pocketzoo.zoo.tasks.model_facts import model_facts
from pocketzoo.zoo.tasks.open_task import ModelTask, need_task, reading_of

SEQUENCES = 8  # examples of a task that makes its own, windows of tokens, that run at once


@survives_exit
def evaluate(
    model: str | Path,
    *,
    data: str | Path | Dataset,
    target: str = "cpu",
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Evaluate a model on the test split, by the metrics of its task; "intervals" has those of 95% confidence.

    Of a graph that is encoded for a target, "outputs" has the SQNR of each output against the float graph's, in dB,
    None where it is equal; "differing" the fraction of the values that differ, of outputs that are no floats. Outputs
    whose length depends on the data are compared before the operator of "selected_by" that selects them;
    "same_selection" is how far the same is selected, 0-1.

    A language model gets its perplexity, on windows as long as those it was trained on, else of ``WINDOW`` tokens.

    Raises:
        UnknownNameError: no such model, data set or target.
        MissingPluginError: no plugin here declares the model's task.
        DataError: the data cannot be read, has no targets, or classes the model does not know; or the model outputs
            something that no data set here has targets for.
    """
    resolver = Resolver.of(registry)
    resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    manifest = bundle.manifest
    task = need_task(manifest, resolver.registry)
    skipped = Skipped() if skip_bad else None
    dataset = load_data(
        data,
        seed=seed,
        **reading_of(task),
        skipped=skipped,
        reads=manifest.processor,
        fitted=manifest.data_columns,
        registry=resolver.registry,
        progress=progress,
    )
    processor = processor_of(bundle, resolver.registry)
    facts = model_facts(bundle, processor, resolver.registry, _generation(bundle, task, resolver))
    known = task.examples(dataset, facts)
    size = SEQUENCES if task.spec.examples is not None else Batches.size
    batches = Batches(known.split("test"), processor, size=size, skipped=skipped)
    metric = task.scores()
    if batches.split.targets is None:
        metric.need()
        raise DataError(
            f"{labels_of(dataset)} has no targets for {task.spec.name}"
            + (f" with the model's labels ({', '.join(manifest.labels[:5])}, ...)" if manifest.labels else ""),
            naming_hint(
                dataset,
                "name the class folders as the model's labels; see pocketzoo info"
                if manifest.labels
                else "give an .npz with y, or a .csv",
            ),
        )
    if task.spec.examples is None and (cut := too_long([batches.split], processor)):
        progress.say(f"{cut} texts are longer than the model accepts and are truncated")
    samples = 0
    artifact, whole = artifact_of(bundle, target), artifact_of(bundle)
    # A packed bundle has no graph but the one of its target.
    alone = artifact == whole or not whole.graphs
    nearness = None if alone else Comparison(None, batches.axes, forms_of_files(main_files(whole)))
    with ExitStack() as stack:
        start: Start = OnnxRunner
        if nearness is not None:
            start = with_selections(OnnxRunner, stack.enter_context(scratch_folder()))
        runner = stack.enter_context(open_artifact(artifact, start))
        reference = None if nearness is None else stack.enter_context(open_artifact(whole, start))
        for x, y in progress.track(batches, "scoring", len(batches)):
            assert y is not None
            outputs = runner.infer(x)
            metric.update(task.answers(outputs, x), y)
            samples += len(y)
            if nearness is not None and reference is not None:
                nearness.add(outputs, reference.infer(x), x)
    if not samples:
        raise DataError(f"the test split of {dataset.name} is empty", "give each class at least five samples")
    left = Skipped({*dataset.skipped, *(skipped.names if skipped is not None else ())})
    results = metric.result()
    task.headline(results)
    return {
        "bundle": manifest.name,
        "graph": bundle.graph(target).name,
        "data": dataset.name,
        "split": "test",
        "skipped": len(left.names),
        **({"skipped_samples": left.listed()} if left.names else {}),
        "samples": samples,
        "metric": task.metric.name,
        **({"unit": task.metric.unit} if task.metric.unit not in ("", "number") else {}),
        **{name.replace("_", " "): each.value for name, each in results.items()},
        **metric.details(),
        **({} if nearness is None else _nearness(nearness)),
        "intervals": {
            name.replace("_", " "): [each.low, each.high] for name, each in results.items() if each.low is not None
        },
    }


def _nearness(nearness: Comparison) -> dict[str, Any]:
    """How near the outputs are to the float graph's."""
    facts = {"outputs": nearness.sqnr, "differing": nearness.differing}
    if nearness.selected_by:
        facts |= {"selected_by": nearness.selected_by, "same_selection": nearness.same_selection}
    return facts


def _generation(bundle: Bundle, task: ModelTask, resolver: Resolver) -> GenerationSpec | None:
    """How a model ends its texts, where it has not written yet, so that only its backbone knows."""
    if bundle.manifest.generation is not None or task.spec.examples is None or is_graph_only(bundle):
        return None
    spec: BackboneSpec = resolver.with_sources(bundle).spec("backbone", bundle.manifest.model.backbone)
    return spec.generation
