"""An agent from nothing to int8: the Q-network of CartPole-v1, how long it learns, and how it plays before and after.

Usage: python benchmarks/cartpole.py [--seeds 3]. Writes benchmarks/results/cartpole.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write

import pocketzoo
from pocketzoo.compress.configs import Int8Config

ENVIRONMENT = "CartPole-v1"


def learned(folder: Path, seed: int) -> dict[str, Any]:
    """One agent: trained, quantized, and played with, each as a user would."""
    out, states = folder / f"seed-{seed}", folder / f"states-{seed}.npz"
    start, cpu = time.perf_counter(), time.process_time()
    bundle = pocketzoo.fit_agent(ENVIRONMENT, out, seed=seed, states=states)
    took, worked = time.perf_counter() - start, time.process_time() - cpu
    small = pocketzoo.compress(out, folder / f"int8-{seed}", data=states, steps=[Int8Config()], keep_slower=True)
    return {
        "seed": seed,
        "wall_s": took,
        "cpu_s": worked,
        "evaluations": bundle.manifest.provenance["training"]["returns"],
        "metrics": dict(bundle.manifest.metrics),
        "played_float32": pocketzoo.play(out).mean,
        "played_int8": pocketzoo.play(small.path).mean,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as folder:
        write("cartpole", {"environment": ENVIRONMENT, "runs": [learned(Path(folder), seed) for seed in seeds]})


if __name__ == "__main__":
    main()
