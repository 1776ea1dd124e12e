"""An older version against this one, interleaved in one sitting. Writes benchmarks/results/refactor.json.

Usage: python benchmarks/refactor.py --old COMMIT|FOLDER [--new COMMIT|FOLDER] [--rounds 16] [LINE ...]

Moving and renaming code must not make it slower. Each line is run by both versions in turn, in an order that is drawn
anew each round, and CPU time is compared round by round (see zoo/timing.py). The ratio is new / old: a line has failed
where its whole 99% interval lies above 1.05, and then the exit code is 1. A folder is one for PYTHONPATH; of a commit
the wheel is built (tools/baseline.py). Without --new it is this working tree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from record import ROOT, write

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from baseline import unpacked  # noqa: E402

from pocketzoo.zoo.backends.timing import speedup  # noqa: E402

LIMIT = 1.05
ROUNDS = 16
FROZEN = ROOT / "tests" / "frozen" / "format1"  # which both versions read
BUNDLE, DATA = FROZEN / "image-classifier" / "bundle", FROZEN / "image-classifier" / "data.npz"
COMMANDS = {  # whole processes
    "--help": ["--help"],
    "list": ["list"],
    "info": ["info", "tinynet"],
    "plan int8": ["compress", str(BUNDLE), "--int8", "--data", str(DATA), "--dry-run"],
}
# What a process that stays runs, by public names alone, which both versions have; seconds of CPU for one.
WORKER = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import pocketzoo
bundle, data, recipe, folder = sys.argv[1:]
x = np.random.default_rng(0).uniform(-0.7, 1.7, (1, 1, 8, 8)).astype(np.float32)
runtime = pocketzoo.load_runtime(bundle, threads=1, providers="cpu")
made = iter(range(10**9))

def opened():
    pocketzoo.load_runtime(bundle, threads=1, providers="cpu").close()

def compressed():
    out = os.path.join(folder, str(next(made)))
    pocketzoo.compress(bundle, out, data=data, recipe=recipe, samples=64, keep_slower=True)

lines = {"verify a bundle": (pocketzoo.verify, (bundle,), 20), "open a bundle": (opened, (), 10),
         "predict": (runtime.predict, (x,), 500), "compress to int8": (compressed, (), 1)}
print(json.dumps([pocketzoo.__file__, *lines]), flush=True)
for line in sys.stdin:
    run, given, count = lines[line.strip()]
    begin = time.process_time()
    for _ in range(count):
        run(*given)
    print((time.process_time() - begin) / count, flush=True)
"""


class Version:
    """One version at work: its commands, and a process that stays."""

    def __init__(self, package: Path, folder: Path, worker: subprocess.Popen[str]) -> None:
        assert worker.stdin is not None
        assert worker.stdout is not None
        self.package, self.folder = package, folder
        self.asks: IO[str] = worker.stdin
        self.answers: IO[str] = worker.stdout
        file, *self.lines = json.loads(self.answers.readline())
        assert Path(file).is_relative_to(package), f"{file} was imported, not {package}"

    def seconds(self, line: str) -> float:
        """CPU time of a line, once."""
        if line in COMMANDS:
            command = [sys.executable, "-m", "pocketzoo", *COMMANDS[line]]
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment(self.package, self.folder), stdout=subprocess.DEVNULL
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, command
            return used.ru_utime + used.ru_stime
        self.asks.write(f"{line}\n")
        self.asks.flush()
        return float(self.answers.readline())


def environment(package: Path, folder: Path) -> dict[str, str]:
    """Where only the package is another: one thread, a home in ``folder``, no plugin that is installed."""
    own = {"PYTHONPATH": str(package), "POCKETZOO_HOME": str(folder / "home"), "POCKETZOO_PLUGINS": ""}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


@contextmanager
def at_work(package: Path) -> Iterator[Version]:
    """A version, with a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "int8.toml").write_text('[[step]]\nkind = "int8"\n')
        made = folder / "made"
        made.mkdir()
        arguments = [str(each) for each in (BUNDLE, DATA, folder / "int8.toml", made)]
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], cwd=folder, env=environment(package, folder), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Version(package, folder, worker)
        finally:
            worker.communicate()


def compared(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Seconds of "old" and "new", in turn for so many rounds after one that does not count; and their ratio."""
    generator = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name in generator.permutation(list(runs)):
            spent[name].append(runs[name]())
    times = {name: seconds[1:] for name, seconds in spent.items()}
    ratio = speedup(times["old"], times["new"])  # how many times as fast the old one is
    assert ratio is not None, "too few rounds for an interval"
    return {
        **{f"{name}_ms": round(statistics.median(seconds) * 1e3, 4) for name, seconds in times.items()},
        "ratio": round(ratio.middle, 4),
        "low": round(ratio.low, 4),
        "high": round(ratio.high, 4),
        "failed": ratio.low > LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", metavar="LINE", help="only these")
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", default=str(ROOT))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="8 or more: fewer allow no interval")
    options = parser.parse_args()
    packages = {
        name: Path(given).resolve() if Path(given).is_dir() else unpacked(given)
        for name, given in (("old", options.old), ("new", options.new))
    }
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        versions = {name: stack.enter_context(at_work(package)) for name, package in packages.items()}
        for line in (*COMMANDS, *versions["old"].lines):
            if options.lines and line not in options.lines:
                continue
            runs = {name: (lambda v=version, line=line: v.seconds(line)) for name, version in versions.items()}
            row = rows[line] = compared(runs, options.rounds)
            print(
                f"{line:18} {row['old_ms']:10.3f} -> {row['new_ms']:10.3f} ms   x {row['ratio']:.3f} "
                f"({row['low']:.3f} to {row['high']:.3f}){'  FAILED' if row['failed'] else ''}",
                flush=True,
            )
    if not options.lines:
        write("refactor", {"old": options.old, "rounds": options.rounds, "limit": LIMIT, "rows": rows})
    if any(row["failed"] for row in rows.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
