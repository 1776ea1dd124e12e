"""What a plugin of 10,000 backbones costs: listing all of them, and lookups. Writes benchmarks/results/registry.json.

Usage: python benchmarks/registry.py [--names 10000] [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from record import write

PLUGIN = '''"""{count} backbones, as a package that wraps a large model zoo would declare them."""

from pocketzoo import hookimpl
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, InputSpec

FAMILIES = ("convnext", "efficientnet", "mobilenet", "resnet", "vit")
SIZES = ("tiny", "small", "base", "large")
INPUT = InputSpec(shape=("batch", 3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, resize=256)
FEATURES = FeatureSpec("map", ("batch", 512, 7, 7))


def build():
    raise NotImplementedError


@hookimpl
def pocketzoo_backbones():
    return [
        BackboneSpec(
            name=f"{{FAMILIES[i % 5]}}-{{i:05}}-{{SIZES[i // 5 % 4]}}",
            summary="a made-up network of the benchmark",
            license="Apache-2.0",
            input=INPUT,
            features=FEATURES,
            build=build,
        )
        for i in range({count})
    ]
'''
# What is looked up, and what it is.
PATTERNS = {
    "efficientnet-00421-tiny": "a name",
    "resnet-0001*": "a start",
    "*0123*": "a part",
    "*99-large": "an end",
    "vit-*74-base": "a start and an end",
    "vit-0?1[49]*": "a set and a place",
    "*quantum*": "a part that none has",
    "*": "everything",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), options.names)
        rows = processes(Path(folder), options.runs)
        sys.path.insert(0, folder)
        lookups, collect = measure(options.runs)
    for name, row in rows.items():
        print(f"{name:32} median {row['median_s']:.3f} s, fastest {row['min_s']:.3f} s")
    for row in lookups:
        print(f"{row['pattern']:32} {row['found']:6} found, {row['ms']:.3f} ms; one by one {row['naive_ms']:.3f} ms")
    write(
        "registry",
        {"names": options.names, "runs": options.runs, "rows": rows, "collect_s": collect, "lookups": lookups},
    )


def install(folder: Path, count: int) -> None:
    """What pip leaves after for a package with one module and an entry point."""
    (folder / "large_zoo.py").write_text(PLUGIN.format(count=count))
    info = folder / "large_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: large-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pocketzoo]\nlarge-zoo = large_zoo\n")


def processes(folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Whole processes, in turn, so that a slow moment of the machine hits all alike."""
    pocketzoo = [sys.executable, "-m", "pocketzoo"]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    every, none = ({"PYTHONPATH": path, "POCKETZOO_PLUGINS": p} for p in ("large-zoo", ""))
    commands = {
        "list, without the plugin": (["list"], none),
        "list": (["list"], every),
        "list --json": (["list", "--json"], every),
        'list "resnet-0001*"': (["list", "resnet-0001*"], every),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, (words, environment) in commands.items():
            start = time.perf_counter()
            subprocess.run(
                [*pocketzoo, *words], stdout=subprocess.DEVNULL, check=True, env={**os.environ, **environment}
            )
            times[name].append(time.perf_counter() - start)
    return {
        name: {"median_s": round(statistics.median(t[1:]), 4), "min_s": round(min(t[1:]), 4)}
        for name, t in times.items()
    }


def measure(runs: int) -> tuple[list[dict[str, object]], float]:
    """Lookups in one process, each pattern as if it had never been asked for, and what asking the plugin costs."""
    import large_zoo

    from pocketzoo.zoo.catalog.plugin_manager import create_manager
    from pocketzoo.zoo.catalog.registry import Registry

    start = time.perf_counter()
    registry = Registry(create_manager(points=[], extra=[large_zoo]))
    names = list(registry.entries("backbone"))
    list(registry.find("?", "backbone"))  # the text that is searched is made once
    collect = time.perf_counter() - start

    def found(pattern: str) -> list[str]:
        re.purge()
        return [entry.name for entry in registry.find(pattern, "backbone")]

    rows = []
    for pattern, what in PATTERNS.items():
        wanted = [name for name in names if fnmatchcase(name, pattern)]
        if found(pattern) != wanted:
            raise SystemExit(f"{pattern!r} finds something else than asking each name does")
        rows.append(
            {
                "pattern": pattern,
                "what": what,
                "found": len(wanted),
                "ms": fastest(lambda p=pattern: found(p), runs),
                "naive_ms": fastest(lambda p=pattern: [name for name in names if fnmatchcase(name, p)], runs),
            }
        )
    return rows, round(collect, 4)


def fastest(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 4)


if __name__ == "__main__":
    main()
