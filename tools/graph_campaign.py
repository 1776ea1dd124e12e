"""Generate graphs by seed, compress each in process, hold it to what it computed before, and add up what was tried.

    python tools/graph_campaign.py --seed 3 --minutes 30    # one shard, kept in benchmarks/results/graphs.json
    python tools/graph_campaign.py --graph 3000017          # one graph, and what is wrong with it

A shard of the same seed tries the same graphs, as many as there is time for. Shards of one commit add up.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from campaign import LONGEST, MEMORY_DISK, ROOT, Shard, commit, keep

RESULTS = ROOT / "benchmarks" / "results" / "graphs.json"
KIND = "graphs"
EACH = 1_000_000  # seeds of graphs that a shard has


def run(seed: int, seconds: float, folder: Path, most: int = EACH) -> Shard:
    """Graphs of one shard until ``seconds`` are over, or there were ``most``; in a process that may die of one."""
    shard, start, number = Shard(), time.monotonic(), 0
    while number < most and time.monotonic() - start < seconds:
        number = _run_from(number, seed, start + seconds, folder, most, shard)
    return shard


def _run_from(number: int, seed: int, end: float, folder: Path, most: int, shard: Shard) -> int:
    """Graphs from one on, in a child, and the number of the next; one that ends the child is a finding."""
    method = multiprocessing.get_context("spawn")  # a fork would take along what libraries keep
    receives, sends = method.Pipe(duplex=False)
    child = method.Process(target=_work, args=(number, seed, end, folder, most, sends), daemon=True)
    child.start()
    sends.close()
    with contextlib.suppress(EOFError):
        while True:
            tried, findings = receives.recv()
            shard.count("graphs", int("not run by onnxruntime" not in tried))
            for what, count in tried.items():
                shard.count(what, count)
            shard.findings += findings
            for finding in findings:
                print(finding, flush=True)
            number += 1
    child.join()
    if child.exitcode:
        given = method.Process(target=_run_as_given, args=(seed * EACH + number,), daemon=True)
        given.start()
        given.join()
        if (given.exitcode or 0) < 0:  # by a signal
            shard.count("onnxruntime ends on it as it was given")
            return number + 1
        shard.count("graphs")
        shard.findings.append(f"seed {seed * EACH + number}: the process ended with {child.exitcode}")
        print(shard.findings[-1], flush=True)
        number += 1
    return number


def _work(first: int, seed: int, end: float, folder: Path, most: int, sends: Connection) -> None:
    from graph_checks import Checker, quiet
    from graph_generator import generate

    tempfile.tempdir = str(folder)  # sessions write graphs there
    checker, start = Checker(folder), time.monotonic()
    for number in range(first, most):
        if time.monotonic() > end:
            break
        with quiet():
            checked = checker.check(generate(seed * EACH + number))
        sends.send((checked.tried, checked.findings))
        if number % 200 == 199:
            shutil.rmtree(folder / "home", ignore_errors=True)
            print(f"{number + 1} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _run_as_given(seed: int) -> None:
    from graph_checks import FEW, quiet
    from graph_generator import generate
    from graph_runs import outputs_of

    graph = generate(seed)
    for rewritten in (False, True):
        with quiet(), contextlib.suppress(Exception):  # what it refuses is no crash
            outputs_of(graph.model, graph.feed(graph.rows or FEW, 9), rewritten=rewritten)


def main() -> int:
    """Run what the command line asks for; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the shard")
    parser.add_argument("--minutes", type=float, default=10.0, help=f"up to {LONGEST:.0f}")
    parser.add_argument("--most", type=int, default=EACH, help="graphs; for trials, which are not kept")
    parser.add_argument("--graph", type=int, help="the seed of one graph")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file that shards are kept in")
    asked = parser.parse_args()
    if not 0 < asked.minutes <= LONGEST:
        parser.error(f"--minutes is up to {LONGEST:.0f}: take more seeds")
    start, tried = time.monotonic(), commit()
    with tempfile.TemporaryDirectory(prefix="graphs-", dir=MEMORY_DISK) as folder:
        if asked.graph is not None:
            shard = run_one(asked.graph, Path(folder))
        else:
            shard = run(asked.seed, asked.minutes * 60, Path(folder), asked.most)
    seconds = round(time.monotonic() - start, 1)
    if asked.graph is None and asked.most == EACH:
        keep(asked.out, {"commit": tried, "kind": KIND, "seed": asked.seed, "seconds": seconds, **asdict(shard)})
    for what, count in sorted(shard.tried.items(), key=lambda each: -each[1]):
        print(f"{count:8,} {what}")
    print(f"{seconds:.0f} s, {len(shard.findings)} findings")
    return 1 if shard.findings else 0


def run_one(seed: int, folder: Path) -> Shard:
    """One graph, which is shown and left in the working directory."""
    import onnx
    from graph_checks import Checker
    from graph_generator import generate

    graph = generate(seed)
    onnx.save(graph.model, f"graph{seed}.onnx")
    print(onnx.printer.to_text(graph.model.graph)[:6000])
    checked = Checker(folder).check(graph)
    for finding in checked.findings:
        print(finding)
    return Shard(checked.tried, checked.findings)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
