"""Engines that are built to be measured. TensorRT-RTX builds them without a GPU; to run them takes one."""

from __future__ import annotations

import shutil

import pytest
from artifactgraphs import STATES, encoders, listener

import pocketzoo
from pocketzoo.core.errors import UnknownNameError
from pocketzoo.workflows.bench import bench
from pocketzoo.workflows.bench_engines import engine_candidates
from pocketzoo.zoo.artifacts.pair_encoders import pair_encoders
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.models.import_onnx import open_graph

pytestmark = pytest.mark.engine
pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
RTX = "tensorrt-rtx"


def test_the_float_graph_and_the_encoded_one_become_engines_once_each(fitted, compressed, tmp_path):
    found = engine_candidates([fitted, compressed, fitted], RTX, 4, tmp_path)
    kinds = [(row.bundle, row.target, row.precision) for row in found]
    assert kinds[0] == (fitted.manifest.name, "", "float32")
    assert (compressed.manifest.name, RTX, "int8") in kinds
    assert len({row.graph.read_bytes() for row in found}) == len(found) == len(set(kinds))
    assert {row.runtime for row in found} == {RTX}
    assert all(row.graph.parent == tmp_path for row in found)


def test_an_engine_in_another_precision_is_measured_as_it_is(fitted, tmp_path, monkeypatch):
    path = shutil.copytree(fitted.path, tmp_path / "bundle")
    engine = pocketzoo.export(path, to=RTX, precision="fp16")
    bundle = read_bundle(path)
    (tmp_path / "made").mkdir()
    found = engine_candidates([bundle], RTX, 4, tmp_path / "made")
    assert [(row.precision, row.graph == engine) for row in found] == [("float32", False), ("fp16", True)]
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "elsewhere"))  # it was not built there
    assert [row.precision for row in engine_candidates([bundle], RTX, 4, tmp_path / "made")] == ["float32"]


def test_each_graph_of_a_pair_becomes_an_engine_and_a_state_stays_with_its_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    encoders(tmp_path)
    listener(tmp_path / "listener.onnx")
    pair = pair_encoders({name: tmp_path / f"{name}.onnx" for name in ("image", "words")}, tmp_path / "pair")
    stateful = open_graph(tmp_path / "listener.onnx", states=STATES)
    place = tmp_path / "made"
    place.mkdir()
    of_pair, of_state = engine_candidates([pair, stateful], RTX, 4, place)
    assert (of_pair.artifact.driver, list(of_pair.artifact.graphs)) == ("dual", ["image", "words"])
    assert (of_state.artifact.driver, of_state.artifact.states) == ("stateful", STATES)
    for row in (of_pair, of_state):
        assert {path.suffix for path in row.files} == {".engine"}
        assert row.bytes == sum(path.stat().st_size for path in row.files)
    assert len({*of_pair.files, *of_state.files}) == 3


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_nothing_is_built_and_it_says_what_runs(fitted, refused):
    with refused(UnknownNameError, "'tensorrt-rtx' does not work here", "no NVIDIA GPU", hint="onnxruntime"):
        bench([fitted.path], runtimes=[RTX])


@pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU: an engine runs on nothing else")
def test_engines_are_measured_beside_the_graph(fitted):
    rows = bench([fitted.path], runtimes=["onnxruntime", RTX], batch_sizes=(1, 2), seconds=0.05, memory=False)
    assert [row.runtime for row in rows] == ["onnxruntime", RTX]
    assert rows[1].agreement == pytest.approx(1, abs=0.02)
