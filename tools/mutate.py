"""Break the code on purpose and see whether its tests notice. Writes benchmarks/results/mutants.json.

Usage: python tools/mutate.py [--count 150] [--seed 1] [--workers 1] [--only 'compress/*'] [--again]

A mutant is one small change that a slip could make: a comparison, a sign, a number off by one, a dropped "not". For
each one drawn, in a copy of the project, the mirrored test file runs (``tests/zoo/test_x.py`` for
``pocketzoo/zoo/x.py``; ``TESTS`` has those whose tests are elsewhere), without the tests marked slow. A mutant is
noticed if a test fails or takes many times as long. ``tools/equivalent_mutants.json`` lists those that change nothing
anyone could test, each with the reason; they are not counted. ``--again`` draws nothing, and runs those of the last
result that were not noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

from mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tools" / "equivalent_mutants.json"
ROOMS = ("zoo", "compress", "train")
PYTEST = ("-x", "-q", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not slow", "--tb=line")
NOT_COPIED = (".git", ".venv*", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis", "build", "dist")
PATIENCE = 5.0  # times as long as without the change, and a minute more: then it is noticed by its slowness
NO_TESTS = 5  # pytest's exit status where all tests were left out

# Tests that stand under another name than the module's, in addition to the mirrored file where there is one.
TESTS = {
    "zoo/catalog/hookspecs.py": ("zoo/catalog/test_plugin_manager.py",),
    "zoo/catalog/compressor.py": ("compress/test_conformance.py",),
    "zoo/catalog/dataset.py": ("zoo/data/test_batches.py",),
    "zoo/catalog/engine_options.py": ("zoo/backends/tensorrt/test_build_engine.py", "deploy/test_trtexec.py"),
    "zoo/bundles/work_folder.py": ("compress/pipeline/test_checkpoints.py",),
    "zoo/bundles/repository_loader.py": ("zoo/hub/test_repositories.py",),
    "zoo/bundles/manifest.py": ("zoo/bundles/test_bundle.py",),
    "zoo/graphs/operands.py": ("zoo/graphs/test_cost.py", "compress/quantization/test_qdq.py"),
    "zoo/graphs/operators.py": ("zoo/graphs/test_cost.py", "compress/quantization/test_qdq.py"),
    "zoo/tasks/token_search.py": ("workflows/test_generate.py",),
    "zoo/hub/http.py": ("zoo/hub/test_repositories.py",),
    "zoo/hub/stored_files.py": ("zoo/hub/test_store.py",),
    "zoo/hub/locked_files.py": ("zoo/hub/test_store.py",),
    "zoo/hub/store_layout.py": ("zoo/hub/test_store.py",),
    "zoo/hub/store.py": ("zoo/backends/tensorrt/test_engine_cache.py",),
    "zoo/hub/download.py": ("zoo/hub/test_repositories.py",),
    "zoo/models/open_remote.py": ("zoo/hub/test_repositories.py",),
    "zoo/models/build.py": ("compress/pipeline/test_forecast.py",),
    "zoo/models/generation_graphs.py": ("workflows/test_generate.py", "compress/pipeline/test_generation_graphs.py"),
    "zoo/models/hub_bundle.py": ("zoo/models/test_pull.py", "zoo/hub/test_repositories.py"),
    "zoo/models/resolver.py": ("zoo/models/test_pull.py", "zoo/models/test_build.py"),
    "zoo/models/search.py": ("zoo/models/test_pull.py",),
    "zoo/models/push.py": ("zoo/models/test_pull.py",),
    "zoo/models/provenance.py": ("zoo/models/test_open_model.py",),
    "zoo/models/materials.py": ("zoo/bundles/test_bill_of_materials.py",),
    "zoo/data/load_data.py": ("zoo/data/test_batches.py",),
    "zoo/data/image_folders.py": ("zoo/data/test_batches.py",),
    "zoo/data/npz_files.py": ("zoo/data/test_batches.py",),
    "zoo/data/gym_environments.py": ("train/agents/test_double_dqn.py",),
    "zoo/backends/torch_runner.py": ("zoo/backends/test_runtimes.py",),
    "zoo/backends/tensorrt/build_machine.py": ("zoo/backends/test_available_targets.py",),
    "compress/plans.py": ("compress/pruning/test_prune.py", "core/test_typed.py", "compress/test_configs.py"),
    "compress/pruning/channel_tracer.py": ("compress/pruning/test_channel_groups.py",),
    "compress/pruning/channels.py": ("compress/pruning/test_channel_groups.py",),
    "compress/statistics/histogram.py": ("compress/quantization/test_calibration.py",),
    "compress/pipeline/compress_model.py": ("compress/pipeline/test_settings.py",),
    "compress/pipeline/attempt.py": ("compress/pipeline/test_steps.py", "compress/pipeline/test_compress_model.py"),
    "compress/pipeline/module_step.py": ("compress/pipeline/test_steps.py",),
    "compress/pipeline/graph_step.py": ("compress/pipeline/test_steps.py",),
    "compress/pipeline/step_report.py": ("compress/pipeline/test_steps.py",),
    "compress/low_rank/layer_timing.py": ("compress/low_rank/test_low_rank.py",),
    "train/model_for_data.py": ("train/test_fit.py",),
    "train/transfer_learning.py": ("train/test_fit.py",),
    "train/augmenter.py": ("train/augment/test_transforms.py",),
    "train/augment/mixed_targets.py": ("train/test_optimizer_step.py",),
    "train/agents/settings.py": ("train/agents/test_agent_settings.py", "train/agents/test_double_dqn.py"),
    "train/agents/replay_buffer.py": ("train/agents/test_double_dqn.py",),
}


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: noticed, survived, equivalent, untested or (not yet) pending, and why."""

    mutant: Mutant
    verdict: str
    why: str = ""


