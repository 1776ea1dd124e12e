from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.cli.render import print_timings
from pocketzoo.core.errors import BundleError
from pocketzoo.measure.peak_memory import NotMeasured, peak_memory
from pocketzoo.reports.bench_table import measurement_table
from pocketzoo.reports.measured.bench_runs import BenchRun
from pocketzoo.zoo.backends.runtimes import CPU
from pocketzoo.zoo.bundles.measurement import Latency, Measurement, Memory
from pocketzoo.zoo.catalog.backend import RuntimeSpec
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry, default_registry

MB = 1_000_000


def scaled(path: Path, width: int) -> Path:
    """(B, 4) to (B, 4) through a layer of ``width`` whose weights take 32 bytes for each of it."""
    weights = [np.ones((4, width), np.float32), np.ones((width, 4), np.float32)]
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("MatMul", ["h", "w1"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def held(graph: Path, batch: int = 1) -> Memory:
    memory = peak_memory(CPU, graph, None, {"x": np.ones((batch, 4), np.float32)}, 1)
    assert isinstance(memory, Memory)
    return memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_weights_and_activations_are_in_the_peak_and_this_process_is_not(tmp_path):
    """The process that asks holds 200 MB more than it needs, which its child must not be charged with."""
    ballast = np.ones(200 * MB, np.uint8)
    small, large = held(scaled(tmp_path / "s.onnx", 1)), held(scaled(tmp_path / "l.onnx", 2 * MB))
    assert ballast.sum() == 200 * MB
    assert small.peak < 150 * MB
    assert small.model < 32 * MB
    assert large.model - small.model > 60 * MB
    batched = held(scaled(tmp_path / "b.onnx", MB // 4), batch=64)  # 64 MB between the layers, 8 MB of weights
    assert batched.model - small.model > 64 * MB


def test_a_graph_that_does_not_run_is_refused(tmp_path, refused):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with refused(BundleError, str(broken), "process of its own: onnxruntime does not load"):  # the reason, not a hint
        peak_memory(CPU, broken, None, {"x": np.ones((1, 4), np.float32)}, 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_a_back_end_that_no_other_process_can_import_is_said(tmp_path, capsys):
    """Its module was made here and has no file."""
    made = ModuleType("made_here")
    spec = replace(default_registry().get("backend", "onnxruntime"), name="made-here",
                   runtimes=(RuntimeSpec(name="made-here"),))  # fmt: skip
    made.pocketzoo_backends = hookimpl(lambda: [spec])
    registry = Registry(create_manager(points=[], extra=[made]))
    graph = scaled(tmp_path / "g.onnx", 1)
    memory = peak_memory("made-here", graph, None, {"x": np.ones((1, 4), np.float32)}, 1, registry)
    assert memory == NotMeasured("no other process can import the back end of made-here")
    row = Measurement(bundle="g", target="", precision="float32", runtime="made-here", bytes=1, parameters=1, macs=1,
                      samples=1, agreement=None, sqnr=None, latency={"1": Latency(p50=1.0, p99=1.0)},
                      no_memory=memory.why)  # fmt: skip
    print_timings([row])
    assert f"no peak for float32, made-here: {memory.why}" in capsys.readouterr().out
    assert "Memory was not measured for float32 on made-here" in measurement_table(BenchRun(0, (row,)), "t")
