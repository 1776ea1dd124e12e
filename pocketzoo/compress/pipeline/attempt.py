"""What a step is tried on, what it is held to, and what both kinds of steps share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, source_file_name
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.bundles.step_record import StepRecord, StepReport, tensors_name
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.graphs.files.weight_files import copy_graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One step to be tried with one config: it is planned, applied, judged, and written to ``folder``."""

    bundle: Bundle  # what it works on
    compressor: Compressor
    config: Any
    provider: str = ""  # of the compressor: distribution and version
    folder: Path
    first: bool = True  # of the steps that are held to a budget together
    last: bool = True  # of them: only what it makes is held against the source
    began_with: Artifact  # what the first of them works on
    allowed: float | None = None  # what the metric may have lost after it, 0-1; None: no budget
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.perf_counter() - self.started

    def record(self, plans: Mapping[str, Any], report: StepReport | None = None) -> StepRecord:
        """The step as a manifest records it; ``plans`` by graph, ``MODEL`` for a module too."""
        position = len(self.bundle.manifest.steps)
        plans = {"" if graph == MODEL else graph: plan for graph, plan in plans.items()}
        return StepRecord(
            compressor=self.compressor.name,
            provider=self.provider,
            config=to_plain(self.config),
            plan=to_plain(plans.get("", {})),
            plan_version=self.compressor.plan_version,
            graphs={graph: to_plain(plan) for graph, plan in plans.items() if graph},
            tensors={graph: tensors_name(position, graph) for graph, plan in plans.items() if tensors_of(plan)},
            decisions=tuple(dict.fromkeys(row for each in plans.values() for row in self.compressor.decisions(each))),
            report=report or StepReport(),
        )

    def save_tensors(self, plan: Any, draft: Draft, graph: str = MODEL) -> None:
        """Keep what of a plan is no plain data in a file of the draft."""
        if tensors := tensors_of(plan):
            from safetensors.numpy import save  # most plans have none

            name, precision = (
                tensors_name(len(self.bundle.manifest.steps), "" if graph == MODEL else graph),
                getattr(self.compressor, "precision", ""),
            )
            draft.mark(name, precision=precision).write_bytes(save(dict(tensors)))

    def left_alone(self, plan: Any) -> str:
        """The first of the layers that a plan leaves alone, and why, to end a sentence with; "" if it leaves none."""
        left = [decision for decision in self.compressor.decisions(plan) if decision.why]
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        return f": {left[0].layer} is left unchanged, as {left[0].why}{more}" if left else ""


def tensors_of(plan: Any) -> Mapping[str, Any]:
    """What of a plan is no plain data, by name."""
    tensors: Mapping[str, Any] = getattr(plan, "tensors", None) or {}
    return tensors


def carry_tensors(bundle: Bundle, draft: Draft) -> None:
    """The tensors of the steps that a bundle went through, for a bundle that another step is taken on."""
    for step in bundle.manifest.steps:
        for name in step.tensors.values():
            shutil.copyfile(bundle.file(name), draft.folder / name)
            draft.kinds[name] = bundle.manifest.files[name]


def copy_float(bundle: Bundle, draft: Draft) -> None:
    """Everything of a bundle but what was made of it for one target."""
    for path, file in bundle.source_files().items():
        shutil.copyfile(file, draft.folder / source_file_name(path))
    carry_tensors(bundle, draft)
    if "model.safetensors" in bundle.manifest.files:  # a graph from elsewhere has no module
        shutil.copyfile(bundle.file("model.safetensors"), draft.folder / "model.safetensors")
    for name, graph in bundle.graphs("").items():
        copy_graph(graph, draft.mark(graph.name, precision=bundle.float_precision, graph=name))
