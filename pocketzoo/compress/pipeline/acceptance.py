"""Acceptance rules: whether a step's result may replace its input, why it is rejected, and what the user can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto

from pocketzoo.compress.pipeline.graph_scores import SLACK, Score
from pocketzoo.core.errors import RejectedError
from pocketzoo.core.reading.tensor_files import read_arrays
from pocketzoo.zoo.bundles.step_record import Cause, Rejection, StepReport

if TYPE_CHECKING:
    from pocketzoo.compress.pipeline.job import Job
    from pocketzoo.zoo.artifacts.driver import Graphs
    from pocketzoo.zoo.bundles.manifest import Manifest

LARGER = 1.001  # a file is larger only if it is so many times as large: names of nodes change
FLOOR_DB = 10.0  # SQNR of an output whose meaning is not known: below, a tenth of its power is error
FLOOR_SHARE = 0.2  # of the metric above chance that steps may cost without being told that they may

WAYS_OUT: dict[Cause, str] = {
    "floor": "ask for less, or accept it with --accept (accept = true in a recipe)",
    "unchanged": "ask for more, leave out the step, or accept it with --accept (accept = true in a recipe)",
    "budget": "ask for less, or allow more with --max-drop or --min-sqnr",
    "larger": "leave out the step, or keep it with --keep-slower",
    "slower": "leave out the step, or keep it with --keep-slower",
}
WORSE: frozenset[str] = frozenset({"floor", "unchanged", "budget"})  # causes that a command does not end in 0 after


class Rejected(Exception):  # noqa: N818 - no error: the run continues without the step
    """What a step made is not as good, as small or as fast as what it was to replace."""

    def __init__(
        self,
        why: str,
        report: StepReport,
        cause: Cause,
        *,
        float_layers: Mapping[str, str] = MappingProxyType({}),
        way_out: str = "",
    ) -> None:
        """``float_layers`` are to blame: left in float, at what cost, they bring it back, by ``way_out``."""
        super().__init__(why)
        self.why, self.report, self.cause, self.float_layers, self.way_out = why, report, cause, float_layers, way_out

    def record(self, compressor: str, provider: str, config: Mapping[str, Any], target: str = "") -> Rejection:
        """For the manifest."""
        return Rejection(
            compressor=compressor,
            provider=provider,
            config=config,
            why=self.why,
            cause=self.cause,
            target=target,
            report=self.report,
            float_layers=dict(self.float_layers),
            way_out=self.way_out,
        )


def check_report(
    report: StepReport,
    job: Job,
    before: Graphs,
    after: Graphs,
    *,
    allowed: float | None,
    least: float | None = None,
) -> None:
    """Hold a graph that a step made against the one it was made from, and against the source.

    ``allowed`` is what the metric may have lost by now, 0-1; None where the step is not the last of those that a budget
    is held after, or there is none. ``least`` dB that were asked for stand in for ``FLOOR_DB``.

    Raises:
        Rejected: what was measured speaks against shipping it.
    """
    if allowed is not None:
        drop = job.judge.drop(after)
        if drop > allowed:
            raise Rejected(job.judge.told(drop, allowed), report, "budget")
    scores = map(job.judge.score, (job.judge.reference, before, after))
    if not job.settings.accept and (why := below_floor(*scores, budget=job.settings.max_drop is not None, least=least)):
        raise Rejected(why, report, "floor")
    check_cost(report, job)


def check_cost(report: StepReport, job: Job) -> None:
    """Raises:
    Rejected: it is larger, or slower.
    """
    if job.settings.keep_slower:
        return
    size, latency = report.bytes, report.latency
    if size is not None and size.after > size.before * LARGER:
        raise Rejected(f"larger: {size.before:,} -> {size.after:,} bytes", report, "larger")
    if latency is not None and latency.after > latency.before * SLACK:
        raise Rejected(f"slower: {latency.before:.3f} -> {latency.after:.3f} ms a sample", report, "slower")


def below_floor(source: Score, before: Score, after: Score, *, budget: bool = False, least: float | None = None) -> str:
    """What a step made worse beyond what goes without being asked for; "" if nothing.

    Where the task's metric is known, all steps together may cost a fifth of what the source has above chance. Every
    output that the metric is not of keeps an SQNR of ``FLOOR_DB`` against the source, or of ``least`` where that was
    asked for, and is nearer than a constant. A ``budget`` for the metric is held elsewhere. Where outputs were chosen
    (``Score.held``) nothing is asked of the others.
    """
    held = after.held or tuple(after.outputs)
    unjudged = () if not budget else after.judged
    outputs = {name: sqnr for name, sqnr in after.outputs.items() if name in held and name not in unjudged}
    metric = source.metric if not after.held or set(after.judged) & set(held) else None
    if not budget and metric is not None and before.metric is not None and after.metric is not None:
        had, lost = metric.loss(source.chance), metric.loss(after.metric.value)
        # A source that is no better than chance says nothing, unless what was made of it surely is.
        if had > 0 or (lost < 0 and after.metric.beats(source.chance)):
            outputs = {name: sqnr for name, sqnr in outputs.items() if name not in after.judged}
            if had > 0 and lost > FLOOR_SHARE * had and lost > metric.loss(before.metric.value):
                had_and_has = f"{metric.shown(metric.value)} to {metric.shown(after.metric.value)}"
                return (
                    f"{metric.name} {metric.worsens} from {had_and_has}, "
                    f"losing more than a fifth of what is above chance ({metric.shown(source.chance)})"
                )
    floor = FLOOR_DB if least is None else min(least, FLOOR_DB)
    low = {
        name: sqnr
        for name, sqnr in outputs.items()
        if sqnr is not None and sqnr < floor and sqnr < _or(before.outputs.get(name), np.inf)
    }
    if not low:
        flat = [name for name in after.like_constants if name in outputs and name not in before.like_constants]
        return f"of what varies in the output {flat[0]!r} nothing is left: a constant would be as near" if flat else ""
    name = min(low, key=lambda each: low[each])
    many = f", and {len(low) - 1} more output{'s' * (len(low) > 2)}" if len(low) > 1 else ""
    if name in after.differing:
        most = 10 ** (-floor / 10)
        return f"{after.differing[name]:.1%} of the values of output {name!r} differ{many}, more than {most:.0%}"
    where = f" ({after.parts[name]})" if name in after.parts else ""
    return f"the SQNR of output {name!r}{where} is {low[name]:.1f} dB{many}, below {floor:.0f} dB"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def same_graph(a: ModelProto, b: ModelProto) -> bool:
    """Whether two graphs compute the same from the same constants, node by node, whatever else they say."""
    return _nodes(a.graph) == _nodes(b.graph) and _constants(a.graph) == _constants(b.graph)


def same_module(before: Manifest, after: Manifest, tensors: tuple[Path, Path]) -> bool:
    """Whether a module has kept its sizes and every number of its weights: ``tensors`` are both safetensors files."""
    alike = before.counted_at == after.counted_at  # else one was counted by an earlier version
    if before.parameters != after.parameters or (alike and before.macs != after.macs):
        return False
    old, new = map(read_arrays, tensors)
    return old.keys() == new.keys() and all(np.array_equal(old[name], new[name], equal_nan=True) for name in old)


def _nodes(graph: GraphProto) -> list[bytes]:
    nodes = []
    for node in graph.node:
        bare = type(node)()
        bare.CopyFrom(node)
        for noise in ("name", "doc_string", "metadata_props"):
            bare.ClearField(noise)
        nodes.append(bare.SerializeToString(deterministic=True))
    return nodes


def _constants(graph: GraphProto) -> dict[str, bytes]:
    return {t.name: t.SerializeToString(deterministic=True) for t in graph.initializer}


def rejections(manifest: Manifest) -> Iterator[Rejection]:
    """Every step, or what it made for one target, that was left out of a bundle for good."""
    yield from manifest.rejected
    for step in manifest.steps:
        yield from (no for no in step.report.rejected if no.target)
        for target, report in step.report.generation.items():
            if report.why:
                yield Rejection(
                    compressor=step.compressor,
                    provider=step.provider,
                    config=step.config,
                    why=report.why,
                    cause=report.cause,
                    target=target,
                )


def worse(manifest: Manifest) -> list[Rejection]:
    """Those of them that a command does not end in 0 after."""
    return [no for no in rejections(manifest) if no.cause in WORSE]  # bundles of before name none


def nothing_left(manifest: Manifest) -> RejectedError:
    """The error of a run none of whose steps may be shipped."""
    records = list(rejections(manifest))
    why = "; ".join(dict.fromkeys(f"{no.compressor}: {no.why}" for no in records))
    return RejectedError(f"rejected, nothing was written: {why}", way_out(records))


def way_out(rejections: Sequence[Rejection]) -> str:
    """What the user can do about steps that were rejected: the one that is known of a step, or that of its cause."""
    known = next((no.way_out for no in rejections if no.way_out), "")
    usual = WAYS_OUT[rejections[-1].cause]
    return f"{known}, or accept it with --accept" if known else usual
