"""Table of what a model reads and outputs: types, axes, states, and how close each output stays where it is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pocketzoo.reports.measured.number_format import NOTHING, Number
from pocketzoo.zoo.bundles.bundle_tensors import Sqnr, TensorFacts

FEW = 16  # of a side of a graph that are shown: a large decoder has a hundred caches


def tensors_table(tensors: Sequence[TensorFacts], name: str, index: int) -> dict[str, Any]:
    """What the template shows of the inputs and outputs of the bundle at ``index``."""
    targets = list(dict.fromkeys(sqnr.target for tensor in tensors for sqnr in tensor.sqnr))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.graph, tensor.role), []).append(_row(tensor, targets, index))
    states = any(tensor.state for tensor in tensors)
    several = len({tensor.graph for tensor in tensors}) > 1
    caption = "Marked is the axis that counts samples; an axis with a name may be of any length."
    if targets:
        caption += " SQNR is in dB, against the output of the first row of the run: a higher one is closer."
    return {
        "name": name,
        "caption": caption,
        "states": states,
        "targets": targets,
        "groups": [
            {"title": _title(*group, several), "rows": rows[:FEW], "more": max(len(rows) - FEW, 0)}
            for group, rows in groups.items()
        ],
    }


def _title(graph: str, role: str, several: bool) -> str:
    if not several:
        return f"{role}s"
    return f"{role}s of {f'the graph {graph}' if graph else 'the model'}"


def _row(tensor: TensorFacts, targets: Sequence[str], index: int) -> dict[str, Any]:
    words = [f"({dim})" if " " in str(dim) else str(dim) for dim in tensor.axes]  # "sequence + past"
    dims = [
        Markup('<span class="samples">{}</span>').format(word) if i == tensor.batch else word
        for i, word in enumerate(words)
    ]
    sqnr = {each.target: each for each in tensor.sqnr}
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "axes": Markup(" &times; ").join(dims) if dims else "one number",
        "batch": NOTHING if tensor.batch is None else f"axis {tensor.batch}",
        "free": ", ".join(dict.fromkeys(tensor.free)) or NOTHING,
        "state": _state(tensor),
        "sqnr": ["" if tensor.role == "input" else _sqnr(sqnr.get(target), index) for target in targets],
    }


def _state(tensor: TensorFacts) -> Markup | str:
    if not tensor.state:
        return NOTHING
    return f"to {tensor.state}" if tensor.role == "output" else f"from {tensor.state}"


def _sqnr(sqnr: Sqnr | None, index: int) -> Markup | str:
    if sqnr is None:
        return NOTHING
    shown = Markup("equal") if sqnr.value is None else Number(sqnr.value, sqnr.key, index).shown(f"{sqnr.value:.1f}")
    return shown + Markup(" ({})").format(sqnr.made_samples) if sqnr.made_samples else shown
