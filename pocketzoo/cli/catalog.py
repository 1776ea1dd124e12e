"""Commands about what is registered and installed: list, info, plugins, new-plugin, doctor."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import json_option, names, out_option, resolver
from pocketzoo.cli.render import Bars, flat, print_columns, print_json

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.plugin_manager import Plugin
from pocketzoo.core.errors import UnknownNameError
from pocketzoo.zoo.catalog.kinds import KINDS

FEW = 16  # inputs or outputs that are shown
STATES = {"input": "from {} of the call before", "output": "to {} at the next call"}


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's cycle collector, which looks through 10,000 specs so often that list takes a third longer.

    Nor when the process ends, as if somebody could still need their memory: that takes a sixth.
    """
    was = gc.isenabled()
    gc.disable()
    atexit.unregister(gc.freeze)  # once is enough
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was:
            gc.enable()


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Show only this kind, with its facts.")
@json_option
@_uncollected()
def list_(pattern: str, kind: str | None, as_json: bool) -> None:
    """List registered names, all or by glob.

    PATTERN is a name or a glob such as "efficientnet*".
    """
    from pocketzoo.zoo.catalog.registry import default_registry, list_specs

    entries = list_specs(pattern, kind)
    if as_json:
        print_json([{"kind": e.kind, "name": e.name, "summary": e.spec.summary, "plugin": e.plugin} for e in entries])
    elif entries and kind is not None:
        from pocketzoo.cli.listed_facts import rows

        print_columns(rows(kind, entries))
    elif entries:
        print_columns([(e.kind, e.name, e.plugin, e.spec.summary) for e in entries])
    else:
        near = [e.name for e in list_specs(f"*{pattern}*", kind)]
        hint = f'try: pocketzoo list "*{pattern}*"' if near else "see all of it: pocketzoo list"
        hint = default_registry().hint(hint, *(KINDS if kind is None else [kind]))
        raise UnknownNameError(f"nothing is registered that matches {pattern!r}", hint)


@click.command()
@click.argument("name", metavar="NAME|MODEL", shell_complete=names(*KINDS))
@graph_options("name")
@click.option("--provenance", is_flag=True, help="Bill of materials of a model: origin, data, steps, digests.")
@json_option
def info(name: str, provenance: bool, as_json: bool) -> None:
    """Show details of a registered name or a model.

    A model of the Hub (hf://org/name) is pulled first.
    """
    if provenance:
        from pocketzoo.zoo.models.materials import materials

        facts = materials(name, registry=resolver(), progress=Bars())
    else:
        from pocketzoo.zoo.models.info import info

        facts = info(name, registry=resolver(), progress=Bars())
    if as_json:
        print_json(facts)
    else:
        shown = _shown_bill(facts) if provenance else _shown(facts)
        print_columns([list(row) for row in flat(shown) if row[1] not in ("", "{}")])


def _shown_bill(facts: dict[str, Any]) -> dict[str, Any]:
    """Every step and digest in full, one per line."""
    steps = {f"{i}. {step['compressor']}": step for i, step in enumerate(facts.get("steps", ()), 1)}
    refused = {no["compressor"]: no.get("why", "") for no in facts.get("rejected", ())}
    files = {name: f"sha256 {file['sha256']}, {file['bytes']:,} bytes" for name, file in facts["files"].items()}
    data: dict[str, Any] = {
        part: {"digest" if key == "sha256" else key: value for key, value in facts[part].items()}
        for part in ("data", "calibration")
        if part in facts
    }
    return {**facts, "steps": steps, "rejected": refused, **data, "files": files}


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    """What is worth a line: long tables are in --json and in the report."""
    shown = {k: v for k, v in facts.items() if k not in ("layers", "measurements")}
    if "provenance" in facts:
        shown["provenance"] = {k: v for k, v in facts["provenance"].items() if k != "packages"}  # --provenance has them
        data = facts["provenance"].get("data", {})
        if "findings" in data:
            findings = {k: v for k, v in data["findings"].items() if k != "classes"}
            shown["provenance"]["data"] = {**data, "findings": findings}
    if "bundle" in shown:
        shown.pop("signature", None)
        shown = {
            **{k: v for k, v in shown.items() if k != "files"},
            **_tensors(shown["bundle"]),
            "files": shown["files"],
        }
    if "steps" in shown:
        shown["steps"] = [step["compressor"] for step in shown["steps"]]
    if "files" in shown:
        shown["files"] = {name: f"{e['size']:,} bytes" for name, e in shown["files"].items()}
    if "backbone" in shown:
        cuts = {cut["layer"]: " x ".join(map(str, cut["features"]["shape"])) for cut in shown["backbone"]["cuts"]}
        shown["backbone"] = {**shown["backbone"], "cuts": cuts}
    return shown


def _tensors(bundle: str) -> dict[str, dict[str, str]]:
    """Inputs and outputs of a model and its graphs: name -> type and axes, in a line."""
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.bundles.bundle_tensors import bundle_tensors

    sides: dict[str, dict[str, str]] = {"inputs": {}, "outputs": {}}
    for each in bundle_tensors(read_bundle(bundle)):
        facts = [f"{each.dtype} {' x '.join(map(str, each.axes)) or 'one number'}"]
        if each.batch != 0:
            facts.append("no axis for samples" if each.batch is None else f"samples along axis {each.batch}")
        if each.state:
            facts.append(STATES[each.role].format(each.state))
        for sqnr in each.sqnr:
            shown = "equal" if sqnr.value is None else f"{sqnr.value:.1f} dB"
            facts.append(f"{shown} for {sqnr.target}" + (f" ({sqnr.made_samples})" if sqnr.made_samples else ""))
        sides[f"{each.role}s"][f"{each.graph}.{each.name}" if each.graph else each.name] = ", ".join(facts)
    return {side: _first(lines) for side, lines in sides.items()}


def _first(lines: dict[str, str]) -> dict[str, str]:
    """The first ``FEW``: a large decoder has a hundred caches."""
    more = len(lines) - FEW
    return lines if more < 2 else {**dict(list(lines.items())[:FEW]), "more": f"{more}, see the report"}


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List plugins, and why one could not be loaded."""
    from pocketzoo.zoo.catalog.registry import list_plugins

    entries = list_plugins()
    if as_json:
        print_json(entries)
    else:
        print_columns([[p.name, p.origin, _status(p)] for p in entries])


def _status(plugin: Plugin) -> str:
    if not plugin.reason:
        return "ok"
    return f"{'in part not' if plugin.partly else 'not'} in use: {plugin.reason}"


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["backbone", "head", "task", "processor", "backend", "compressor", "target"]),
    help="What it declares [default: a backbone and a head].",
)
@out_option(required=False, text="Folder to write [default: NAME].")
def new_plugin(name: str, kind: str | None, out: Path | None) -> None:
    """Create a plugin package, which works, with its tests.

    NAME is lowercase words joined by "-", such as my-backbone.
    """
    from pocketzoo.workflows.new_plugin import new_plugin

    folder = new_plugin(name, out, kind=kind)
    echo(f"wrote {folder}; next:")
    print_columns([["", f'pip install --editable "{folder}[test]"'], ["", f"python -m pytest {folder}"]])


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this installation, its runtimes and GPUs.

    Tries each runtime, engine builder and GPU, and says what to install where one does not work.
    """
    from pocketzoo.deploy.device.doctor import doctor

    checks = doctor()
    if as_json:
        print_json(checks)
    else:
        rows = [["ok" if c.works else "--", c.name, c.detail + (f"; {c.fix}" if c.fix else "")] for c in checks]
        print_columns(rows)
