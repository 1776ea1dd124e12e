"""Report section of one bundle: steps, scores, layers, origin and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pocketzoo.core.typed import to_plain
from pocketzoo.reports.bench_table import precision
from pocketzoo.reports.compression_steps import reasons, rest_of, steps_table
from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.layer_costs import Layer, Layers
from pocketzoo.reports.measured.number_format import NOTHING, Number, kilobytes, plain, short
from pocketzoo.reports.tensors_section import tensors_table
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.bundle_tensors import bundle_tensors
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.described import SHIPS
from pocketzoo.zoo.graphs.layer_cost import FLOATS

FEW = 12  # entries of a list that are shown


def bundle_section(bundle: Bundle, index: int, layers: Layers, *, title: str, opened: bool) -> Markup:
    """The section, folded unless ``opened``."""
    manifest = bundle.manifest
    shown = {layer.name for of_graph in layers.values() for layer in of_graph}
    return render(
        "bundle.html",
        title=title,
        opened=opened,
        what=" \u2192 ".join(step.compressor for step in manifest.steps) or "as trained",
        parameters=Number(manifest.parameters, "parameters", index).shown(short(manifest.parameters)),
        macs=Number(manifest.macs, "macs", index).shown(short(manifest.macs)),
        table_of_steps=steps_table(manifest, index),
        steps=[_step(step, f"steps.{i}", index, shown) for i, step in enumerate(manifest.steps)],
        rejected=manifest.rejected,
        tensors=tensors_table(bundle_tensors(bundle), f"tensors-{index}", index),
        layers=_layers(layers, f"layers-{index}", reasons(manifest)) if layers else None,
        files=_files(bundle, index),
        scores=_facts(manifest.metrics, "metrics", index),
        model=_facts(_model(bundle), "", index),
        origin=_facts(manifest.provenance, "provenance", index),
    )


def _model(bundle: Bundle) -> dict[str, Any]:
    """Fields of the manifest that have no part of the section to themselves."""
    manifest = bundle.manifest
    return {
        "model": to_plain(manifest.model),
        "labels": manifest.labels,
        "processor": to_plain(manifest.processor),
        "license": manifest.license,
        "created": manifest.created,
        "pocketzoo": manifest.pocketzoo,
    }


def _step(step: StepRecord, key: str, index: int, shown: Collection[str]) -> dict[str, Any]:
    """What a step did, as far as the tables do not show it; ``shown`` are the layers that one of them has."""
    others = [(d.layer, f"{d.what}: {d.why}" if d.why else d.what) for d in step.decisions if d.layer not in shown]
    more = [("", f"\u2026 ({len(others)} layers)")] * (len(others) > FEW)
    return {
        "compressor": step.compressor,
        "provider": "" if step.provider in ("", SHIPS) else step.provider,
        "config": _facts(step.config, f"{key}.config", index),
        "report": _facts(rest_of(step.report), f"{key}.report", index),
        "decisions": others[:FEW] + more,
    }


def _facts(facts: Mapping[str, Any], key: str, index: int) -> list[tuple[str, Markup | str]]:
    """A nested mapping as a list of names and values."""
    return list(_flat(facts, "", key, index))


def _flat(facts: Mapping[str, Any], name: str, key: str, index: int) -> Iterator[tuple[str, Markup | str]]:
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


def _value(value: Any, path: str, index: int) -> Markup | str:
    if value is None or value in ("", [], ()):
        return NOTHING
    if isinstance(value, (list, tuple)):
        if len(value) <= FEW:
            return Markup(", ").join(_value(v, f"{path}.{i}", index) for i, v in enumerate(value))
        first, last = (_value(value[i], f"{path}.{i}", index) for i in (0, len(value) - 1))
        return Markup("{} \u2026 {} ({} values)").format(first, last, len(value))
    if isinstance(value, (int, float)):
        return Number(value, path, index).shown(plain(value))
    text = str(value)
    return Markup("<code>{}</code>").format(text) if len(text) >= 32 and " " not in text else text


def _layers(layers: Layers, name: str, why: Mapping[str, str]) -> dict[str, Any]:
    """Each layer once, with the precision that every graph of the bundle has it in, and why where a step says so."""
    rows = []
    for title, of_graph in _merged(layers):
        layer = next(iter(of_graph.values()))
        rows.append({
            "name": title,
            "op": layer.op,
            "counts": [_count(number) for number in (layer.parameters, layer.nonzero, layer.macs)],
            "graphs": [_graph_cells(of_graph.get(target)) for target in layers],
            "why": why.get(title, ""),
        })  # fmt: skip
    shares = [f"{_counted(of)} ({_graph(target)})" for target, of in layers.items()]
    graphs = [_graph(target) for target in layers]
    caption = f"Weights by layer: {'; '.join(shares)}."
    return {"name": name, "caption": caption, "graphs": graphs, "why": bool(why), "rows": rows}


def _counted(layers: Sequence[Layer]) -> str:
    """How many layers of a graph are in which precision: "3 of 5 in int8"."""
    counts = Counter(layer.precision for layer in layers if layer.precision not in FLOATS)
    return ", ".join(f"{n} of {len(layers)} in {name}" for name, n in counts.items()) or f"all {len(layers)} in floats"


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


def _count(number: Number) -> Markup:
    return number.shown(f"{number.value:,}")


def _graph_cells(layer: Layer | None) -> dict[str, Markup]:
    if layer is None:
        return {"precision": NOTHING, "bytes": NOTHING}
    return {"precision": precision(layer.precision), "bytes": _count(layer.bytes)}


def _files(bundle: Bundle, index: int) -> dict[str, Any]:
    rows = []
    for name, entry in bundle.manifest.files.items():
        runs_on = f"{entry.precision} for {entry.target}" if entry.target else entry.precision
        size = Number(entry.size, f"files.{name}.size", index).shown(kilobytes(entry.size).partition("\u00a0")[0])
        rows.append({"name": name, "runs_on": runs_on or NOTHING, "size": size, "sha256": entry.sha256})
    return {"name": f"files-{index}", "rows": rows}
