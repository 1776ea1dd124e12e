"""The device's environment: what it takes on the disk, how fast a model is ready, how large a bundle is.

Usage: python benchmarks/edge.py [--runs 15]. Needs examples/efficientnet-lite installed, and a package index.
Writes benchmarks/results/edge.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from photos import GROUP, photos, shipped, write_crops
from record import ROOT, write

from pocketzoo.zoo.data.batches import SHARES

MODEL = "efficientnet-lite0"
EXTRAS = ("edge", "edge,text")
CROPS = 128
START = """
import sys, time
begin, used = time.perf_counter(), time.process_time()
import pocketzoo
with pocketzoo.load_runtime(sys.argv[1], threads=1) as runtime:
    ready, worked = time.perf_counter() - begin, time.process_time() - used
    runtime.predict(sys.argv[2])
    print(ready, worked, time.perf_counter() - begin)
"""


def environment(folder: Path, extra: str) -> tuple[Path, dict[str, int]]:
    """An environment with nothing but ``pocketzoo[extra]``: its Python, and bytes by what lies in site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    source = folder.with_name(f"{folder.name}-source")  # building a wheel leaves files alongside what it is made of
    shutil.copytree(ROOT / "pocketzoo", source / "pocketzoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", source / "recipes")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", f"{source}[{extra}]"], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    return python, {entry.name: size(entry) for entry in packages.iterdir()}


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; compiled modules are among them, as pip leaves them."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def startup(python: Path, bundle: Path, runs: int) -> dict[str, float]:
    """Seconds from the first line of a program to a runtime, and to the answer for a photograph; without Python's own.

    Each is a process of its own; the first, which reads all files from the disk, does not count.
    """
    found = []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for _ in range(runs + 1):
        command = [python, "-c", START, bundle, shipped()[0]]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean, cwd=bundle.parent)
        found.append([float(value) for value in done.stdout.split()])
    ready, worked, answered = zip(*found[1:], strict=True)
    return {
        "ready_s": statistics.median(ready),
        "ready_least_s": min(ready),
        "ready_cpu_s": statistics.median(worked),
        "answered_s": statistics.median(answered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    import pocketzoo
    from pocketzoo.compress.configs import Int8Config

    result: dict[str, Any] = {"model": MODEL, "runs": runs, "crops": CROPS, "footprint": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_crops(folder / "photos", round(CROPS / SHARES[0]), 1, photos("calibration"))
        whole = pocketzoo.compress(
            MODEL,
            folder / "int8",
            data=f"{folder / 'photos'}{GROUP}",
            samples=CROPS,
            steps=[Int8Config()],
            keep_slower=True,
        )
        packed = pocketzoo.pack(whole.path, folder / "packed")
        floats = pocketzoo.pack(MODEL, folder / "floats")
        result["bundles"] = {
            "int8, as compress writes it": size(whole.path),
            "int8, packed for a device": size(packed.path),
            "float32, packed for a device": size(floats.path),
        }
        for extra in EXTRAS:
            python, parts = environment(folder / extra.replace(",", "-"), extra)
            largest = dict(sorted(parts.items(), key=lambda item: -item[1])[:8])
            result["footprint"][extra] = {"bytes": sum(parts.values()), "largest": largest}
            print(f"[{extra}] {sum(parts.values()) / 1e6:.1f} MB", flush=True)
            if extra == "edge":
                result["startup"] = {
                    "int8": startup(python, packed.path, runs),
                    "float32": startup(python, floats.path, runs),
                }
    print(json.dumps({key: result[key] for key in ("bundles", "startup")}, indent=1))
    write("edge", result)


if __name__ == "__main__":
    main()
