"""How long the command line takes to start, as whole processes. Writes benchmarks/results/startup.json.

Usage: python benchmarks/startup.py [--runs 15]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import write

COMMANDS = {"help": ["--help"], "list": ["list"], "plugins": ["plugins"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    script = shutil.which("pocketzoo", path=str(Path(sys.executable).parent)) or "pocketzoo"
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands |= {f"pocketzoo {' '.join(words)}": [script, *words] for words in COMMANDS.values()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):  # in turn, so that a slow moment of the machine hits all alike
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - start)
    rows = {
        name: {"median_s": round(statistics.median(t[1:]), 4), "min_s": round(min(t[1:]), 4)}
        for name, t in times.items()
    }
    for name, row in rows.items():
        print(f"{name:20} median {row['median_s']:.3f} s, fastest {row['min_s']:.3f} s")
    write("startup", {"runs": runs, "rows": rows})


if __name__ == "__main__":
    main()
