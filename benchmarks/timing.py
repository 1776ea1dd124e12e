"""How often ten per cent of work is seen on this machine, as busy as it is. Writes benchmarks/results/timing.json.

Usage: python benchmarks/timing.py [--races 100]

Three runs are timed in turn: one, another of the same work, and one of a tenth more. The first two are equal, and of a
hundred intervals of 99% one may say otherwise. What the intervals promise is tested on simulated clocks
(tests/zoo/backends/test_timing.py); how narrow they get, and so what they find, is the machine's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from record import write

from pocketzoo.zoo.backends.timing import Interval, speedup, time_in_turn

X = np.linspace(0.1, 1.0, 4_000)  # no library spreads so few over threads
ROUNDS = 200
CLOCKS = {"cpu": "CPU time of the thread", "wall": "time that passes"}


def work(times: int) -> Callable[[], None]:
    """A run that takes ``times`` as long as one."""

    def run() -> None:
        for _ in range(times):
            np.tanh(X)

    return run


def race() -> dict[str, tuple[Interval, Interval]]:
    """How many times faster the equal run is, and the longer one, by each clock."""
    one, same, more = time_in_turn([work(20), work(20), work(22)], 0.0, least=ROUNDS, most=ROUNDS)
    found = {}
    for clock in CLOCKS:
        times = [getattr(each, clock) for each in (same, more)]
        intervals = [speedup(ours, getattr(one, clock)) for ours in times]
        assert intervals[0] is not None
        assert intervals[1] is not None
        found[clock] = (intervals[0], intervals[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    races = [race() for _ in range(parser.parse_args().races)]
    rows: dict[str, dict[str, Any]] = {}
    for clock, name in CLOCKS.items():
        equal, longer = zip(*(each[clock] for each in races), strict=True)
        rows[name] = {
            "tenth_seen": sum(i.high < 1.0 for i in longer),
            "equal_differs": sum(i.differs for i in equal),
            "width": statistics.median(i.high / i.low - 1 for i in longer),
        }
        print(f"{name:24} {rows[name]}", flush=True)
    write("timing", {"races": len(races), "rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main()
