"""Two versions are told apart by their ratio, round by round; the commands and the process of one run."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def refactor(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import refactor

    return refactor


@pytest.mark.parametrize(
    ("slower", "failed"), [(1.0, False), (1.04, False), (1.049, False), (1.06, True), (2.0, True), (0.5, False)]
)
def test_a_line_fails_where_it_is_surely_slower(slower, failed, refactor):
    drift = count(1)  # the machine becomes slower and slower, and both with it
    row = refactor.compared(
        {"old": lambda: 1.0 + next(drift) * 1e-5, "new": lambda: slower * (1.0 + next(drift) * 1e-5)}, 12
    )
    assert row["failed"] is failed
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["ratio"] == pytest.approx(slower, rel=1e-3)


def test_one_noisy_round_decides_nothing(refactor):
    times = iter([1.0, *[1.0] * 5, 40.0, *[1.0] * 10])
    row = refactor.compared({"old": lambda: 1.0, "new": lambda: next(times)}, 12)
    assert (row["ratio"], row["failed"]) == (1.0, False)


def test_a_version_runs(refactor):
    with refactor.at_work(ROOT) as version:
        assert version.lines == ["verify a bundle", "open a bundle", "predict", "compress to int8"]
        assert 0 < version.seconds("verify a bundle") < version.seconds("--help")


def test_a_wheel_is_built_once_and_is_the_package(tmp_path, monkeypatch):
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this is no clone, so it has no commits")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line = [sys.executable, str(ROOT / "tools" / "baseline.py")]
    folder = Path(subprocess.run([*line, "HEAD"], capture_output=True, text=True, check=True).stdout.strip())
    assert folder.parent == tmp_path / "pocketzoo-benchmarks"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert {"pocketzoo/__init__.py", "pocketzoo/__main__.py"} <= names
    assert not list(folder.glob("*.dist-info"))
    (folder / "kept").touch()
    subprocess.run([*line, "HEAD"], capture_output=True, check=True)
    assert (folder / "kept").exists()
    none = subprocess.run([*line, "nonsense"], capture_output=True, text=True, check=False)
    assert (none.returncode, none.stderr.strip()) == (1, "no commit is called nonsense")
