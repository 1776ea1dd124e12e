"""docs/half_files.md: the tables of benchmarks/half_files.py."""

from __future__ import annotations

from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-fp16", "fp8")
REASONS = 6  # that are listed of each file
HEAD = """# Files that packages ship, in fp16 and bf16, and as engines

Written by `python benchmarks/page.py` from `benchmarks/results/half_files.json`; do not edit.

`python benchmarks/half_files.py`: what `pocketzoo export --precision fp16` and `bf16` make of each file for
`tensorrt-rtx`. SQNR of each output against float32, in dB, by a simulation that rounds what each node makes; after it,
in brackets, of the graph on onnxruntime's CPU kernels, which compute in float32 between what they round and have none
of bf16. A GPU is between the two. Nodes are those that make floats. Those that compute are all of them but constants
and those that hand on the values they read (casts, reshapes, transposes, slices, concatenations, gathers, pads and
their like), of the graph that is written: before the conversion nodes are joined where fewer compute the same (a scale
after a convolution, a HardSigmoid, a LayerNormalization in many nodes), which "joined" counts, of all nodes. Where an
output would have less than 40 dB (bf16: 25), nodes stay in 32 bits, by where rounding makes the error.
"""
ENGINES = """## Engines

Whether NVIDIA's builder makes an engine for TensorRT-RTX, in MB. int8 was calibrated on a few samples for the table;
engines with 8 bits may be of an older commit than the rest, as `--halves` leaves them as they were recorded.
"""


def render(result: dict[str, Any]) -> str:
    """The page."""
    parts = [HEAD]
    lines = [
        "| file | precision | nodes that compute | all nodes | joined | SQNR, dB | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, file in result["files"].items():
        for precision, row in file["halves"].items():
            share = f"{_share(row)} | {row['nodes']} of {row['of']} | {_joined(row)}"
            own = f"{name}{' (random inputs)' * file['random']}"
            lines.append(f"| {own} | {precision} | {share} | {_ratios(row)} | {row['seconds']:.0f} |")
    parts.append("\n".join(lines) + "\n")
    for name, file in result["files"].items():
        left = file["halves"]["fp16"]["left"]
        if left:
            parts.append(f"In 32 bits of {name} (`{file['file']}`), in fp16:\n")
            shown = [f"- {count} node{'s' * (count > 1)}: {_short(why)}" for why, count in list(left.items())[:REASONS]]
            rest = sum(list(left.values())[REASONS:])
            parts.append("\n".join([*shown, *([f"- {rest} more"] if rest else [])]) + "\n")
    table = [f"| file | {' | '.join(PRECISIONS)} |", f"|{' --- |' * (len(PRECISIONS) + 1)}"]
    refused = []
    for name, file in result["files"].items():
        cells = []
        for precision in PRECISIONS:
            engine = file["engines"].get(precision, {})
            cells.append(f"{engine['bytes'] / 1e6:.1f}" if "bytes" in engine else "refused" if engine else "-")
            if "refused" in engine:
                refused.append(f"- {name}, {precision}: {_short(engine['refused'])}")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*parts, ENGINES, "\n".join(table) + "\n", *(["\n".join(refused) + "\n"] if refused else [])])


def _share(row: dict[str, Any]) -> str:
    if "computing" not in row:
        return "-"
    computing, of = row["computing"], row["of computing"]
    return f"{computing} of {of} ({computing / max(of, 1):.1%})"


def _joined(row: dict[str, Any]) -> str:
    given, written = row.get("given", 0), row.get("written", 0)
    return f"{given} to {written}" if written < given else "-"


def _ratios(row: dict[str, Any]) -> str:
    run = row["onnxruntime"]  # of none where it lacks kernels
    cells = [_ratio(ratio) + (f" ({_ratio(run[name])})" if name in run else "") for name, ratio in row["sqnr"].items()]
    return ", ".join(cells)


def _ratio(ratio: float | None) -> str:
    return "equal" if ratio is None else f"{ratio:.1f}"


def _short(text: str) -> str:
    """A reason in one line of a page: names of tensors that are paths lose their middle."""
    words = [word if len(word) < 60 else f"{word[:28]}..{word[-28:]}" for word in " ".join(text.split()).split(" ")]
    return " ".join(words).replace("|", "/")[:180]
