"""What ``list --kind`` shows of each spec besides its name: the facts by which one of a kind is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Kind -> a column each: what it is called, and what it is for a spec. One that no spec has is left out.
FACTS: Mapping[str, tuple[tuple[str, Callable[[Any], Any]], ...]] = {
    "backbone": (
        ("input", lambda spec: getattr(spec.input, "shape", ())),
        ("features", lambda spec: getattr(spec.features, "kind", None) or tuple(spec.features)),
        ("weights", lambda spec: spec.weights is not None),
        ("license", lambda spec: spec.license),
    ),
    "head": (("task", lambda spec: spec.task or spec.returns), ("takes", lambda spec: spec.takes)),
    "task": (
        ("decoder", lambda spec: spec.decoder),
        ("targets", lambda spec: spec.targets),
        ("fitted", lambda spec: spec.training is not None),
    ),
    "decoder": (("tasks", lambda spec: spec.tasks),),
    "processor": (
        ("modality", lambda spec: spec.modality),
        ("config", lambda spec: spec.config.__name__),
        ("files", lambda spec: spec.suffixes),
    ),
    "compressor": (
        ("works on", lambda spec: spec.form),
        ("config", lambda spec: spec.config.__name__),
        ("weights in", lambda spec: getattr(spec, "precision", "")),
    ),
    "exporter": (("writes", lambda spec: spec.suffix), ("target", lambda spec: spec.default_target)),
    "target": (
        ("back end", lambda spec: getattr(spec, "backend", "")),
        ("device", lambda spec: spec.device),
        ("computes in", lambda spec: spec.precisions),
    ),
    "backend": (
        ("package", lambda spec: spec.package),
        ("builds", lambda spec: spec.suffix),
        ("runs", lambda spec: spec.form),
    ),
    "dataset": (("license", lambda spec: spec.license),),
    "loader": (),
}


def rows(kind: str, entries: list[Any]) -> list[list[str]]:
    """A heading, and a row for each entry: name, plugin, facts, summary."""
    columns = [(title, [_shown(fact(entry.spec)) for entry in entries]) for title, fact in FACTS[kind]]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    heading = [kind, "plugin", *(title for title, _ in columns), "summary"]
    facts = zip(*(cells for _, cells in columns), strict=True) if columns else [()] * len(entries)
    return [
        heading,
        *(
            [e.name, e.plugin, *(cell or "-" for cell in cells), e.spec.summary]
            for e, cells in zip(entries, facts, strict=True)
        ),
    ]


def _shown(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else ""
    return " ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)
