"""Peak memory of running one model, measured in a fresh process for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, PocketzooError, UnknownNameError
from pocketzoo.core.files import scratch_folder
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import open_artifact
from pocketzoo.zoo.backends.open_backend import find_runtime
from pocketzoo.zoo.backends.runtimes import open_runner
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.bundles.measurement import Memory
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.plugin_manager import GIVEN, create_manager
from pocketzoo.zoo.catalog.registry import Registry, default_registry

NOT_FOUND = 3  # exit code: the process does not find the back end
RUNS = 3  # a runtime's arena has its size after the first


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Why no memory was measured."""

    why: str


def peak_memory(
    runtime: str,
    graph: Path | Artifact,
    source: Path | None,
    x: Arrays,
    threads: int,
    registry: Registry | None = None,
) -> Memory | NotMeasured:
    """Run ``x`` through a model in a process of its own.

    Nothing is measured where the system does not tell (it has no /proc), or the back end is of a module that was given
    to a manager and that no other process can import.

    Raises:
        BundleError: the process fails.
    """
    if not Path("/proc/self/status").exists():
        return NotMeasured("this system does not tell: it has no /proc")
    with scratch_folder() as folder:
        batch = folder / "x.npz"
        # By their places: a name may be any text.
        np.savez(batch, allow_pickle=False, **{str(i): array for i, array in enumerate(x.values())})
        asked: dict[str, Any] = {"runtime": runtime, "source": str(source), "x": str(batch)}
        artifact = graph if isinstance(graph, Artifact) else Artifact(graphs={MODEL: graph})
        asked |= {"graphs": {name: str(path) for name, path in artifact.graphs.items()}}
        asked |= {"driver": artifact.driver, "states": dict(artifact.states), "run_axes": artifact.run_axes}
        given = [p.name for p in (registry or default_registry()).manager.plugins if p.origin == GIVEN]
        asked |= {"names": list(x), "threads": threads, "plugins": given}
        command = [sys.executable, "-m", "pocketzoo.measure.peak_memory", json.dumps(asked)]
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]  # plugins may be anywhere on it
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    if done.returncode == NOT_FOUND:
        return NotMeasured(f"no other process can import the back end of {runtime}")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise BundleError(
            f"{next(iter(artifact.graphs.values()))} does not run in a process of its own: {reason}",
            "run it without --memory",
        )
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _resident(what: str) -> int:
    """A line of /proc/self/status. Not getrusage: what it says resumes from the process that this one was made by."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main() -> None:
    """What the fresh process does."""
    asked = json.loads(sys.argv[1])
    try:
        given = [import_module(name) for name in asked["plugins"]]
        registry = Registry(create_manager(extra=given)) if given else default_registry()
        spec = find_runtime(asked["runtime"], registry).backend
    except (ImportError, UnknownNameError):
        sys.exit(NOT_FOUND)
    import_module(spec.module)
    imports = _resident("VmRSS")
    with np.load(asked["x"]) as arrays:
        x = {name: arrays[str(i)] for i, name in enumerate(asked["names"])}
    graphs = {name: Path(path) for name, path in asked["graphs"].items()}
    states, axes = asked["states"], asked["run_axes"]
    artifact = Artifact(graphs=graphs, driver=asked["driver"], states=states, run_axes=axes)
    source, threads = Path(asked["source"]), asked["threads"]

    def start(path: Path) -> Runner:
        return open_runner(asked["runtime"], path, source, threads=threads, registry=registry)

    with open_artifact(artifact, start) as runner:
        for _ in range(RUNS):
            runner.infer(x)
    print(json.dumps({"peak": _resident("VmHWM"), "imports": imports}))


if __name__ == "__main__":
    try:
        main()
    except PocketzooError as error:
        sys.exit(error.message)  # the last line on stderr is the reason
