"""docs/campaign.md: what tools/campaign.py tried, and what it found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from campaign import totals

HEAD = """# The campaign

Written by `python benchmarks/page.py` from `benchmarks/results/campaign.json`; do not edit.

`python tools/campaign.py --kind KIND --seed N --minutes M` tries one shard of a kind of attack, the same for the same
seed; shards of one commit add up. A finding is an error that is not two lines, a process that ends, more than 60 s, or
more than 6 GB.
"""
KINDS = {"fuzz": "Inputs of each reader, made of valid ones by a seed, and nonsense of the right shape."}


def render(result: dict[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD]
    for commit, kinds in totals(result["shards"]).items():
        parts.append(f"## Commit {commit}\n")
        for kind, sums in kinds.items():
            shards, findings = sums.pop("shards"), sums.pop("findings")
            of_kind = [each for each in result["shards"] if (each["commit"], each["kind"]) == (commit, kind)]
            minutes = sum(each["seconds"] for each in of_kind) / 60
            parts.append(f"### {kind}\n\n{KINDS.get(kind, '')}\n")
            parts.append(
                f"{shards} shards, {minutes:.0f} minutes, {sum(sums.values()):,} tried, {findings} findings.\n"
            )
            rows = [("tried", "count"), ("---", "---:"), *((what, f"{number:,}") for what, number in sums.items())]
            parts.append("\n".join(f"| {left} | {right} |" for left, right in rows) + "\n")
            parts += [f"- `{finding.replace('`', chr(39))}`" for each in of_kind for finding in each["findings"]]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"