def tests_of(root: Path, file: str) -> tuple[str, ...]:
    """The test files of a module, below ``tests/``."""
    path = Path(file)
    mirrored = (path.parent / f"test_{path.name}").as_posix()
    return tuple(t for t in dict.fromkeys((mirrored, *TESTS.get(file, ()))) if (root / "tests" / t).is_file())


def draw(root: Path, package: str, count: int, seed: int, only: str = "*") -> list[Mutant]:
    """``count`` mutants: first a place, all alike, then one of what can be done to it."""
    sources = {
        path.relative_to(root / package).as_posix(): path.read_bytes()
        for room in ROOMS
        for path in sorted((root / package / room).rglob("*.py"))
    }
    places: dict[tuple[str, int, int], list[Mutant]] = {}
    for file, source in sources.items():
        for mutant in mutants_of(file, source) if fnmatchcase(file, only) else ():
            places.setdefault((file, mutant.start, mutant.end), []).append(mutant)
    chance, drawn = random.Random(seed), list[Mutant]()
    order = sorted(places)
    chance.shuffle(order)
    for place in order:
        mutant = chance.choice(places[place])
        if len(drawn) < count and mutant.compiles(sources[mutant.file]):
            drawn.append(mutant)
    return drawn


class Bench:
    """Copies of the project, one a worker, in which mutants are tried."""

    def __init__(self, root: Path, package: str, folder: Path, workers: int) -> None:
        self.root, self.package, self.workers = folder / "0", package, workers  # tests that come meanwhile do not count
        self.free: Queue[Path] = Queue()
        for i in range(workers):
            copy = folder / str(i)
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
            self.free.put(copy)
        self.plain = cache(self._plain)

    def _plain(self, tests: tuple[str, ...]) -> tuple[float, str]:
        """Seconds that test files take with nothing changed, and what fails all the same."""
        copy, failed = self.free.get(), ""
        try:
            for _ in range(2):
                start = time.perf_counter()
                status, said = _pytest(copy, tests, None)
                if status in (0, NO_TESTS):
                    return time.perf_counter() - start, ""
                failed = _failed(said)
            return 0.0, failed
        finally:
            self.free.put(copy)

    def judge(self, mutant: Mutant) -> Verdict:
        """Try one."""
        tests = tests_of(self.root, mutant.file)
        if not tests:
            return Verdict(mutant, "untested", "no test file")
        seconds, failed = self.plain(tests)
        if failed:
            return Verdict(mutant, "untested", f"its tests fail before anything is changed: {failed}")
        limit = seconds * PATIENCE + 60
        copy = self.free.get()
        path = copy / self.package / mutant.file
        source = path.read_bytes()
        try:
            path.write_bytes(mutant.applied(source))
            status, said = _pytest(copy, tests, limit)
        finally:
            path.write_bytes(source)
            self.free.put(copy)
        if status in (0, NO_TESTS):
            return Verdict(mutant, "survived", " ".join(tests))
        return Verdict(mutant, "noticed", "too slow" if status is None else _failed(said))

    def run(self, mutants: Iterable[Mutant]) -> Iterator[Verdict]:
        """Try all, those of a file after one another."""
        with ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(self.judge, sorted(mutants, key=lambda m: (m.file, m.line)))


