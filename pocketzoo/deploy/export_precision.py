"""The graphs of a bundle in another precision: each checked on what it reads, and all of them at their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import Progress
from pocketzoo.deploy.fp8_export import LEAST as LEAST_FP8
from pocketzoo.deploy.fp8_export import convert_fp8
from pocketzoo.deploy.half_precision_export import LEAST, check_ratio, convert_half, few, told
from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.zoo.artifacts.driver import Artifact, End
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.agreement import Comparison, check_outputs, worst
from pocketzoo.zoo.tasks.output_forms import OutputForms

MOST = 512  # inputs of one graph that show the range of its values: a sequence has one for each of its calls
COMPARED = 8  # batches at the end
T = TypeVar("T")


def in_precision(
    bundle: Bundle,
    graphs: Mapping[str, Path],
    target: TargetSpec,
    precision: str,
    batches: Callable[[str], Batches | None],
    resolver: Resolver,
    folder: Path,
    progress: Progress,
    *,
    outputs: Collection[str] = (),
) -> dict[str, Path]:
    """Write the graphs on the way to the first end in ``precision`` ("fp16", "bf16" or "fp8") into ``folder``.

    ``batches`` gives those of a split, "val" or "train"; None where there are no data. ``outputs``: those at the end
    that are held to what the precision has to reach, all where none are named.

    Raises:
        UnknownNameError: the model has no such output.
        ExportError: the target does not compute in it, the answers are not those of 32 bits, or fp8 has no ranges.
    """
    # fp8 is written of the float graphs, the other two of those for the target.
    end = ends(replace(artifact_of(bundle), graphs=bundle.graphs("") if precision == "fp8" else graphs))[0]
    if outputs:
        with end.open(partial(OnnxRunner, threads=1)) as runner:
            outputs = check_outputs(outputs, [spec.name for spec in runner.signature.outputs])
    shown = batches("val")
    if shown is None and precision != "fp8":  # whose ranges are those of the int8 step
        progress.say(f"{precision}: ranges and dB are of random inputs; --data D shows those of yours")
    samples: list[Arrays] = (
        [random_samples(processor_of(bundle, resolver.registry), 1)] if shown is None else few(shown)
    )
    fitting = batches("train") if precision == "fp8" else None
    written, ratios = dict[str, Path](), list[float | None]()
    for name in end.graphs:
        written[name] = folder / f"{name}.{precision}.onnx"
        say: Progress = progress if len(end.graphs) == 1 else _GraphProgress(name, progress)
        read = _read(end, name, samples)
        own = {value.name for value in signature_of(graphs[name]).outputs}.intersection(outputs)
        if precision == "fp8":
            fit_on = [] if fitting is None else _read(end, name, few(fitting))
            _, ratio = convert_fp8(
                bundle, name, written[name], target, resolver, fit_on, read, outputs=own, progress=say
            )
        else:
            _, ratio = convert_half(graphs[name], written[name], target, precision, read, outputs=own, progress=say)
        ratios.append(ratio)
    if (len(end.graphs) > 1 or end.artifact.states) and None not in ratios:
        after = replace(end.artifact, graphs={**end.artifact.graphs, **written})
        together = _at_the_end(end, after, samples[:COMPARED], outputs)
        progress.say(f"{precision}: together {told(together)}")
        check_ratio(together, LEAST_FP8 if precision == "fp8" else LEAST, precision)
    if precision != "fp8" and any(graphs[name] != bundle.graphs("").get(name) for name in end.graphs):
        plain = replace(end, artifact=replace(end.artifact, graphs=bundle.graphs("")))
        after = replace(end.artifact, graphs={**end.artifact.graphs, **written})
        if (whole := _at_the_end(plain, after, samples[:COMPARED], outputs)) is not None:
            progress.say(f"{precision} and what was quantized before: {told(whole)}")
    return written


def _read(end: End, name: str, samples: Iterable[Arrays]) -> list[Arrays]:
    """What a graph reads of samples."""
    given = [end.sample(sample) for sample in samples]
    return list(islice(end.calls(name, given, partial(OnnxRunner, threads=1)), MOST))


def _at_the_end(end: End, after: Artifact, samples: Iterable[Arrays], outputs: Collection[str]) -> float | None:
    """The ratio of signal to error between two artifacts in dB, of the worst output: what a state adds up, counts.

    None where onnxruntime lacks kernels for the second.
    """
    try:
        return _ratio_at_the_end(end, after, samples, outputs)
    except BundleError as error:
        if "NOT_IMPLEMENTED" in error.message:
            return None
        raise


def _ratio_at_the_end(end: End, after: Artifact, samples: Iterable[Arrays], outputs: Collection[str]) -> float:
    plain = partial(OnnxRunner, threads=1, optimization="none")  # see ``compare`` of half_precision_export
    selections = forms_of_files([end.artifact.graphs[name] for name in end.graphs]).selections
    comparison = Comparison(None, forms=OutputForms(selections=selections))
    names = dict[str, None]()
    with scratch_folder() as folder:
        start = with_selections(plain, folder)
        with end.open(start) as before, replace(end, artifact=after).open(start) as runner:
            for sample in samples:
                inputs = end.sample(sample)
                theirs = before.infer(inputs)
                comparison.add(runner.infer(end.following(inputs, theirs)), theirs, inputs)
                names |= dict.fromkeys(theirs)
    inner = {called for name, each in selections.items() for called in each.tensors(name)}
    held = [name for name in names if name not in inner and (not outputs or name in outputs)]
    sqnr = comparison.sqnr
    if not sqnr.keys() >= {*held}:  # what is selected, and what it is selected from is lost on the way
        return -float("inf")
    ratio = worst(sqnr, held)
    return float("inf") if ratio is None else ratio


class _GraphProgress:
    """Progress that says of which graph it is."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress = name, progress

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from self.progress.track(items, f"{self.name}: {label}", total)

    def say(self, text: str) -> None:
        self.progress.say(f"{self.name}: {text}")
