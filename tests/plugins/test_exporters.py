from __future__ import annotations

import pytest

from pocketzoo.core.errors import StorageError
from pocketzoo.core.progress import SILENT


def test_the_onnx_exporter_copies_the_graph(registry, tmp_path):
    exporter, target = registry.get("exporter", "onnx"), registry.get("target", "cpu")
    graph, out = tmp_path / "graph.onnx", tmp_path / "new" / "out.onnx"
    graph.write_bytes(b"graph")
    exporter.export(graph, out, target, SILENT)
    assert out.read_bytes() == b"graph"
    assert [p.name for p in out.parent.iterdir()] == ["out.onnx"]


def test_the_onnx_exporter_replaces_a_file_only_when_it_succeeds(registry, tmp_path):
    exporter, target = registry.get("exporter", "onnx"), registry.get("target", "cpu")
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        exporter.export(tmp_path / "missing.onnx", out, target, SILENT)
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_the_onnx_exporter_says_which_place_refuses(registry, tmp_path, refused):
    exporter, target = registry.get("exporter", "onnx"), registry.get("target", "cpu")
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"graph")
    with refused(StorageError, "out.onnx", hint="-o"):
        exporter.export(graph, graph / "out.onnx", target, SILENT)


@pytest.mark.parametrize(
    ("name", "suffix", "target"),
    [
        ("onnx", ".onnx", "cpu"),
        ("triton", ".triton", "cpu"),
        ("trtexec", ".trtexec", "tensorrt"),
    ],
)
def test_what_an_exporter_writes_and_for_whom(registry, name, suffix, target):
    exporter = registry.get("exporter", name)
    assert (exporter.suffix, exporter.default_target) == (suffix, target)
    assert exporter.asks == (name != "onnx")
    assert exporter.folder == (name in ("triton", "trtexec"))
