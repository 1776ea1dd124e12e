"""What a step is tried on, what it is held to, and what both kinds of steps share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name, source_file_name
from pocketzoo.zoo.bundles.manifest import Step
from pocketzoo.zoo.catalog.compressor import Compressor


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One step to be tried with one config: it is planned, applied, judged, and written to ``folder``."""

    bundle: Bundle  # what it works on
    compressor: Compressor
    config: Any
    folder: Path
    first: bool = True  # of the steps that are held to a budget together
    last: bool = True  # of them: only what it makes is held against the source
    began_with: Path  # the graph that the first of them works on
    allowed: float | None = None  # what the metric may have lost after it, 0-1; None: no budget
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.perf_counter() - self.started

    def step(self, plan: Any, parts: Mapping[str, Any] | None = None) -> Step:
        """The step as a manifest records it."""
        return Step(
            kind=self.compressor.name,
            config=to_plain(self.config),
            plan=to_plain(plan),
            parts={name: to_plain(of_part) for name, of_part in (parts or {}).items()},
        )


def left_alone(plan: Any) -> str:
    """The first of the layers that a plan leaves alone, and why, to end a sentence with; "" if it leaves none."""
    left: Mapping[str, str] = getattr(plan, "left", {}) or getattr(plan, "dense", {})
    more = f", and {len(left) - 1} more" if len(left) > 1 else ""
    return next((f": {name} is left unchanged, as {why}{more}" for name, why in left.items()), "")


def copy_float(bundle: Bundle, draft: Draft) -> None:
    """Everything of a bundle but what was made of it for one target."""
    for path, file in bundle.source_files().items():
        shutil.copyfile(file, draft.folder / source_file_name(path))
    if "model.safetensors" in bundle.manifest.files:  # a graph from elsewhere has no module
        shutil.copyfile(bundle.file("model.safetensors"), draft.folder / "model.safetensors")
    shutil.copyfile(bundle.file(graph_name()), draft.mark(graph_name(), precision="float32"))
    for part, graph in bundle.parts().items():
        shutil.copyfile(graph, draft.mark(graph.name, precision="float32", graph=part))
