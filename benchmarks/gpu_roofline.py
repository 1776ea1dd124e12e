"""What a GPU could do at best with a model, held against what it did: the roofline of the same run, and the table.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 2009: a kernel can be no
faster than its operations at the peak rate, nor than its bytes at the peak bandwidth.
"""

from __future__ import annotations

from typing import Any

NOTHING = "-"


def attainable(operations: float, traffic: float, rate: float, bandwidth: float) -> float:
    """Seconds that this much work takes at the least: ``operations`` at ``rate`` a second, bytes at ``bandwidth``."""
    return max(operations / rate, traffic / bandwidth)


def share(row: dict[str, Any], model: dict[str, Any], roofline: dict[str, Any]) -> float | None:
    """The fraction of what could be reached that a row reached; None where no peak was measured for its precision.

    Traffic is what cannot be avoided: weights and samples once in, outputs once out. A model whose weights stay in the
    cache from one run to the next can do with less, and come out above 1.
    """
    rate = roofline["operations_per_s"].get(row["precision"])
    if rate is None or not row.get("ms"):
        return None
    traffic = (
        model["weights"] * WIDTH[row["precision"]] + row["batch"] * model["sample_values"] * WIDTH[row["precision"]]
    )
    best = attainable(model["operations"] * row["batch"], traffic, rate, roofline["bytes_per_s"])
    return best / (row["ms"] / 1e3)


# Bytes of a number; of a 2:4 matrix half of the values, and two bits of where each of them stands.
WIDTH = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp16 2:4": 2.0 * 0.5 + 0.125}


def render(result: dict[str, Any]) -> str:
    """Peaks, rows and what did not run, as Markdown."""
    roofline = result["roofline"]
    peaks = [
        [precision, f"{rate / 1e12:,.1f} T/s"]
        for precision, rate in roofline["operations_per_s"].items()
    ] + [["copy", f"{roofline['bytes_per_s'] / 1e9:,.0f} GB/s"]]  # fmt: skip
    rows, missing = [], []
    for name, model in result["models"].items():
        first: dict[int, float] = {}
        for row in model["rows"]:
            if "why" in row:
                missing.append(f"- {name}, {row['way']}, {row['precision']}, batch {row['batch']}: {row['why']}")
                continue
            first.setdefault(row["batch"], row["ms"])
            reached = share(row, model, roofline)
            rows.append(
                [
                    name, str(row["batch"]), row["way"], row["precision"],
                    NOTHING if row["sqnr"] is None else f"{row['sqnr']:.0f}",
                    f"{row['ms']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
                    f"{first[row['batch']] / row['ms']:.1f}x",
                    f"{row['batch'] / row['ms'] * 1e3:,.0f}", NOTHING if reached is None else f"{reached:.0%}",
                ]
            )  # fmt: skip
    head = ["model", "batch", "way", "precision", "SQNR dB", "ms (quarter to three quarters)", "faster", "samples/s",
            "of the roofline"]  # fmt: skip
    parts = ["Peaks, each of a large matrix product, and of a copy:", _table(["precision", "measured"], peaks)]
    parts += [_table(head, rows)] if rows else []
    parts += ["Not run, or wrong:\n\n" + "\n".join(missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
