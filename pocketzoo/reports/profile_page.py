"""A profile as one self-contained HTML page: the graph drawn, the layers and operators as tables."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from pocketzoo.core.files import replacing_file
from pocketzoo.core.reading.utf8 import encoded
from pocketzoo.measure.profile import Profile, total
from pocketzoo.reports.charts.graph_drawing import draw_graph
from pocketzoo.reports.html_page import check_page, page, render
from pocketzoo.reports.measured.number_format import NOTHING, times


def save_page(profile: Profile, path: Path) -> Path:
    """Write the page; nothing on it is fetched or run.

    Raises:
        StorageError: the disk refused.
    """
    whole = total(profile.nodes) or 1.0
    between = max(profile.ms - total(profile.nodes), 0.0)
    main = render(
        "profile.html",
        target=profile.target,
        between=f"A run spends {between:.3f} ms between nodes, including the profiler's own time.",
        operators=_operators(profile, whole),
        left=[[e.layer, f"{e.ms:.3f}", _share(e.ms / whole), e.why] for e in profile.left_in_float],
        layers=_layers(profile, whole),
        drawings=[draw_graph(profile.nodes, "graph", wide=wide) for wide in (True, False)],
    )
    footer = (
        f"Means over {profile.runs} runs without the fastest and slowest quarter. Profiling every node takes time "
        "itself: bench measures less."
    )
    check_page(path)
    text = page("profile", headline(profile), main, lead=setting(profile), footer=footer)
    with replacing_file(path) as temporary:
        temporary.write_bytes(encoded(text))
    return path


def headline(profile: Profile) -> str:
    """Where most of the time goes, without a full stop."""
    whole = total(profile.nodes) or 1.0
    name, nodes = next(iter(profile.by_layer().items()))
    op, same = next(iter(profile.by_operator().items()))
    return f"{total(same) / whole:.0%} of the time in {op}, {total(nodes) / whole:.0%} in {name}"


def setting(profile: Profile) -> str:
    """What ran, how."""
    kind = f"int8 for {profile.target}" if profile.target else profile.floats
    threads = f"{profile.threads} thread{'s' * (profile.threads != 1)}" if profile.threads else "all cores"
    length = f" of {profile.length} tokens" if profile.length else ""
    torch = f"; torch {profile.torch_ms:.2f} ms" if profile.torch_ms is not None else ""
    return (
        f"{profile.bundle} ({kind}), batch {profile.batch}{length}, {threads}: onnxruntime {profile.ms:.2f} ms{torch}"
    )


def _operators(profile: Profile, whole: float) -> list[list[str]]:
    return [
        [op, str(len(nodes)), ", ".join(sorted({n.kind for n in nodes})), f"{total(nodes):.3f}",
         _share(total(nodes) / whole)]
        for op, nodes in profile.by_operator().items()
    ]  # fmt: skip


def _share(share: float) -> Markup:
    """A share with a bar after it."""
    bar = Markup('<span class="meter"><i style="width:{:.1f}%"></i></span><span class="percent">{:.1%}</span>')
    return bar.format(100 * share, share)


def _layers(profile: Profile, whole: float) -> list[list[str]]:
    summed, rows = 0.0, []
    for name, nodes in profile.by_layer().items():
        summed += total(nodes)
        ours, theirs = total(nodes), profile.torch_layers.get(name)
        faster = times(theirs / ours) if theirs and ours > 0 else NOTHING
        rows.append([
            name, ", ".join(dict.fromkeys(n.op for n in nodes)), f"{ours:.3f}", _share(ours / whole),
            f"{summed / whole:.1%}", f"{theirs:.3f}" if theirs is not None else NOTHING, faster,
        ])  # fmt: skip
    return rows
