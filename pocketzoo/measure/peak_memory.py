"""Peak memory of running one model, measured in a fresh process for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, PocketzooError
from pocketzoo.zoo.backends.runtimes import module_of, open_runner

RUNS = 3  # a runtime's arena has its size after the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that were resident: the largest of all times, and once everything was imported, before the model."""

    peak: int
    imports: int

    @property
    def model(self) -> int:
        """What the model took: weights, and room for what it computes."""
        return max(self.peak - self.imports, 0)


def peak_memory(runtime: str, graph: Path, source: Path | None, x: Arrays, threads: int) -> Memory | None:
    """Run ``x`` through a model in a process of its own; None where the system does not tell (it has no /proc).

    Raises:
        BundleError: the process fails.
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "x.npz"
        # By their places: a name may be any text.
        np.savez(batch, allow_pickle=False, **{str(i): array for i, array in enumerate(x.values())})
        asked: dict[str, Any] = {"runtime": runtime, "graph": str(graph), "source": str(source), "x": str(batch)}
        asked |= {"names": list(x), "threads": threads}
        command = [sys.executable, "-m", "pocketzoo.measure.peak_memory", json.dumps(asked)]
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise BundleError(f"{graph} does not run in a process of its own: {reason}", "run it without --memory")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _resident(what: str) -> int:
    """A line of /proc/self/status. Not getrusage: what it says resumes from the process that this one was made by."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main() -> None:
    """What the fresh process does."""
    asked = json.loads(sys.argv[1])
    __import__(module_of(asked["runtime"]))
    imports = _resident("VmRSS")
    with np.load(asked["x"]) as arrays:
        x = {name: arrays[str(i)] for i, name in enumerate(asked["names"])}
    with open_runner(asked["runtime"], Path(asked["graph"]), Path(asked["source"]), threads=asked["threads"]) as runner:
        for _ in range(RUNS):
            runner.infer(x)
    print(json.dumps({"peak": _resident("VmHWM"), "imports": imports}))


if __name__ == "__main__":
    try:
        main()
    except PocketzooError as error:
        sys.exit(error.message)  # the last line on stderr is the reason
