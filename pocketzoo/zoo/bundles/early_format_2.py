"""Manifests of format 2 as it was first written, in the fields of today: reports were untyped, files named by kinds.

Nothing is rewritten in place: what is read is converted in memory. What is damaged is left as it is, for the reader of
the fields to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGES = {
    "parameters": "parameters",
    "macs": "macs",
    "bytes": "bytes",
    "latency_ms": "latency",
    "agreement": "agreement",
}
GENERATES = "generate"  # the driver of what had parts
GENERATION = {"bytes": "bytes", "ms_a_token": "latency"}
RENAMED = {
    "sqnr_db": "sqnr",
    "outputs_db": "outputs",
    "sqnr_against_float_db": "sqnr_against_float",
    "validation_samples": "samples",
    "left_in_float": "float_layers",
}


def converted(data: Any) -> Any:
    """A manifest as it was read from its file; what is written as today, or not a manifest, stays as it is."""
    if not isinstance(data, dict):
        return data
    if "processor" not in data and "input" in data:  # a config alone: the first processor that reads it is meant
        rest = {name: value for name, value in data.items() if name != "input"}
        data = {**rest, "processor": {"name": "", "config": data["input"]}}
    if isinstance(measured := data.get("measured"), dict):  # it was said once, of the last run
        rows = data.get("measurements")
        rest = {name: value for name, value in data.items() if name != "measured"}
        data = {**rest, "measurements": [_row(row, measured) for row in rows] if isinstance(rows, list) else rows}
    elif "measured" in data:
        data = {name: value for name, value in data.items() if name != "measured"}
    steps, rejected, files = data.get("steps", ()), data.get("rejected", ()), data.get("files", {})
    names = frozenset(files) if isinstance(files, dict) else frozenset[str]()
    return _with_graphs(
        {
            **data,
            **({"steps": [_step(step, names) for step in steps]} if isinstance(steps, list) and steps else {}),
            **({"rejected": [_rejection(no) for no in rejected]} if isinstance(rejected, list) and rejected else {}),
        }
    )


def _with_graphs(data: Any) -> Any:
    """Early manifests of format 2 call the graphs of a model "parts", and those that had some generate text."""
    if not isinstance(data, dict) or not isinstance(files := data.get("files"), dict):
        return data
    early = {name: entry for name, entry in files.items() if isinstance(entry, dict) and "part" in entry}
    if not early:
        return data
    renamed_entries = {
        name: {"graph" if field == "part" else field: value for field, value in entry.items()}
        for name, entry in early.items()
    }
    several = any(entry["part"] for entry in early.values())
    return {**({"driver": GENERATES} if several else {}), **data, "files": {**files, **renamed_entries}}


def _row(row: Any, measured: Mapping[str, Any]) -> Any:
    """A measurement with what was said of all: of the runtimes' versions its own, and not the number of samples."""
    if not isinstance(row, dict):
        return row
    versions = measured.get("runtimes", {})
    own = {name: value for name, value in measured.items() if name not in ("runtimes", "samples")}
    known = isinstance(versions, dict) and isinstance(version := versions.get(row.get("runtime")), str)
    return {**row, "measured": {**own, **({"version": version} if known else {})}}


def _step(step: Any, files: frozenset[str]) -> Any:
    if not isinstance(step, dict) or "kind" not in step:
        return step
    new = {"compressor" if name == "kind" else name: value for name, value in step.items()}
    kind, parts = step["kind"], step.get("parts", {})
    of_parts = parts if isinstance(parts, dict) else {}
    stored = {"": f"{kind}.safetensors", **{part: f"{kind}.{part}.safetensors" for part in of_parts}}
    new["graphs"] = new.pop("parts", {})
    new["tensors"] = {part: name for part, name in stored.items() if name in files}
    new["decisions"] = [row for plan in (step.get("plan"), *of_parts.values()) for row in _decisions(plan)]
    if isinstance(report := step.get("report"), dict):
        new["report"] = report_of(report, kind)
    return new


def _decisions(plan: Any) -> list[dict[str, str]]:
    """The layers that a plan leaves as they are, with the reason: all that is said of layers in every plan alike."""
    rows = []
    for field, words in (("dense", "stays dense"), ("left", "left alone")):
        if isinstance(plan, dict) and isinstance(reasons := plan.get(field), dict):
            rows += [{"layer": layer, "what": words, "why": why} for layer, why in reasons.items()]
    return rows


def _rejection(no: Any, kind: Any = None) -> Any:
    if not isinstance(no, dict) or "compressor" in no:
        return no
    new = {"compressor": no.get("kind", kind), **{name: value for name, value in no.items() if name != "kind"}}
    if isinstance(report := no.get("report"), dict):
        new["report"] = report_of(report, kind)
    if isinstance(tried := no.get("tried"), list):
        new["tried"] = [_rejection(each, new["compressor"]) for each in tried]
    return new


def report_of(old: Mapping[str, Any], kind: Any = "") -> dict[str, Any]:
    """The report of a step of ``kind`` with its fields as they are called now; one of today stays as it is."""
    new = _paired(old, CHANGES)
    if "accuracy_before" in new and "accuracy_after" in new:
        new["metric"] = {"name": "accuracy", "before": new.pop("accuracy_before"), "after": new.pop("accuracy_after")}
    new = {RENAMED.get(name, name): value for name, value in new.items()}
    if isinstance(rejected := new.get("rejected"), list):
        new["rejected"] = [_rejection(no, kind) for no in rejected]
    if isinstance(generation := new.get("generation"), dict):
        new["generation"] = {target: _generation(each) for target, each in generation.items()}
    return new


def _generation(old: Any) -> Any:
    if not isinstance(old, dict):
        return old
    new = _paired(old, GENERATION)
    if isinstance(why := new.pop("rejected", None), str):
        new |= {"why": why, "cause": "budget" if "tokens change" in why else "slower"}
    return new


def _paired(old: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Entries ``NAME_before`` and ``NAME_after`` as one."""
    new = dict(old)
    for name, now in names.items():
        if f"{name}_before" in new and f"{name}_after" in new:
            new[now] = {"before": new.pop(f"{name}_before"), "after": new.pop(f"{name}_after")}
    return new
