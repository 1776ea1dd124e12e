"""Compress the generation graphs (prefill, decode) of a language model along with its full-text graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.graph_scores import SLACK
from pocketzoo.core.arrays import Arrays, first
from pocketzoo.core.progress import Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name
from pocketzoo.zoo.bundles.saved_plans import saved_plan
from pocketzoo.zoo.bundles.step_record import Cause, Change, GenerationReport
from pocketzoo.zoo.catalog.compressor import Compressor, GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.tasks.text_generator import (
    TEXTS,
    TOKENS,
    GraphWriter,
    alike,
    empty_cache,
    milliseconds_a_token,
    with_room,
)
from pocketzoo.zoo.tasks.token_search import Ids, greedy


@dataclass(frozen=True)
class Prompts:
    """What the parts of a bundle read when it writes after texts: what they are calibrated on."""

    bundle: Bundle  # with its float parts
    texts: Iterable[Ids]  # (1, T), one text each; iterable more than once

    def feeds(self, part: str) -> Any:
        """A feed a text; iterable more than once."""
        return _Feeds(self, part)

    @cached_property
    def answers(self) -> list[list[int]]:
        """What the float graphs answer to each text, where the model answers."""
        settings = self.bundle.manifest.generation
        assert settings is not None
        with GraphWriter(self.bundle.parts(), settings.start, threads=1) as writer:
            return [greedy(writer, ids, longest=TOKENS, end=settings.end) for ids in self.texts]


@dataclass(frozen=True)
class _Texts:
    """Batches of one text as the ids of their tokens; iterable more than once where the batches are."""

    batches: Iterable[Arrays]

    def __iter__(self) -> Iterator[Ids]:
        return map(first, self.batches)


@dataclass(frozen=True)
class _Feeds:
    prompts: Prompts
    part: str

    def __iter__(self) -> Iterator[Arrays]:
        bundle, texts = self.prompts.bundle, self.prompts.texts
        parts, settings = bundle.parts(), bundle.manifest.generation
        assert settings is not None
        if self.part == "encoder":
            yield from ({"input_ids": ids} for ids in texts)
            return
        with OnnxRunner(parts["decoder"], threads=1) as decoder:
            past = empty_cache(decoder.signature)
        # All tokens at once: layers read the same of each as one after the other.
        if "encoder" not in parts:
            yield from ({"input_ids": ids, **past} for ids in texts)
            return
        with OnnxRunner(parts["encoder"], threads=1) as encoder:
            for ids, answer in zip(texts, self.prompts.answers, strict=True):
                begun = np.array([[*settings.start, *answer[:-1]]], np.int64)
                yield {"input_ids": begun, **past, **encoder.infer({"input_ids": ids})}


def plan_parts(
    bundle: Bundle, compressor: GraphCompressor[Any, Any], config: Any, texts: Iterable[Arrays], float_layers: set[str]
) -> dict[str, Any]:
    """A plan for each part of a bundle; ``float_layers`` are left as they are, those that ``config`` skips too."""
    prompts = Prompts(bundle, _Texts(texts))
    plans: dict[str, Any] = {}
    for part, path in bundle.parts().items():
        model, feeds = onnx.load(path), prompts.feeds(part)
        own = config if compressor.for_graph is None else compressor.for_graph(config, model)
        plan = compressor.plan(model, own, feeds)
        plans[part] = plan if compressor.exclude is None else compressor.exclude(plan, float_layers)
    return plans


def write_parts(
    attempt: Attempt,
    draft: Draft,
    compressor: GraphCompressor[Any, Any],
    plans: Mapping[str, Any],
    targets: Iterable[TargetSpec],
    texts: Iterable[Arrays],
    *,
    max_drop: float | None,
    keep_slower: bool,
    progress: Progress,
) -> dict[str, GenerationReport]:
    """Encode the parts of a bundle for each target into ``draft``, alongside the float ones; how each of them writes.

    Where they are larger, write fewer than 1 - ``max_drop`` of the tokens that the float ones write, or take longer for
    one than those, they are left out for that target, unless ``keep_slower`` (which is not for the tokens).
    """
    bundle = attempt.bundle
    settings, before = bundle.manifest.generation, bundle.parts()
    assert settings is not None
    for part, plan in plans.items():
        attempt.save_tensors(plan, draft, part)
    few = list(islice(with_room(_Texts(texts), settings.positions), TEXTS))
    reports: dict[str, GenerationReport] = {}
    with GraphWriter(before, settings.start, threads=1) as reference:
        for target in targets:
            after: dict[str, Path] = {}
            for part, plan in plans.items():
                name = graph_name(target.name, compressor.precision, part)
                after[part] = draft.mark(name, target=target.name, precision=compressor.precision, graph=part)
                onnx.save(compressor.apply(onnx.load(before[part]), plan, target), after[part])
            sizes = [sum(path.stat().st_size for path in graphs.values()) for graphs in (before, after)]
            report = GenerationReport(bytes=Change(before=sizes[0], after=sizes[1]))
            with GraphWriter(after, settings.start, threads=1) as writer:
                report = replace(report, **to_plain(alike(reference, writer, few, settings.end)))
                if target.timed_here and few:
                    times = milliseconds_a_token([reference, writer], few[0], 0.2)
                    report = replace(report, latency=Change(before=times[0], after=times[1]))
            why, cause = _against(report, max_drop, keep_slower)
            if why:
                report = replace(report, why=why, cause=cause)
                for path in after.values():
                    path.unlink()
                    del draft.kinds[path.name]
            words = ", ".join(f"{path.stem}.onnx" for path in before.values())
            result = f"left in float: {why}" if why else f"{report.agreement:.1%} of {report.tokens} tokens agree"
            progress.say(f"{compressor.name} for {target.name}, generation graphs ({words}): {result}")
            reports[target.name] = report
    return reports


def _against(report: GenerationReport, max_drop: float | None, keep_slower: bool) -> tuple[str, Cause]:
    """What speaks against shipping parts; nothing where nothing does."""
    if max_drop is not None and report.agreement is not None and report.agreement < 1.0 - max_drop:
        return f"{1.0 - report.agreement:.1%} of the tokens change, at most {max_drop:.1%} are allowed", "budget"
    size, latency = report.bytes, report.latency
    if not keep_slower and size.after > size.before:
        return f"larger: {size.before:,} -> {size.after:,} bytes", "larger"
    if not keep_slower and latency is not None and latency.after > latency.before * SLACK:
        return f"slower: {latency.before:.2f} -> {latency.after:.2f} ms a token", "slower"
    return "", ""


def encode_parts(
    bundle: Bundle, target: TargetSpec, compressors: Mapping[str, Compressor], folder: Path
) -> dict[str, Path]:
    """The parts of a bundle for a target: those it has, or encoded into ``folder`` from the plans; else float ones.

    ``compressors`` are those of the bundle's steps, by kind (``Resolver.compressors``).
    """
    graphs = bundle.parts(target.name)
    own = {entry.graph for entry in bundle.manifest.files.values() if entry.target == target.name}
    for step in bundle.manifest.steps:
        compressor = compressors[step.compressor]
        declined = target.name in step.report.generation and bool(step.report.generation[target.name].why)
        for part in step.parts:
            if part in own or declined or not isinstance(compressor, GraphCompressor):
                continue
            plan = saved_plan(bundle, step, compressor, part)
            graph = compressor.apply(onnx.load(graphs[part]), plan, target)
            graphs[part] = folder / graph_name(target.name, compressor.precision, part)
            onnx.save(graph, graphs[part])
    return graphs
