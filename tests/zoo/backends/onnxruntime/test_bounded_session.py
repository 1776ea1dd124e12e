"""Every run of a graph ends: by itself, or when its time is over."""

from __future__ import annotations

import gc
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from endlessgraphs import endless_bundle, loop
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import DataError, TooLargeError
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.deploy.export import export
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.measure.profile import profile
from pocketzoo.workflows.bench import bench
from pocketzoo.zoo.backends.onnxruntime.bounded_session import Watch
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.onnxruntime.session import open_session


@pytest.fixture
def graph(tmp_path):
    nodes, constants = loop("i", "o")
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 4]) for name in "io"]
    made = helper.make_graph(nodes, "g", shape[:1], shape[1:], constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


@pytest.fixture(autouse=True)
def one_second(monkeypatch):
    monkeypatch.setenv("POCKETZOO_MAX_RUN_SECONDS", "1")


X = {"i": np.zeros((1, 4), np.float32)}
TOO_LONG = {"hint": "set POCKETZOO_MAX_RUN_SECONDS higher"}


def test_a_run_stops_and_the_session_is_as_good_as_before(graph, refused):
    with OnnxRunner(graph) as runner:
        for out in (None, {"o": np.zeros((1, 4), np.float32)}, None):
            with refused(TooLargeError, "g.onnx runs longer than 1 second", **TOO_LONG):
                runner.infer(X, out)


def test_more_samples_have_more_time(graph, refused):
    with refused(TooLargeError, "runs longer than 2 seconds", **TOO_LONG):
        open_session(graph).run(None, {"i": np.zeros((16, 4), np.float32)})


def test_runs_in_several_threads_end_each(graph):
    session, errors = open_session(graph, threads=1), []

    def one():
        try:
            session.run(None, X)
        except TooLargeError as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3


def test_a_run_in_time_is_not_stopped_later(tmp_path, small):
    with OnnxRunner(small.file("model.onnx")) as runner:
        x = {s.name: np.zeros((1, *(d for d in s.shape[1:])), s.dtype) for s in runner.signature.inputs}
        first = runner.infer(x)
        time.sleep(1.3)
        again = runner.infer(x)
    assert all(np.array_equal(first[name], again[name]) for name in first)


PIXELS = np.zeros((8, 8), np.uint8)
WAYS = {
    "load_runtime": lambda path, out, registry: load_runtime(path, registry=registry).predict(
        np.zeros((8, 8), np.uint8)
    ),
    "evaluate": lambda path, out, registry: evaluate(path, data="digits", registry=registry),
    "bench": lambda path, out, registry: bench([path], seconds=0, memory=False, registry=registry),
    "profile": lambda path, out, registry: profile(path, torch=False, registry=registry),
    "compress": lambda path, out, registry: compress(
        path, out, steps=[Int8Config()], data="digits", samples=8, registry=registry
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_runs_a_bundle_ends(way, small, small_registry, tmp_path, refused):
    bundle = endless_bundle(small, tmp_path / "bundle")
    with refused(TooLargeError, "runs longer than", **TOO_LONG):
        WAYS[way](bundle.path, tmp_path / "out", small_registry)


def test_the_watch_stops_what_is_late_alone():
    watch, now = Watch(), time.monotonic()
    late, early, over = (SimpleNamespace(terminate=False) for _ in range(3))
    watch.add(over, now + 1)
    watch.remove(over)
    watch.add(early, now + 3600)
    watch.add(late, now + 2)
    until = now + 30
    while not late.terminate and time.monotonic() < until:
        time.sleep(0.01)
    assert (late.terminate, early.terminate, over.terminate) == (True, False, False)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python warns of its threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_has_a_watch_of_its_own(graph):
    session = open_session(graph, threads=1)
    with pytest.raises(TooLargeError):
        session.run(None, X)
    child = os.fork()
    if not child:
        gc.freeze()  # what other tests left: a session would wait here for its threads
        code = 1
        try:
            open_session(graph, threads=1).run(None, X)
        except TooLargeError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("step", ["compress", "export"])
def test_samples_that_a_graph_does_not_take_are_told_by_name_wherever_they_are_run(step, tmp_path, refused):
    """The 50 rows of a table have no row 70: said of the samples, whichever command runs them."""
    table, weight = np.ones((50, 8), np.float32), np.ones((8, 4), np.float32)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "w")]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4])
    made = helper.make_graph(nodes, "g", [ids], [y], constants)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(tmp_path / "d.npz", ids=np.full((9, 3), 70))
    with refused(DataError, "the graph does not run on ids int64 (", hint="give inputs of the shapes and values"):
        if step == "compress":
            compress(path, tmp_path / "o", data=tmp_path / "d.npz", steps=[Int8Config()])
        else:
            export(path, target="openvino", out=tmp_path / "h.onnx", precision="fp16", data=tmp_path / "d.npz")
