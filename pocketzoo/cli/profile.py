"""The command that profiles a model: profile."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import THREADS, Whole, json_option, model_argument, names, resolver
from pocketzoo.cli.render import Bars, print_columns, print_json


@click.command()
@model_argument
@graph_options("model")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    shell_complete=names("target"),
    help="Target of the graph; float: the float graph.",
)
@click.option("--batch", type=Whole(1), default=1, show_default=True, help="Batch size.")
@click.option("--length", type=Whole(1), help="Sequence length, for text models.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Threads of the runtime; 0: all cores.")
@click.option("--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Time to run each model.")
@click.option("--torch/--no-torch", default=None, help="Profile the module too [default: if torch is installed].")
@click.option("--top", type=Whole(1), default=20, show_default=True, help="Number of layers to print.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="HTML page to write.")
@json_option
def profile(
    model: str,
    target: str,
    batch: int,
    length: int | None,
    threads: int,
    seconds: float,
    torch: bool | None,
    top: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show where MODEL spends its time, layer by layer.

    Times every node that onnxruntime runs, after fusion, and every layer of the
    torch module. With -o the graph is drawn, colored by fraction of time.
    """
    from pocketzoo.measure.profile import profile, total
    from pocketzoo.reports.html_page import check_page
    from pocketzoo.reports.profile_page import headline, save_page, setting

    if out:
        check_page(out)
    node_profile = profile(
        model,
        target="" if target == "float" else target,
        batch=batch,
        length=length,
        threads=threads,
        seconds=seconds,
        torch=torch,
        registry=resolver(),
        progress=Bars(),
    )
    if out:
        save_page(node_profile, out)
    if as_json:
        print_json(node_profile)
        return
    whole, summed = total(node_profile.nodes) or 1.0, 0.0
    echo(f"{setting(node_profile)}\n{headline(node_profile)}\n")
    rows = [["operator", "nodes", "on", "ms", "fraction"]]
    for op, nodes in node_profile.by_operator().items():
        kinds = ", ".join(sorted({node.kind for node in nodes}))
        rows.append([op, str(len(nodes)), kinds, f"{total(nodes):.3f}", f"{total(nodes) / whole:.1%}"])
    print_columns(rows)
    echo()
    layers = node_profile.by_layer()
    rows = [["layer", "nodes", "ms", "fraction", "cumulative", "torch ms"]]
    for name, nodes in list(layers.items())[:top]:
        summed += total(nodes)
        ops = ", ".join(dict.fromkeys(node.op for node in nodes))
        theirs = node_profile.torch_layers.get(name)
        shares = [f"{total(nodes) / whole:.1%}", f"{summed / whole:.1%}", "-" if theirs is None else f"{theirs:.3f}"]
        rows.append([name, ops, f"{total(nodes):.3f}", *shares])
    print_columns(rows)
    if len(layers) > top:
        echo(f"and {len(layers) - top} more: see --top, or -o for a page")
    if node_profile.target:
        left = node_profile.left_in_float
        echo(f"\nleft in float: {len(left) or 'no layer with weights'}")
        print_columns([["", each.layer, f"{each.ms:.3f} ms", each.why] for each in left])
    if out:
        echo(f"\nwrote {out}")
