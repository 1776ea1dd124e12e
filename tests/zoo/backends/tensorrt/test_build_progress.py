"""How much of nested phases is done, and a build that is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.backends.tensorrt.build_progress import TICKS, Phases, watched


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


# -- a builder that takes four steps


class Monitor:
    """NVIDIA's IProgressMonitor, of which the real one is derived."""


class Builder:
    """Calls the monitor as NVIDIA's does, and prints as it does; gives up where it is told to."""

    def __init__(self, steps: int = 4, fails: bool = False) -> None:
        self.steps, self.fails, self.canceled = steps, fails, False

    def build_serialized_network(self, network: object, config: SimpleNamespace) -> bytes | None:
        monitor = config.progress_monitor
        os.write(1, b"chatter")
        if self.fails:
            raise RuntimeError("it broke")
        monitor.phase_start("all", None, self.steps)
        for step in range(self.steps):
            if not monitor.step_complete("all", step):
                self.canceled = True
                return None
        monitor.phase_finish("all")
        return b"engine of " + network


class Bar:
    """Keeps what it was given, and may be interrupted."""

    def __init__(self, stop: int = 1000) -> None:
        self.ticks: list[int] = []
        self.stop = stop

    def track(self, items, label, total=None):
        self.label, self.total = label, total
        for item in items:
            self.ticks.append(item)
            if item == self.stop:
                raise KeyboardInterrupt
            yield item


TRT = SimpleNamespace(IProgressMonitor=Monitor)


@pytest.mark.parametrize("steps", [1, 4, 100, 250])
def test_every_tick_is_shown_once_and_what_is_made_is_given(steps):
    bar, config = Bar(), SimpleNamespace()
    assert watched(TRT, Builder(steps), b"net", config, bar) == b"engine of net"
    assert bar.ticks == list(range(1, TICKS + 1))
    assert (bar.label, bar.total) == ("building the engine", 100)
    assert config.progress_monitor is None


def test_what_the_builder_prints_goes_to_stderr_and_later_lines_do_not(capfd):
    watched(TRT, Builder(), b"net", SimpleNamespace(), Bar())
    os.write(1, b"result")
    said = capfd.readouterr()
    assert said.out == "result"
    assert said.err == "chatter"


def test_an_interrupt_ends_the_build_and_is_passed_on():
    slow, config = Builder(100_000), SimpleNamespace()
    with pytest.raises(KeyboardInterrupt):
        watched(TRT, slow, b"net", config, Bar(stop=3))
    assert slow.canceled
    assert config.progress_monitor is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_builder_that_breaks_gives_nothing():
    bar = Bar()
    assert watched(TRT, Builder(fails=True), b"net", SimpleNamespace(), bar) is None
    assert bar.ticks == []
