"""The fork that campaigns share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

TOOLS = Path(__file__).parents[2] / "tools"
LEFT_BEHIND = """
import gc, os, signal, sys
import onnxruntime
from campaign_process import fork

class Kept:
    pass

gc.disable()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 4
kept = Kept()
kept.itself, kept.session = kept, onnxruntime.InferenceSession(sys.argv[1], options)
del kept
if (child := fork()) == 0:
    signal.alarm(30)
    gc.collect()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_does_not_collect_a_session_that_was_left_behind(tmp_path):
    """Its threads are not there, and it would wait for them for ever."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, "-W", "ignore", "-c", LEFT_BEHIND, str(tmp_path / "m.onnx")]
    run = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "0\n"
