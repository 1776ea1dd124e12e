"""The operators of a graph that a target has none of, known before anything is made for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from pocketzoo.core.progress import Progress
from pocketzoo.zoo.catalog.specs import TargetSpec


def refused_operators(graph: Path, target: TargetSpec) -> dict[str, str]:
    """Operator -> what to do instead, of those at any depth that ``target`` states to refuse.

    Nothing where onnx is not installed, by which the file is read.
    """
    if not target.refuses or graph.suffix != ".onnx" or find_spec("onnx") is None:
        return {}
    import onnx

    from pocketzoo.zoo.graphs.fresh_names import STANDARD, nodes

    try:
        model = onnx.load(graph, load_external_data=False)
    except Exception:  # protobuf's own, of what is no graph: who reads it next says so
        return {}
    found = (each for each in nodes(model.graph.node) if each.domain in STANDARD)
    return {each.op_type: target.refuses[each.op_type] for each in found if each.op_type in target.refuses}


def say_refused(graphs: Iterable[Path], targets: Iterable[TargetSpec], progress: Progress) -> None:
    """Say of each target what it has none of, and what to do instead."""
    paths = list(graphs)
    for target in targets:
        refused = {op: todo for path in paths for op, todo in refused_operators(path, target).items()}
        if refused:
            progress.say(told_refused(refused, target))


def told_refused(refused: Mapping[str, str], target: TargetSpec) -> str:
    """What ``refused_operators`` found, in words."""
    by_todo: dict[str, list[str]] = {}
    for operator, todo in refused.items():
        by_todo.setdefault(todo, []).append(operator)
    return "; ".join(f"{target.name} has no {', '.join(names)}: {todo}" for todo, names in by_todo.items())
