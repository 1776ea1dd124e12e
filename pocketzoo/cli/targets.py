"""Commands about targets: targets, check."""

from __future__ import annotations

import sys

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import json_option, names, resolver
from pocketzoo.cli.render import Bars, print_columns, print_json


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """List targets, and what this machine can do for them."""
    from pocketzoo.zoo.backends.available_targets import list_targets

    entries = list_targets()
    if as_json:
        print_json(entries)
        return
    rows = [["target", "computes in", "int8", "back end", "here", "what it is"]]
    reasons: dict[str, list[str]] = {}
    for each in entries:
        target, int8 = each.target, each.target.int8
        can = ["builds"] * each.builds + ["runs"] * each.runs
        encoding = f"{int8.activations}{', symmetric' if int8.symmetric else ''}"
        runs = [each.backend or "-", ", ".join(can) or "-", target.summary]
        rows.append([target.name, " ".join(target.precisions), encoding, *runs])
        if each.why:
            reasons.setdefault(f"{each.why}; {each.fix}", []).append(target.name)
    print_columns(rows)
    echo()
    for reason, of in reasons.items():
        echo(f"{', '.join(of)}: {reason}")


@click.command()
@click.argument("model", metavar="MODEL|FILE.onnx|FILE.engine", shell_complete=names("backbone"))
@graph_options("model", raw=True)
@click.option("--target", required=True, shell_complete=names("target"), help="Target to check against.")
@click.option("--dla", is_flag=True, help="For its deep learning accelerator: which nodes fall back to the GPU.")
@json_option
def check(model: str, target: str, dla: bool, as_json: bool) -> None:
    """Check which nodes a target rejects or runs slowly.

    Each finding says what to do. Nothing is built; the parser or runtime of the target is asked as well where it is
    installed. An engine is loaded on the GPU. Exit code 1: the target rejects the model.
    """
    from pocketzoo.deploy.check.check_model import check

    report = check(model, target, dla=dla, registry=resolver(), progress=Bars())
    if as_json:
        print_json(report)
    else:
        echo(f"{report.graph} for {report.target}: {report.nodes} nodes; {report.asked}")
        for finding in report.findings:
            color = {"refused": "red", "slow": "yellow", "note": "cyan"}[finding.level]
            echo(finding.what, mark=f"{finding.level:8}", color=color)
            echo(f"{'':8}{_shortened(finding.nodes)}" if finding.nodes else "", nl=bool(finding.nodes))
            echo(f"{'':8}do: {finding.todo}")
        if not report.findings:
            echo("nothing found")
    if report.refused:
        sys.exit(1)


def _shortened(nodes: tuple[str, ...]) -> str:
    shown = ", ".join(nodes[:4])
    return f"{shown}, ... ({len(nodes)})" if len(nodes) > 4 else shown
