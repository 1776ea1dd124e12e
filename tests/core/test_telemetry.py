"""Nothing calls home: neither a connection, nor a file below the home folder, of native code as well."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketzoo.core.telemetry import ONNXRUNTIME, onnxruntime_is_quiet, switch_off

# Nothing else of the environment: onnxruntime is silent by itself where it sees CI, or writes below XDG_CACHE_HOME.
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
RUNTIME = """
import sys
import numpy as np, pocketzoo
with pocketzoo.load_runtime(sys.argv[1]) as runtime:
    runtime.predict(np.zeros((1, 28, 28), np.uint8))
"""


def traced(command: list[str], home: Path, log: Path, **more: str) -> list[str]:
    """The internet sockets that a command, and what it starts, open; where strace cannot tell, the test is skipped."""
    if shutil.which("strace") is None:
        pytest.skip("no strace: apt-get install strace")
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    env |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), **more}
    run = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", str(log), *command],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptrace" in run.stderr or not log.exists():
        pytest.skip("this machine does not let strace trace")
    assert run.returncode == 0, run.stderr
    return [line for line in log.read_text(errors="replace").splitlines() if re.search("AF_INET|AF_NETLINK", line)]


@pytest.mark.slow
def test_a_runtime_opens_no_internet_socket_and_keeps_no_id(small, tmp_path):
    command = [sys.executable, "-c", RUNTIME.replace("(1, 28, 28)", "(1, 8, 8)"), str(small.path)]
    assert traced(command, tmp_path / "home", tmp_path / "log") == []
    assert not (tmp_path / "home" / ".cache" / "Microsoft").exists()


@pytest.mark.slow
@pytest.mark.parametrize("said", ["", "0"])
def test_offline_commands_open_no_internet_socket(small, tmp_path, said):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    command = [sys.executable, "-m", "pocketzoo", "--offline", "predict", str(small.path), str(tmp_path / "x.png")]
    assert traced(command, tmp_path / "home", tmp_path / "log", **{ONNXRUNTIME: said}) == []
    assert not (tmp_path / "home" / ".cache" / "Microsoft").exists()


@pytest.mark.slow
@pytest.mark.skipif(tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 31), reason="it had none before")
def test_the_trace_would_see_it(small, tmp_path):
    """Told by the user to report, onnxruntime does."""
    command = [sys.executable, "-c", RUNTIME.replace("(1, 28, 28)", "(1, 8, 8)"), str(small.path)]
    traced(command, tmp_path / "home", tmp_path / "log", **{ONNXRUNTIME: "0"})
    assert (tmp_path / "home" / ".cache" / "Microsoft").exists()


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("", "1"), ("0", "0"), ("yes", "yes")])
def test_what_the_user_set_stands(monkeypatch, before, after):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    del sys.modules["onnxruntime"]
    monkeypatch.delenv(ONNXRUNTIME, raising=False)
    if before is not None:
        monkeypatch.setenv(ONNXRUNTIME, before)
    switch_off("onnxruntime")
    assert os.environ[ONNXRUNTIME] == after


@pytest.mark.parametrize(
    ("value", "quiet"), [(None, False), ("", False), ("0", False), ("x", False), ("1", True), ("True", True)]
)
def test_what_onnxruntime_takes_for_yes(monkeypatch, value, quiet):
    monkeypatch.delenv(ONNXRUNTIME, raising=False)
    if value is not None:
        monkeypatch.setenv(ONNXRUNTIME, value)
    assert onnxruntime_is_quiet() == quiet


def test_what_was_imported_before_is_not_said_to_be_quiet(monkeypatch):
    monkeypatch.delenv(ONNXRUNTIME, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    switch_off("onnxruntime")
    assert not onnxruntime_is_quiet()
