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
seed; shards of one commit add up. A finding is an error that is not two lines, a process that ends, something lost,
torn or left, more than 60 s, or more than 6 GB.
"""
KINDS = {
    "fuzz": "Inputs of each reader, made of valid ones by a seed, and nonsense of the right shape.",
    "kills": "Commands that write, in forks that die before an operation on files or at a moment, up to five times in"
    " a row; or that the system refuses: full disks, forbidden folders, outputs that nobody reads. Then every bundle"
    " verifies, the same command succeeds, makes what it makes undisturbed, and leaves nothing else.",
    "hostile": "Repositories, graphs and manifests that are made to do harm, opened under an audit hook: no code runs,"
    " nothing is written outside, no connection is opened.",
    "chaos": "Whole commands on damaged data and settings, and in environments that lack something.",
}
KILL = "kill: "  # followed by the command


def kills(tried: dict[str, int]) -> int:
    """How many processes were killed."""
    return tried.get("kills", 0) + sum(number for what, number in tried.items() if what.startswith(KILL))


def split(sums: dict[str, int]) -> tuple[int, int, dict[str, int]]:
    """Shards, findings, and what was tried, of the sums of a kind."""
    tried = {what: number for what, number in sums.items() if what not in ("shards", "findings")}
    return sums["shards"], sums["findings"], tried


def table(kinds: dict[str, dict[str, int]]) -> str:
    """The sums over kinds, and all of them together."""
    rows = [("kind", "shards", "kills", "other inputs", "findings"), ("---", "---:", "---:", "---:", "---:")]
    parts = []
    for kind, sums in kinds.items():
        shards, findings, tried = split(sums)
        parts.append((shards, kills(tried), sum(tried.values()) - kills(tried), findings))
        rows.append((kind, *(f"{number:,}" for number in parts[-1])))
    if len(parts) > 1:
        rows.append(("together", *(f"{sum(column):,}" for column in zip(*parts, strict=True))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def of_kind(kind: str, sums: dict[str, int], shards: list[dict[str, Any]]) -> list[str]:
    """What a kind is, what was tried of it, and each finding."""
    count, findings, tried = split(sums)
    minutes = sum(each["seconds"] for each in shards) / 60
    rows = [("tried", "count"), ("---", "---:"), *((what, f"{number:,}") for what, number in tried.items())]
    each = f"{count} shard{'s' * (count > 1)}, {minutes:.0f} minutes"
    return [
        f"### {kind}\n\n{KINDS[kind]}\n",
        f"{each}, {sum(tried.values()):,} tried, {findings} findings.\n",
        "\n".join(f"| {left} | {right} |" for left, right in rows) + "\n",
        *(f"- `{finding.replace('`', chr(39))}`" for each in shards for finding in each["findings"]),
        "",
    ]


def render(result: dict[str, Any]) -> str:
    """The whole page: the newest commit, and of older ones their sums."""
    commits = totals(result["shards"])
    newest = result["shards"][-1]["commit"]
    parts = [HEAD, f"## Commit {newest}\n", table(commits[newest])]
    for kind, sums in commits[newest].items():
        shards = [each for each in result["shards"] if (each["commit"], each["kind"]) == (newest, kind)]
        parts += of_kind(kind, sums, shards)
    older = [commit for commit in reversed(commits) if commit != newest]
    if older:
        parts.append("## Earlier commits\n\nWhat was found in them is in the file, a line each.\n")
        rows = [("commit", "kind", "shards", "tried", "findings"), ("---", "---", "---:", "---:", "---:")]
        for commit in older:
            for kind, sums in commits[commit].items():
                count, findings, tried = split(sums)
                rows.append((commit, kind, f"{count}", f"{sum(tried.values()):,}", f"{findings}"))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    return "\n".join(parts).rstrip() + "\n"
