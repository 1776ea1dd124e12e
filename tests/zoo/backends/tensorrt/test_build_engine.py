"""NVIDIA's parser and builder on real graphs. TensorRT-RTX builds engines without a GPU; running one needs it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from told import Told

from pocketzoo.core.errors import ExportError, MissingDependencyError
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.build_engine import (
    _refused_by_builder,
    check_engine,
    layer_precisions,
    refit_engine,
    refusals,
    save_engine,
)
from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.catalog.engine_options import EngineOptions

TARGETS = {t.name: t for t in pocketzoo_targets()}
RTX = TARGETS["tensorrt-rtx"]

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
pytestmark = pytest.mark.engine


def small(op: str = "Conv") -> onnx.ModelProto:
    """x (batch, 3, 8, 8) -> one layer."""
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    onnx.save(small(), path)
    return path


def test_a_float_graph_becomes_an_engine(graph, tmp_path):
    out = tmp_path / "out" / "model.engine"
    save_engine(graph, out, RTX)
    assert out.stat().st_size > 1000
    assert [p.name for p in out.parent.iterdir()] == ["model.engine"]
    assert set(layer_precisions(graph, RTX).values()) <= {"FLOAT", "INT64", "INT32"}


def test_a_builder_that_only_a_cycle_keeps_is_not_destroyed_while_another_starts(graph):
    """Its destructor would wait for a lock that the start of the other holds while it calls the logger."""
    script = f"""
import gc, tensorrt_rtx as trt
from pathlib import Path
from pocketzoo.zoo.backends.tensorrt import build_engine as tensorrt

plain, kept = tensorrt.make_logger, []

def eager(trt):
    class Logger(type(plain(trt))):
        def log(self, severity, message):
            kept.clear()
            gc.set_threshold(1)
            [[] for _ in range(10)]  # which wakes the collector, if it is not off
    return Logger()

tensorrt.make_logger = eager
gc.set_threshold(1_000_000)
cycle = [trt.Builder(trt.Logger(trt.Logger.ERROR))]
cycle.append(cycle)
kept.append(cycle)
del cycle
assert tensorrt.refusals(Path({str(graph)!r}), "tensorrt_rtx") == []
assert not kept
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_graphs_of_a_real_model_become_engines(fitted, compressed, tmp_path):
    for name, path in {"float": fitted.graph(""), "int8": compressed.graph("tensorrt-rtx")}.items():
        save_engine(path, tmp_path / f"{name}.engine", RTX)
    assert {p.stem for p in tmp_path.iterdir() if p.stat().st_size > 10_000} == {"float", "int8"}


def test_the_engine_reads_any_batch_of_its_profile(graph, tmp_path):
    import tensorrt_rtx as trt

    save_engine(graph, tmp_path / "m.engine", RTX, options=EngineOptions(shapes={"batch": (1, 4, 16)}))
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine((tmp_path / "m.engine").read_bytes())
    if engine is None:
        pytest.skip("this machine has no GPU to load an engine on")
    shapes = [tuple(s) for s in engine.get_tensor_profile_shape("x", 0)]
    assert shapes == [(1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8)]


def test_int8_layers_are_int8_in_nvidias_network(compressed):
    found = layer_precisions(compressed.graph("tensorrt-rtx"), RTX)
    count = Counter(found.values())
    assert count["INT8"] >= len(compressed.manifest.steps[-1].plan["layers"])
    assert "HALF" not in count


def test_the_cpus_encoding_is_refused_and_no_file_is_left(compressed, tmp_path, refused):
    with refused(ExportError, "parser refuses model.int8.cpu.onnx", hint="--target tensorrt-rtx"):
        save_engine(compressed.graph("cpu"), tmp_path / "m.engine", RTX)
    assert list(tmp_path.iterdir()) == []
    with refused(ExportError, "parser refuses"):
        layer_precisions(compressed.graph("cpu"), RTX)


