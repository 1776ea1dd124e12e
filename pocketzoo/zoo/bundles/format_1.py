"""Manifests of format 1 in the words of format 2: names that were changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {"heal": "distill"}  # of steps
FIELDS = {"quantised": "quantized", "rank_share": "rank_fraction"}  # of their configs and plans
REPORT = {"turned_down": "rejected", "writing": "generation"}


def converted(data: Any) -> Any:
    """A manifest as it was read from its file; what is of another format, or not a manifest, stays as it is."""
    if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] != 1:
        return data
    found = _renamed(data, {"turned_down": "rejected"}) | {"format": 2}
    found["steps"] = _each(found.get("steps", ()), _step)
    found["rejected"] = _each(found.get("rejected", ()), _step)
    model = found.get("model")
    if isinstance(model, dict) and isinstance(options := model.get("backbone_options"), dict):
        found["model"] = {**model, "backbone_options": _renamed(options, {"standardise": "standardize"})}
    origin = found.get("provenance")
    if isinstance(origin, dict) and isinstance(training := origin.get("training"), dict):
        found["provenance"] = {**origin, "training": _renamed(training, {"optimiser": "optimizer"})}
    return found


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
    found = _renamed(report, REPORT)
    if isinstance(found.get("rejected"), list):
        found["rejected"] = _each(found["rejected"], _step)
    if isinstance(found.get("generation"), dict):
        found["generation"] = {
            target: _renamed(each, REPORT) if isinstance(each, dict) else each
            for target, each in found["generation"].items()
        }
    return found


def _each(entries: Any, change: Any) -> Any:
    return [change(entry) for entry in entries] if isinstance(entries, list | tuple) else entries


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in data.items()}
