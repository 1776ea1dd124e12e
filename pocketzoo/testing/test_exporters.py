"""Conformance of exporters: suffix, registered target, and the exported file."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from pocketzoo.core.progress import SILENT
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.testing.subjects import Backbone
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.registry import Entry, Registry


def test_it_is_complete(exporter: Entry, registry: Registry) -> None:
    """Its suffix names a file, and its target is known."""
    if not re.fullmatch(r"\.[a-z0-9]+", exporter.spec.suffix):
        wrong(f"its suffix is {exporter.spec.suffix!r}", 'give a dot and small letters, such as ".onnx"')
    with blaming(f"its target {exporter.spec.default_target!r}", "name a registered target, or declare it"):
        registry.get("target", exporter.spec.default_target)
    if not callable(exporter.spec.export):
        wrong("its export is not a function", "give a function (graph, out, target, progress)")


def test_it_writes_its_file(exporter: Entry, registry: Registry, tinynet: Backbone, tmp_path: Path) -> None:
    """From a graph of tinynet, where that needs no engine builder."""
    if exporter.spec.default_target not in registry.entries("target"):
        pytest.skip("its target is not registered (see test_it_is_complete)")
    target = registry.get("target", exporter.spec.default_target)
    if target.backend and registry.get("backend", target.backend).builds:
        pytest.skip(f"it builds with {target.backend}")
    if isinstance(tinynet.exported, Exception):
        raise tinynet.exported
    graph, out = tmp_path / "model.onnx", tmp_path / f"out{exporter.spec.suffix}"
    onnx.save(tinynet.exported, graph)
    before = graph.read_bytes()
    request = ExportRequest(name="model", input=tinynet.spec.input)
    takes = "(graph, out, target, progress, request)" if exporter.spec.asks else "(graph, out, target, progress)"
    with blaming("export() fails on a graph of tinynet", f"let export take {takes}"):
        exporter.spec.export(graph, out, target, SILENT, *[request] * exporter.spec.asks)
    if out.is_dir() != exporter.spec.folder or not any(p.stat().st_size for p in (out, *out.rglob("*")) if p.is_file()):
        wrong(f"export() wrote no {out.name}", "write the path that is given as out, a folder if it states folder=True")
    if graph.read_bytes() != before:
        wrong("export() changed the graph it was given", "write to out alone")