def test_what_the_parser_says_of_many_nodes_is_said_once(tmp_path):
    """Of an operator it knows by name alone it says that something is false."""
    nodes = [helper.make_node("DynamicQuantizeLinear", [x], [f"{x}q", f"{x}s", f"{x}z"]) for x in ("x", "u")]
    nodes += [
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["u"]),
        helper.make_node("DequantizeLinear", ["uq", "us", "uz"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    model = helper.make_graph([nodes[0], nodes[2], nodes[1], nodes[3]], "g", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    said = refusals(path, "tensorrt_rtx")
    assert "it does not support DynamicQuantizeLinear (2 times)" in said
    assert len(set(said)) == len(said)


def test_an_operator_nvidia_does_not_know_is_named(graph, tmp_path, refused):
    model = small()
    node = helper.make_node("Nonsense", ["y"], ["z"], name="the_odd_one", domain="elsewhere")
    model.graph.node.append(node)
    model.graph.output[0].name = "z"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    onnx.save(model, graph)
    with refused(ExportError, "the_odd_one"):
        save_engine(graph, tmp_path / "m.engine", RTX)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x0a"])
def test_a_file_that_is_no_graph_is_refused(content, graph, tmp_path, refused):
    graph.write_bytes(content)
    with refused(ExportError, "model.onnx"):
        save_engine(graph, tmp_path / "m.engine", RTX)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_engine_that_is_there_survives_a_failure(compressed, graph, tmp_path, refused):
    out = tmp_path / "m.engine"
    save_engine(graph, out, RTX)
    before = out.read_bytes()
    with refused(ExportError, "refuses"):
        save_engine(compressed.graph("cpu"), out, RTX)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "m.engine"]


def test_progress_tells_what_the_builder_does(graph, tmp_path):
    recorder = Told()
    save_engine(graph, tmp_path / "m.engine", RTX, cache=EngineCache(tmp_path / "c"), progress=recorder)
    (said,) = recorder.said
    assert said.startswith("building the engine with tensorrt_rtx ")
    assert said.endswith(" for batch 1 to 32 (best 8)")


def test_a_target_without_engines_says_which_has(graph, tmp_path, refused):
    with refused(ExportError, "'cpu' has no engines", hint="--target tensorrt-rtx"):
        save_engine(graph, tmp_path / "m.engine", TARGETS["cpu"])


def test_a_missing_package_is_named_with_its_extra(graph, tmp_path, refused):
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with refused(MissingDependencyError, "'tensorrt'", hint="pip install 'pocketzoo[tensorrt]'"):
            save_engine(graph, tmp_path / "m.engine", TARGETS["tensorrt"])
        with refused(MissingDependencyError, "'tensorrt'", hint="pip install 'pocketzoo[tensorrt]'"):
            layer_precisions(graph, TARGETS["tensorrt"])
        assert [p.name for p in tmp_path.iterdir()] == ["in"]
    else:
        pytest.skip("tensorrt is installed here")


def test_tensorrt_builds_as_well(graph, tmp_path):
    pytest.importorskip("tensorrt", reason="TensorRT is not installed; it builds on a GPU only")
    save_engine(graph, tmp_path / "m.engine", TARGETS["tensorrt"])
    assert (tmp_path / "m.engine").stat().st_size > 1000


# -- lengths


def axes(tmp_path, *names):
    """A graph whose input has free axes of these names."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*names, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [*names, 4])],
    )
    path = tmp_path / "axes.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "batch 1 to 32 (best 8), sequence 1 to 32 (best 8)"),
        ({"shapes": {"sequence": (1, 128, 256)}}, "batch 1 to 32 (best 8), sequence 1 to 256 (best 128)"),
        ({"shapes": {"batch": (4, 4, 4)}, "others": (2, 3, 5)}, "batch 4 to 4 (best 4), sequence 2 to 5 (best 3)"),
        ({"usual": {"sequence": (1, 7, 9), "nowhere": (1, 1, 1)}}, "sequence 1 to 9 (best 7)"),
    ],
)
def test_each_axis_has_lengths_of_its_own(tmp_path, options, says):
    recorder, cache = Told(), EngineCache(tmp_path / "c")
    path = axes(tmp_path, "batch", "sequence")
    save_engine(path, tmp_path / "m.engine", RTX, options=EngineOptions(**options), cache=cache, progress=recorder)
    assert recorder.said[0].endswith(says)


def test_lengths_of_an_axis_that_is_not_there_are_refused(tmp_path, refused):
    options = EngineOptions(shapes={"sequenze": (1, 1, 1)})
    with refused(ExportError, "no dynamic axis 'sequenze'", hint="'sequence'"):
        save_engine(axes(tmp_path, "batch", "sequence"), tmp_path / "m.engine", RTX, options=options)
    assert not (tmp_path / "m.engine").exists()


# -- the cache


def test_the_second_engine_of_a_graph_is_a_copy_and_that_is_said(graph, tmp_path):
    cache, heard = EngineCache(tmp_path / "c"), Told()
    for name in ("one", "two"):
        save_engine(graph, tmp_path / name, RTX, cache=cache, progress=heard)
    assert [said.split(" ")[0] for said in heard.said] == ["building", "engine"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    options = EngineOptions(shapes={"batch": (1, 1, 2)})
    save_engine(graph, tmp_path / "three", RTX, options=options, cache=cache, progress=heard)
    assert heard.said[-1].endswith("for batch 1 to 2 (best 1)")


def test_what_was_refused_is_not_kept(compressed, tmp_path, refused):
    cache = EngineCache(tmp_path / "c")
    with refused(ExportError, "parser refuses"):
        save_engine(compressed.graph("cpu"), tmp_path / "m", RTX, cache=cache)
    assert not cache.root.exists()


# -- what an engine can be asked for


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"workspace": 64}, "", ""),
        (
            {"workspace": 1},
            "out of memory (this machine has no GPU, workspace limit 1 MiB)",
            "build for smaller sizes than 1:8:32: --shape batch=1:4:8; or a larger --workspace",
        ),
        ({"hardware_compatible": True}, "", ""),
        ({"dla": 0, "shapes": {"batch": (8, 8, 8)}}, "this machine has no DLA core", "--dla"),
        ({"stripped": True}, "without weights: that needs a GPU", "--strip"),
        ({"version_compatible": True}, "lean runtime is not installed", "--version-compatible"),
    ],
)
def test_options_are_set_or_refused_with_the_reason(graph, tmp_path, options, what, hint, refused):
    if find_gpu() is not None and what:
        pytest.skip("this machine has a GPU")
    out, cache = tmp_path / "m.engine", EngineCache(tmp_path / "c")
    if not what:
        save_engine(graph, out, RTX, options=EngineOptions(**options), cache=cache)
        assert out.stat().st_size > 1000
        return
    with refused(ExportError, what, hint=hint):
        save_engine(graph, out, RTX, options=EngineOptions(**options), cache=cache)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_stripped_engine_gets_its_weights_back_on_the_device(graph, tmp_path):
    if find_gpu() is None:
        pytest.skip("stripping and refitting weights need a driver")
    save_engine(graph, tmp_path / "m.engine", RTX, options=EngineOptions(stripped=True))
    refit_engine(tmp_path / "m.engine", graph, tmp_path / "whole.engine", RTX)
    check_engine(tmp_path / "whole.engine", RTX)


@pytest.mark.parametrize(
    ("workspace", "limit", "more"), [(0, "", ""), (64, ", workspace limit 64 MiB", "; or a larger --workspace")]
)
def test_a_larger_workspace_is_told_of_where_it_was_limited(graph, workspace, limit, more):
    logger = SimpleNamespace(errors=["Requested amount of GPU memory: out of memory"], last="no tactic")
    error = _refused_by_builder(graph, RTX, logger, EngineOptions(workspace=workspace), None)
    what = f"{RTX.facts.module} cannot build an engine of {graph.name}"
    assert error.message == f"{what}: out of memory (this machine has no GPU{limit}): no tactic"
    assert error.hint == f"build for smaller sizes than 1:8:32: --shape batch=1:4:8{more}"
