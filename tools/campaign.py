"""Attack pocketzoo by seed, and add up what was tried and found: the kinds of work are the modules in ``KINDS``.

    python tools/campaign.py --kind fuzz --seed 3 --minutes 30   # one shard, kept below benchmarks/results
    python tools/campaign.py --smoke                             # every kind, shortly; nothing is kept

A kind is a module with ``run(seed, seconds, folder)``, which gives a ``Shard``: how much of what was tried, and a line
for each finding. Shards of one commit add up; the same shard again takes the place of the earlier one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "campaign.json"
KINDS = {  # name -> module here
    "fuzz": "campaign_fuzz",
    "kills": "campaign_kills",
    "chaos": "campaign_chaos",
    "hostile": "campaign_hostile",
}
LONGEST = 30.0  # minutes of a shard
MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None  # small files are written by the thousand
SMOKE = 90.0  # seconds of all kinds together


@dataclass
class Shard:
    """What one shard tried, by what it is called, and what it found: one line each."""

    tried: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to what was tried."""
        self.tried[what] = self.tried.get(what, 0) + number


def work(kind: str) -> Callable[[int, float, Path], Shard]:
    """The function of a kind."""
    run: Callable[[int, float, Path], Shard] = import_module(KINDS[kind]).run
    return run


def commit() -> str:
    """What is tried: a commit, with "+" where files of the package differ from it."""
    head = ["git", "rev-parse", "--short=12", "HEAD"]
    name = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "pocketzoo"], cwd=ROOT, check=False).returncode
    return name + "+" * bool(changed)


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Put a shard into the file, in place of an earlier one of the same commit, kind and seed."""
    shards = json.loads(path.read_text("utf8"))["shards"] if path.is_file() else []
    same = ("commit", "kind", "seed")
    shards = [each for each in shards if any(each[key] != entry[key] for key in same)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shards": [*shards, entry]}, indent=1) + "\n", "utf8")


def totals(shards: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Commit -> kind -> how many shards, what was tried in all of them, and how much was found."""
    sums: dict[str, dict[str, dict[str, int]]] = {}
    for shard in shards:
        of_kind = sums.setdefault(shard["commit"], {}).setdefault(shard["kind"], {"shards": 0, "findings": 0})
        of_kind["shards"] += 1
        of_kind["findings"] += len(shard["findings"])
        for what, number in shard["tried"].items():
            of_kind[what] = of_kind.get(what, 0) + number
    return sums


def main() -> int:
    """Run what the command line asks for; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="default: all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0, help=f"of each kind, up to {LONGEST:.0f}")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE:.0f} seconds for all kinds; nothing is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file that shards are kept in")
    asked = parser.parse_args()
    if not 0 < asked.minutes <= LONGEST:
        parser.error(f"--minutes is up to {LONGEST:.0f}: take more seeds")
    kinds = asked.kind or list(KINDS)
    found = 0
    for kind in kinds:
        start, tried = time.monotonic(), commit()
        with tempfile.TemporaryDirectory(prefix="campaign-", dir=MEMORY_DISK) as folder:
            shard = work(kind)(asked.seed, SMOKE / len(kinds) if asked.smoke else asked.minutes * 60, Path(folder))
        seconds = round(time.monotonic() - start, 1)
        entry = {"commit": tried, "kind": kind, "seed": asked.seed, "seconds": seconds, **asdict(shard)}
        if not asked.smoke:
            keep(asked.out, entry)
        print(f"{kind} {asked.seed}: {sum(shard.tried.values()):,} in {seconds:.0f} s, {len(shard.findings)} findings")
        for finding in shard.findings:
            print(f"  {finding}")
        found += len(shard.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
