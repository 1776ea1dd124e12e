"""How much of nested phases is done, and a build that is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.backends.tensorrt.build_progress import Phases


def test_a_phase_inside_another_is_a_step_of_it():
    phases = Phases()
    phases.start("all", "", 2)
    phases.start("first", "all", 4)
    assert [phases.step("first", i) for i in range(4)] == [0.125, 0.25, 0.375, 0.5]
    phases.finish("first")
    assert phases.step("all", 0) == 0.5
    phases.start("second", "all", 1)
    phases.start("inner", "second", 2)
    assert phases.step("inner", 0) == 0.75
    phases.finish("inner")
    phases.finish("second")
    assert phases.step("all", 1) == 1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "a", "b"]), st.integers(0, 5))))
def test_the_share_never_falls_and_stays_within_bounds(events):
    phases, last = Phases(), 0.0
    for name, parent, steps in events:
        if parent != name:
            phases.start(name, parent if parent < name else "", steps)
        share = phases.step(name, steps)
        assert last <= share <= 1.0
        last = share


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
from pocketzoo.plugins.targets import pocketzoo_targets

class Impatient:
    def say(self, text): pass
    def track(self, items, label, total=None):
        for item in items:
            if item == 10:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

folder = Path(sys.argv[1])
rtx = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
try:
    save_engine(folder / "m.onnx", folder / "m.engine", rtx, cache=EngineCache(folder / "cache"), progress=Impatient())
except KeyboardInterrupt:
    print("ended", [p.name for p in sorted(folder.rglob("*"))])
"""


@pytest.mark.engine
def test_ctrl_c_ends_a_build_and_nothing_is_left(fitted, tmp_path):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    onnx.save(onnx.load(fitted.graph("")), tmp_path / "m.onnx")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ},
    )  # fmt: skip
    assert done.stdout == "ended ['m.onnx']\n", done.stderr
    assert done.returncode == 0
    assert signal.SIGINT
