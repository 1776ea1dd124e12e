"""The page of numbers is what the recorded results say, and the benchmarks run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


def test_page_is_written_from_the_results() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import page; print(page.page(), end='')"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (ROOT / "docs" / "benchmarks.md").read_text("utf8"), "run: python benchmarks/page.py"


def test_results_say_where_they_were_measured() -> None:
    results = sorted((FOLDER / "results").glob("*.json"))
    assert results
    for path in results:
        result = json.loads(path.read_text("utf8"))
        if "shards" in result:  # of a campaign: what was tried counts, not how fast the machine was
            assert all(shard["commit"] for shard in result["shards"])
            continue
        machine = result["machine"]
        assert machine["cpu"]
        assert machine["cores"] >= 1
        assert len(machine["commit"]) == 40


def test_startup_benchmark_runs(tmp_path: Path) -> None:
    """A smoke of the real script, on a copy, so that the recorded results stay."""
    for name in ("startup.py", "record.py"):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / name).write_text((FOLDER / name).read_text("utf8"))
    done = subprocess.run(
        [sys.executable, "benchmarks/startup.py", "--runs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "benchmarks" / "results" / "startup.json").read_text("utf8"))["rows"]
    assert all(rows[name]["median_s"] > 0 for name in ("pocketzoo list", "python -c pass"))


def test_timing_benchmark_runs(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for name in ("timing.py", "record.py"):
        (tmp_path / "benchmarks" / name).write_text((FOLDER / name).read_text("utf8"))
    done = subprocess.run(
        [sys.executable, "benchmarks/timing.py", "--races", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "benchmarks" / "results" / "timing.json").read_text("utf8"))
    assert result["races"] == 2
    assert all(0 <= row["tenth_seen"] <= 2 and row["width"] >= 0 for row in result["rows"].values())


def test_registry_benchmark_runs(tmp_path: Path) -> None:
    """On a copy as well; it ends with an error if a glob finds anything else than asking each name."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("registry.py", "record.py"):
        (tmp_path / "benchmarks" / name).write_text((FOLDER / name).read_text("utf8"))
    done = subprocess.run(
        [sys.executable, "benchmarks/registry.py", "--runs", "1", "--names", "500"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "benchmarks" / "results" / "registry.json").read_text("utf8"))
    assert result["rows"]["list"]["median_s"] > 0
    assert {row["pattern"]: row["found"] for row in result["lookups"]}["efficientnet-00421-tiny"] == 1


@pytest.mark.parametrize("name", ["real_files", "half_files"])
def test_pages_of_real_files_are_written_from_the_results(name: str) -> None:
    command = [sys.executable, "-c", f"import page; print(page.{name}(), end='')"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / f"{name}.md").read_text("utf8"), "run: python benchmarks/page.py"
