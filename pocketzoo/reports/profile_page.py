"""A profile as one self-contained HTML page: the graph drawn, the layers and operators as tables."""

from __future__ import annotations

from html import escape
from pathlib import Path

from pocketzoo.core.files import replacing_file
from pocketzoo.measure.profile import Profile, total
from pocketzoo.reports.bench_table import scroll
from pocketzoo.reports.charts.graph_drawing import draw_graph
from pocketzoo.reports.html_page import page
from pocketzoo.reports.measured.number_format import NOTHING, times


def save_page(profile: Profile, path: Path) -> Path:
    """Write the page; nothing on it is fetched or run.

    Raises:
        StorageError: the disk refused.
    """
    sections = [_operators(profile), _left(profile), _layers(profile), _graph(profile)]
    main = f'<section class="run">\n{"".join(sections)}\n</section>'
    footer = (
        f"Means over {profile.runs} runs without the fastest and slowest quarter. Profiling every node takes time "
        "itself: bench measures less."
    )
    text = page("profile", headline(profile), main, lead=setting(profile), footer=footer)
    with replacing_file(path) as temporary:
        temporary.write_text(text, "utf8")
    return path


def headline(profile: Profile) -> str:
    """Where most of the time goes, without a full stop."""
    whole = total(profile.nodes) or 1.0
    name, nodes = next(iter(profile.by_layer().items()))
    op, same = next(iter(profile.by_operator().items()))
    return f"{total(same) / whole:.0%} of the time in {op}, {total(nodes) / whole:.0%} in {name}"


def setting(profile: Profile) -> str:
    """What ran, how."""
    kind = f"int8 for {profile.target}" if profile.target else "float32"
    threads = f"{profile.threads} thread{'s' * (profile.threads != 1)}" if profile.threads else "all cores"
    length = f" of {profile.length} tokens" if profile.length else ""
    torch = f"; torch {profile.torch_ms:.2f} ms" if profile.torch_ms is not None else ""
    return (
        f"{profile.bundle} ({kind}), batch {profile.batch}{length}, {threads}: onnxruntime {profile.ms:.2f} ms{torch}"
    )


def _table(name: str, caption: str, head: list[str], rows: list[list[str]], width: int = 1) -> str:
    """The first ``width`` columns are words, and so is one that says why; the cells are HTML already."""
    kinds = [' class="text"' if i < width else ' class="text why"' if t == "why" else "" for i, t in enumerate(head)]
    titles = "".join(f'<th scope="col"{kind}>{t}</th>' for kind, t in zip(kinds, head, strict=True))
    body = "".join(
        f'<tr><th scope="row">{cells[0]}</th>'
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], cells[1:], strict=True))
        + "</tr>"
        for cells in rows
    )
    table = (
        f'<table class="layers"><caption id="{name}"><span>{caption}</span></caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    )
    return scroll(table, name)


def _operators(profile: Profile) -> str:
    whole = total(profile.nodes) or 1.0
    rows = [
        [escape(op), str(len(nodes)), ", ".join(sorted({n.kind for n in nodes})), f"{total(nodes):.3f}",
         _share(total(nodes) / whole)]
        for op, nodes in profile.by_operator().items()
    ]  # fmt: skip
    between = profile.ms - total(profile.nodes)
    caption = f"A run spends {max(between, 0.0):.3f} ms between nodes, including the profiler's own time."
    head = ["operator", "nodes", "on", "ms", "fraction"]
    return f"<figure><h2>By operator</h2>{_table('operators', caption, head, rows)}</figure>"


def _share(share: float) -> str:
    """A share with a bar after it."""
    return (
        f'<span class="meter"><i style="width:{100 * share:.1f}%"></i></span><span class="percent">{share:.1%}</span>'
    )


def _left(profile: Profile) -> str:
    if not profile.target:
        return ""
    whole = total(profile.nodes) or 1.0
    if not profile.left_in_float:
        return (
            "<figure><h2>Left in float</h2><p class='did'>No layer with weights: all of them run in int8.</p></figure>"
        )
    rows = [[escape(e.layer), f"{e.ms:.3f}", _share(e.ms / whole), escape(e.why)] for e in profile.left_in_float]
    head = ["layer", "ms", "fraction", "why"]
    table = _table("left", "Layers with weights that the int8 graph runs in float.", head, rows)
    return f"<figure><h2>Left in float</h2>{table}</figure>"


def _layers(profile: Profile) -> str:
    whole, summed, rows = total(profile.nodes) or 1.0, 0.0, []
    for name, nodes in profile.by_layer().items():
        summed += total(nodes)
        ours, theirs = total(nodes), profile.torch_layers.get(name)
        faster = times(theirs / ours) if theirs and ours > 0 else NOTHING
        rows.append([
            escape(name), ", ".join(dict.fromkeys(escape(n.op) for n in nodes)), f"{ours:.3f}", _share(ours / whole),
            f"{summed / whole:.1%}", f"{theirs:.3f}" if theirs is not None else NOTHING, faster,
        ])  # fmt: skip
    head = ["layer", "nodes", "ms", "fraction", "cumulative", "torch, ms", "faster"]
    caption = (
        "Slowest first. Nodes that belong to no layer are listed under their operator, in brackets. "
        "The time of a layer includes operators that are fused into it, such as the activation after it; in torch "
        "those are separate layers."
    )
    return f"<figure><h2>By layer</h2>{_table('by-layer', caption, head, rows, 2)}</figure>"


def _graph(profile: Profile) -> str:
    drawings = [draw_graph(profile.nodes, "graph", wide=wide) for wide in (True, False)]
    legend = (
        '<p class="legend"><span><i class="key circle heat"></i>float</span>'
        '<span><i class="key square heat"></i>int8</span><span>small: conversion</span>'
        "<span>color and bar: fraction of the time</span></p>"
    )
    return f"<figure><h2>The graph as it runs</h2>{legend}{''.join(drawings)}</figure>"