def _pytest(copy: Path, tests: tuple[str, ...], limit: float | None) -> tuple[int | None, str]:
    """The exit status, None if it took too long, and what was printed."""
    line = [sys.executable, "-B", "-m", "pytest", *PYTEST, *(f"tests/{t}" for t in tests)]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryDirectory() as temporary:
        process = subprocess.Popen(
            [*line, "--basetemp", f"{temporary}/pytest"],
            cwd=copy,
            env={**environment, "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started, and no other
            process.communicate()
            return None, ""


def _failed(said: str) -> str:
    """The first test that failed, or the last line."""
    lines = said.strip().splitlines()
    return next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1] if lines else "")[:200]


def equivalent(path: Path) -> dict[tuple[str, str, str, str], str]:
    """Mutants that change nothing, with the reason, by file, operator, line before and line after."""
    rows = json.loads(path.read_text("utf8")) if path.is_file() else []
    return {(row["file"], row["operator"], row["before"], row["after"]): row["why"] for row in rows}


def result(verdicts: list[Verdict], seed: int) -> dict[str, Any]:
    """What is recorded; the share is of those that are not equivalent, untested ones included."""
    counts = Counter(v.verdict for v in verdicts)
    of = len(verdicts) - counts["equivalent"]
    order = ["pending", "survived", "untested", "equivalent", "noticed"]
    rows = sorted(verdicts, key=lambda v: (order.index(v.verdict), v.mutant.file, v.mutant.line))
    return {
        "seed": seed,
        "count": len(verdicts),
        **{verdict: counts[verdict] for verdict in reversed(order) if verdict != "pending" or counts[verdict]},
        "share_noticed": round(counts["noticed"] / of, 4) if of else None,
        "mutants": [{**v.mutant.record(), "verdict": v.verdict, "why": v.why} for v in rows],
    }


def known(package: Path, path: Path) -> list[Verdict]:
    """The verdicts of an earlier run, as far as the lines that were changed still stand."""
    found = []
    for row in json.loads(path.read_text("utf8"))["mutants"]:
        key = (row["file"], row["operator"], row["before"], row["after"])
        same = [m for m in mutants_of(row["file"], (package / row["file"]).read_bytes()) if m.key == key]
        if not same:
            raise SystemExit(f"{row['file']}:{row['line']} has changed since; draw again")
        mutant = min(same, key=lambda m: abs(m.line - row["line"]))
        found.append(Verdict(mutant, row["verdict"], row["why"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the project: PACKAGE/ and tests/")
    parser.add_argument("--package", default="pocketzoo")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="*", metavar="GLOB", help="files below PACKAGE/ to draw from")
    parser.add_argument("--equivalent", type=Path, default=EQUIVALENT, metavar="FILE")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mutants.json")
    parser.add_argument("--again", action="store_true", help="run what was not noticed once more, and draw nothing")
    parser.add_argument("--list", action="store_true", help="print what is drawn, and run nothing")
    asked = parser.parse_args()
    # A shell that starts this in the background makes it deaf to Ctrl-C, and with it the tests of what Ctrl-C does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed, done = asked.seed, list[Verdict]()
    if asked.again:
        seed, earlier = json.loads(asked.out.read_text("utf8"))["seed"], known(asked.root / asked.package, asked.out)
        done = [v for v in earlier if v.verdict == "noticed"]
        drawn = [v.mutant for v in earlier if v.verdict != "noticed"]
    else:
        drawn = draw(asked.root, asked.package, asked.count, seed, asked.only)
    same = equivalent(asked.equivalent)
    left = {m: Verdict(m, "pending") for m in drawn if m.key not in same}
    done += [Verdict(m, "equivalent", same[m.key]) for m in drawn if m.key in same]
    if asked.list:
        print("\n".join(map(str, left)))
        return

    def write() -> dict[str, Any]:
        found = result([*done, *left.values()], seed)
        asked.out.write_text(json.dumps({"machine": _machine(), **found}, indent=2) + "\n", "utf8")
        return found

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked.root, asked.package, Path(folder), asked.workers)
        for i, verdict in enumerate(bench.run(left), 1):
            left[verdict.mutant] = verdict
            print(f"{i}/{len(left)} {verdict.verdict}: {verdict.mutant}  [{verdict.why}]", flush=True)
            write()  # what is found is kept, whatever becomes of the rest: --again goes on from there
    found = write()
    counts = ", ".join(f"{found[k]} {k}" for k in ("noticed", "survived", "untested", "equivalent"))
    print(f"{found['count']} mutants of seed {seed}: {counts}; share noticed {found['share_noticed']}")


def _machine() -> dict[str, object]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from record import machine

    return machine()


if __name__ == "__main__":
    main()
