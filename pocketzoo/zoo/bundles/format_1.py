"""Manifests of format 1 in the words of format 2: names that were changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {"heal": "distill"}  # of steps
FIELDS = {"quantised": "quantized", "rank_share": "rank_fraction"}  # of their configs and plans
# Options of what ships; those of others are their own.
OPTIONS = {("backbone", "mlp"): {"standardise": "standardize"}, ("head", "embedding"): {"normalise": "normalize"}}
REPORT = {"turned_down": "rejected", "writing": "generation"}


def converted(data: Any) -> Any:
    """A manifest as it was read from its file; what is of another format, or not a manifest, stays as it is."""
    if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] != 1:
        return data
    manifest = _renamed(data, {"turned_down": "rejected"}) | {"format": 2}
    manifest["steps"] = _each(manifest.get("steps", ()), _step)
    manifest["rejected"] = _each(manifest.get("rejected", ()), _step)
    model = manifest.get("model")
    if isinstance(model, dict):
        manifest["model"] = dict(model)
        for (part, name), names in OPTIONS.items():
            if model.get(part) == name and isinstance(options := model.get(f"{part}_options"), dict):
                manifest["model"][f"{part}_options"] = _renamed(options, names)
    origin = manifest.get("provenance")
    if isinstance(origin, dict) and isinstance(training := origin.get("training"), dict):
        manifest["provenance"] = {**origin, "training": _renamed(training, {"optimiser": "optimizer"})}
    return manifest


def _step(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    step = dict(step)
    if isinstance(kind := step.get("kind"), str):
        step["kind"] = KINDS.get(kind, kind)
    for part in ("config", "plan"):
        if isinstance(step.get(part), dict):
            step[part] = _renamed(step[part], FIELDS)
    if isinstance(step.get("report"), dict):
        step["report"] = _report(step["report"])
    return step


def _report(report: dict[str, Any]) -> dict[str, Any]:
    renamed = _renamed(report, REPORT)
    if isinstance(renamed.get("rejected"), list):
        renamed["rejected"] = _each(renamed["rejected"], _step)
    if isinstance(renamed.get("generation"), dict):
        renamed["generation"] = {
            target: _renamed(each, REPORT) if isinstance(each, dict) else each
            for target, each in renamed["generation"].items()
        }
    return renamed


def _each(entries: Any, change: Any) -> Any:
    return [change(entry) for entry in entries] if isinstance(entries, list | tuple) else entries


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in data.items()}
