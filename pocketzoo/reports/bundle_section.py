"""Report section of one bundle: steps, scores, layers, origin and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pocketzoo.core.typed import to_plain
from pocketzoo.reports.bench_table import scroll
from pocketzoo.reports.compression_steps import reasons, rest_of, steps_table
from pocketzoo.reports.measured.layer_costs import Layer, Layers
from pocketzoo.reports.measured.number_format import NOTHING, Number, kilobytes, plain, short, times
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import Manifest

FEW = 12  # entries of a list that are shown


def bundle_section(bundle: Bundle, index: int, layers: Layers, *, title: str, opened: bool) -> str:
    """The section, folded unless ``opened``."""
    manifest = bundle.manifest
    steps = " \u2192 ".join(step.kind for step in manifest.steps) or "as trained"
    cost = (
        Number(manifest.parameters, "parameters", index).shown(short(manifest.parameters))
        + " parameters, "
        + Number(manifest.macs, "macs", index).shown(short(manifest.macs))
        + " MACs"
    )
    scores = _block("Scores", _facts(manifest.metrics, "metrics", index))
    parts = [
        _steps(manifest, index),
        _layers(layers, f"layers-{index}", reasons(manifest)),
        _files(bundle, index),
        f"<div>{scores}{_block('Model', _facts(_model(bundle), '', index))}</div>",
        _block("Origin", _facts(manifest.provenance, "provenance", index)),
    ]
    return (
        f'<details{" open" if opened else ""}><summary><span class="model">{escape(title)}</span>'
        f'<span class="what">{escape(steps)}</span><span class="cost">{cost}</span></summary>'
        f'<div class="blocks">{"".join(parts)}</div></details>'
    )


def _block(title: str, body: str, kind: str = "") -> str:
    return f'<section class="block {kind}"><h3>{title}</h3>{body}</section>' if body else ""


def _model(bundle: Bundle) -> dict[str, Any]:
    """Fields of the manifest that have no part of the section to themselves."""
    manifest = bundle.manifest
    return {
        "model": to_plain(manifest.model),
        "labels": manifest.labels,
        "input": to_plain(manifest.input),
        "license": manifest.license,
        "created": manifest.created,
        "pocketzoo": manifest.pocketzoo,
    }


def _steps(manifest: Manifest, index: int) -> str:
    if not manifest.steps and not manifest.rejected:
        return ""
    rows = []
    for i, step in enumerate(manifest.steps):
        config = _facts(step.config, f"steps.{i}.config", index)
        rows.append(
            f'<li><h4>{escape(step.kind)}</h4><div class="config">{config}</div>'
            f"{_did(rest_of(step.report), f'steps.{i}.report', index)}</li>"
        )
    return _block("Steps", f'{steps_table(manifest, index)}<ol class="steps">{"".join(rows)}</ol>', "full")


def _did(report: Mapping[str, Any], key: str, index: int) -> str:
    """What a step did: numbers that it tells before and after side by side, and the rest as it is."""
    rest, pairs = dict(report), []
    for name in report:
        what = name.removesuffix("_before")
        old, new = report[name], report.get(f"{what}_after")
        if what == name or not isinstance(old, (int, float)) or not isinstance(new, (int, float)):
            continue
        del rest[name], rest[f"{what}_after"]
        ratio = f' <span class="better">{times(old / new)} fewer</span>' if 0 < new < old else ""
        pairs.append(
            f"{escape(what.replace('_', ' '))} {Number(old, f'{key}.{name}', index).shown(plain(old))} \u2192 "
            f"{Number(new, f'{key}.{what}_after', index).shown(plain(new))}{ratio}"
        )
    return f'<p class="did">{"<br>".join(pairs)}</p>' * bool(pairs) + _facts(rest, key, index)


def _facts(facts: Mapping[str, Any], key: str, index: int) -> str:
    """A nested mapping as a list of names and values."""
    rows = [f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in _flat(facts, "", key, index)]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def _flat(facts: Mapping[str, Any], name: str, key: str, index: int) -> Iterator[tuple[str, str]]:
    for part, value in facts.items():
        here, path = (f"{name}.{part}" if name else str(part)), (f"{key}.{part}" if key else str(part))
        if isinstance(value, Mapping):
            yield from _flat(value, here, path, index)
        elif isinstance(value, (list, tuple)) and any(isinstance(entry, (Mapping, list, tuple)) for entry in value):
            yield from _flat({str(i): entry for i, entry in enumerate(value[:FEW])}, here, path, index)
            if len(value) > FEW:
                yield here, f"\u2026 ({len(value)} entries)"
        else:
            yield here, _value(value, path, index)


def _value(value: Any, path: str, index: int) -> str:
    if value is None or value in ("", [], ()):
        return NOTHING
    if isinstance(value, (list, tuple)):
        if len(value) <= FEW:
            return ", ".join(_value(v, f"{path}.{i}", index) for i, v in enumerate(value))
        last = _value(value[-1], f"{path}.{len(value) - 1}", index)
        return f"{_value(value[0], f'{path}.0', index)} \u2026 {last} ({len(value)} values)"
    if isinstance(value, (int, float)):
        return Number(value, path, index).shown(plain(value))
    text = str(value)
    return f"<code>{escape(text)}</code>" if len(text) >= 32 and " " not in text else escape(text)


def _layers(layers: Layers, name: str, why: Mapping[str, str]) -> str:
    """Each layer once, with the precision that every graph of the bundle has it in, and why where a step says so."""
    if not layers:
        return ""
    merged = _merged(layers)
    first = "".join(f'<th scope="colgroup" class="group" colspan="2">{escape(_graph(t))}</th>' for t in layers)
    second = '<th scope="col" class="first text">precision</th><th scope="col">bytes</th>' * len(layers)
    head = (
        '<tr><th scope="col" rowspan="2">layer</th><th scope="col" rowspan="2" class="text">op</th>'
        '<th scope="col" rowspan="2">parameters</th><th scope="col" rowspan="2">not zero</th>'
        f'<th scope="col" rowspan="2">MACs</th>{first}'
        + '<th scope="col" rowspan="2" class="text">why</th>' * bool(why)
        + f"</tr><tr>{second}</tr>"
    )
    rows = []
    for title, of_graph in merged:
        layer = next(iter(of_graph.values()))
        cells = "".join(_count(number) for number in (layer.parameters, layer.nonzero, layer.macs))
        graphs = "".join(_graph_cells(of_graph.get(target)) for target in layers)
        rows.append(
            f'<tr><th scope="row" class="layer">{escape(title)}</th><td class="text">{escape(layer.op)}</td>'
            f"{cells}{graphs}{_why(why, title)}</tr>"
        )
    shares = [
        f"{sum(layer.precision == 'int8' for layer in of)} of {len(of)} in int8 ({_graph(target)})"
        for target, of in layers.items()
    ]
    caption = f'<caption id="{name}"><span>Weights by layer: {escape("; ".join(shares))}.</span></caption>'
    table = f'<table class="layers">{caption}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return _block("Layers", scroll(table, name), "full")


def _why(why: Mapping[str, str], layer: str) -> str:
    return f'<td class="text why">{escape(why.get(layer, ""))}</td>' if why else ""


def _graph(target: str) -> str:
    return "float graph" if target == "float" else f"for {target}"


def _merged(layers: Layers) -> list[tuple[str, dict[str, Layer]]]:
    """Layer by layer, the graphs that have it; one that a graph has twice is two layers."""
    merged: dict[tuple[str, int], dict[str, Layer]] = {}
    for target, of in layers.items():
        seen: dict[str, int] = {}
        for layer in of:
            seen[layer.name] = seen.get(layer.name, -1) + 1
            merged.setdefault((layer.name, seen[layer.name]), {})[target] = layer
    return [(name, of_graph) for (name, _), of_graph in merged.items()]


def _count(number: Number) -> str:
    return f"<td>{number.shown(f'{number.value:,}')}</td>"


def _graph_cells(layer: Layer | None) -> str:
    if layer is None:
        return f'<td class="first text">{NOTHING}</td><td>{NOTHING}</td>'
    kind = "int8" if layer.precision == "int8" else "float"
    badge = f'<span class="precision {kind}">{escape(layer.precision)}</span>'
    return f'<td class="first text">{badge}</td>{_count(layer.bytes)}'


def _files(bundle: Bundle, index: int) -> str:
    rows = []
    for name, entry in bundle.manifest.files.items():
        runs_on = f"{entry.precision} for {entry.target}" if entry.target else entry.precision
        size = Number(entry.size, f"files.{name}.size", index).shown(kilobytes(entry.size).partition("\u00a0")[0])
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="text">{escape(runs_on) or NOTHING}</td>'
            f'<td>{size}</td><td class="text"><code>{escape(entry.sha256)}</code></td></tr>'
        )
    caption = (
        f'<caption id="files-{index}"><span>Files of the bundle, verified when this page was made.</span></caption>'
    )
    head = (
        '<tr><th scope="col">file</th><th scope="col" class="text">holds</th><th scope="col">KB</th>'
        '<th scope="col" class="text">sha256</th></tr>'
    )
    table = f'<table class="files">{caption}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return _block("Files", scroll(table, f"files-{index}"), "full")
