"""The ``report`` function: an HTML page of everything measured on one or more bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from pocketzoo.core.errors import DataError, ExportError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.utf8 import encoded
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.measure.confusion_matrix import Answers, measure_confusion
from pocketzoo.reports.bench_section import owner, run_section
from pocketzoo.reports.bundle_section import bundle_section
from pocketzoo.reports.charts.training_curves import curves_section
from pocketzoo.reports.confusion_section import answers_section
from pocketzoo.reports.html_page import check_page, page, sentence
from pocketzoo.reports.measured.bench_runs import bench_headline, read_runs
from pocketzoo.reports.measured.layer_costs import read_layers
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.open_task import open_task, reading_of

Answering = Callable[[Bundle], Answers | None]

# Nothing on the page is fetched or run, whatever a label or a manifest holds.


@survives_exit
def report(
    models: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | Path | Dataset | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write an HTML page about bundles; returns its path. It shows rows that ``bench --save`` or ``compress`` stored.

    With labeled ``data`` the page includes the metrics of the best model on the test split with their intervals, of
    classes the confusion matrix, and its worst answers, drawn by its task.

    Rows are compared within the run that measured them, never across runs. Every number of a manifest carries its exact
    value and its place there: ``data-value``, ``data-key``, and ``data-bundle``, the index into ``models``.

    Raises:
        DataError: no models, or one that was not measured; data that cannot be read or has none of the classes.
        BundleError: a model is not a bundle, is damaged, or holds measurements or layers of another version.
        UnknownNameError: a model is neither a path nor a registered name.
        ExportError: ``out`` is a folder, inside a bundle, or called as if it were no HTML page.
        StorageError: the disk refused.
    """
    place = Path(out)
    if not models:
        raise DataError("no bundles are given", "name one or more bundles")
    if place.is_dir():
        raise ExportError(f"{place} is a folder", "give a file name with -o")
    check_page(place)
    resolver = Resolver.of(registry)
    bundles = [open_model(model, registry=resolver) for model in models]
    text = _page(bundles, models, _answering(data, seed, skip_bad, resolver, progress))
    with replacing_file(place) as temporary:
        temporary.write_bytes(encoded(text))
    return place


def _answering(
    data: str | Path | Dataset | None, seed: int, skip_bad: bool, resolver: Resolver, progress: Progress
) -> Answering | None:
    """What gives a bundle's answers to the data."""
    if data is None:
        return None
    skipped = Skipped() if skip_bad else None
    registry = resolver.registry
    said: set[str] = set()  # models of one name are said once

    def answers(bundle: Bundle) -> Answers | None:
        manifest = bundle.manifest
        task = open_task(manifest, registry)
        if task is None:
            if manifest.name in said:
                return None
            said.add(manifest.name)
            progress.say(f"{manifest.name} has no task, so that its answers are not shown: nobody said what they mean")
            return None
        reading = {**reading_of(task), "reads": manifest.processor, "fitted": manifest.data_columns}
        known = load_data(data, seed=seed, **reading, skipped=skipped, registry=registry, progress=progress)
        return measure_confusion(bundle, known, skip_bad=skip_bad, registry=registry, progress=progress)

    return answers


def _page(bundles: Sequence[Bundle], models: Sequence[str | Path], answering: Answering | None) -> str:
    runs = read_runs(bundles, models)
    layers = [read_layers(bundle, index) for index, bundle in enumerate(bundles)]
    alone = len(runs) == 1
    title = sentence(bench_headline(runs[0])) if alone else f"{len(runs)} runs, measured separately"
    lead = "" if alone else "They are not comparable with one another: no ratio on this page is across runs."
    sections = [run_section(run, i, bundles, layers, alone=alone) for i, run in enumerate(runs)]
    subjects = {owner(run, run.rows[run.best], bundles) for run in runs}
    shown = sorted(i for i in subjects if i is not None)
    for i in shown:
        name = _title(i, bundles, models)
        sections.append(curves_section(bundles[i], i, name, f"training-{i}"))
        if answering is not None:
            answers = answering(bundles[i])
            if answers is not None:
                sections.append(answers_section(answers, name, f"answers-{i}"))
    details = [
        bundle_section(bundle, i, layers[i], title=_title(i, bundles, models), opened=i in subjects)
        for i, bundle in enumerate(bundles)
    ]
    about = Markup('<section aria-labelledby="models"><h2 id="models">The models</h2>\n{}\n</section>')
    sections.append(about.format(Markup().join(details)))
    footer = (
        "A KB is 1,000 bytes. MACs are multiply-accumulates for one sample. p50 and p99 are the median and the 99th "
        "percentile."
    )
    return page("report", title, Markup("\n").join(sections), lead=lead, footer=footer)


def _title(index: int, bundles: Sequence[Bundle], models: Sequence[str | Path]) -> str:
    """The bundle's name, and where two have the same, its path too."""
    name = bundles[index].manifest.name
    alone = sum(bundle.manifest.name == name for bundle in bundles) == 1
    return name if alone else f"{name} ({models[index]})"
