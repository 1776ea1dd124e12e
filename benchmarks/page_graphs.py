"""docs/graphs.md: the graphs that tools/graph_campaign.py generated, and what was wrong with what became of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from campaign import totals
from graph_campaign import KIND

HEAD = """# Generated graphs

Written by `python benchmarks/page.py` from `benchmarks/results/graphs.json`; do not edit.

`python tools/graph_campaign.py --seed N --minutes M` generates graphs over ONNX's own operators, the same for the same
seed, valid by onnx.checker: operators with weights (convolutions of one to three axes, Gemm, MatMul, Einsum, LSTM, GRU,
RNN, tables, heads of attention) and what lies between them: activations and norms, whole or in parts, gates, masks down
to minus infinity, resizing, padding, computed shapes, sequences, another type in between, parts without values.
Operands are stored, made by Constant nodes, computed from constants, computed at run time or left out; opsets 7 to 25,
IR 3 upwards; If, Loop, Scan and functions, nested, that read constants around them; weights that are zero, alike, tiny,
shared along other axes, read by Gather, or outputs; several inputs and outputs, of floats, whole numbers and truth
values; the batch first, second, fixed or absent, and other axes free; names that look like ours, inputs that nobody
reads, constants that a caller may replace.

Each is imported, calibrated and written in eight bits in each way that a target asks for. Then

- the imported graph gives what the file gives, and so does what layers are rewritten to before they are quantized;
- the 8-bit graph is valid, and gives the same in onnxruntime with all of its rewriting and with none, and in ONNX's
  reference evaluator where that has the operators and agrees on each tensor of the float graph;
- it differs from the float graph by what rounding to its steps makes there, simulated without a Q/DQ node: where a norm
  of nearly equal values makes much of little, by what one of 256 such simulations makes;
- of a single operator no value is further off than |dW| |x| + |W| |dx| + |dW| |dx| + |db|;
- parameters and multiply-accumulates of both are what is counted once more from the arrays of a run;
- of one graph in a hundred, a whole `compress` ends well, and bytes, parameters and multiply-accumulates in its table
  and manifest are counted once more;
- nothing is refused, nothing ends in a traceback or ends the process, and a layer that stays in floats is named with
  the reason.

Shards of one commit add up. A finding is a graph of which one of these is not so.
"""


def render(result: dict[str, Any]) -> str:
    """The whole page: the newest commit, and of older ones their sums."""
    commits = totals(result["shards"])
    newest = result["shards"][-1]["commit"]
    sums = dict(commits[newest][KIND])
    shards, findings = sums.pop("shards"), sums.pop("findings")
    own = [shard for shard in result["shards"] if shard["commit"] == newest]
    minutes = sum(shard["seconds"] for shard in own) / 60
    said = f"{shards} shard{'s' * (shards > 1)}, {minutes:.0f} minutes, {sums.pop('graphs'):,} graphs"
    parts = [HEAD, f"## Commit {newest}\n", f"{said}, {findings} findings.\n"]
    rows = [("of these", "count"), ("---", "---:"), *((what, f"{number:,}") for what, number in sorted(sums.items()))]
    parts.append("\n".join(f"| {left} | {right} |" for left, right in rows) + "\n")
    parts += [f"- `{finding.replace('`', chr(39))}`" for shard in own for finding in shard["findings"]]
    if findings:
        parts.append("")
    older = [commit for commit in reversed(commits) if commit != newest]
    if older:
        parts.append("## Earlier commits\n\nWhat was found in them is in the file, a line each.\n")
        table = [("commit", "shards", "graphs", "findings"), ("---", "---:", "---:", "---:")]
        for commit in older:
            each = commits[commit][KIND]
            table.append((commit, f"{each['shards']}", f"{each['graphs']:,}", f"{each['findings']}"))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")
    return "\n".join(parts).rstrip() + "\n"
