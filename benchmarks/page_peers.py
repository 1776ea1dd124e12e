"""The tables of benchmarks/results/peers.json, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import ge, le, lt
from typing import Any

import numpy as np
from intervals import of_mean

Row = dict[str, Any]
CROPS, TEXTS = "efficientnet-lite0", "minilm"
ORT, CPU, NVIDIA = "onnxruntime, MinMax, uint8 activations", "pocketzoo, for cpu", "pocketzoo, for tensorrt-rtx"
SYMMETRIC = ("onnxruntime, symmetric int8, float biases", "Model Optimizer, max")  # in NVIDIA's encoding
NO_DATA = f"{CPU}, no data"
ASKED = ("", "asked", "measured", "met")
DYNAMIC = "onnxruntime, dynamic"
PRUNED = {"0.1": (0.94, 8), "0.2": (0.86, 5), "0.3": (None, None)}  # ratio -> agreement, dB that are asked for


def render(result: dict[str, Any]) -> str:
    """All tables, the bars last."""
    crops, texts = result["models"][CROPS], result["models"][TEXTS]
    cut = [row for row in crops if "channels" in row["name"] or "MACs" in row["name"]]
    int8 = [row for row in crops if row not in cut]
    tests, sentences = result["samples"][CROPS], result["samples"][TEXTS]
    shape = result["shapes"][TEXTS][-1]
    bars = Bars()
    bars.int8(crops, texts, result.get("groups", {}))
    bars.cut(crops)
    return f"""EfficientNet-Lite0 with its ImageNet weights, int8: {tests[0]} crops of photographs calibrate,
{_tested(tests[1], crops, "photographs")}; intervals of 95% are over the sources. Time is wall-clock time and, in
brackets, CPU time of all cores, without imports. Latency is that of one crop on one thread of onnxruntime's CPU
provider, all graphs in turn, the minimum over the rounds; x: median speedup over float32.

{table(INT8, int8)}

{_reasons(int8)}
The same network with channels removed in one shot, no training. Ours removes the fraction in the row; Torch-Pruning
then prunes down to as many multiply-accumulates.

{table(CUT, [crops[0], *cut])}

{_reasons(cut, "failed")}
all-MiniLM-L6-v2, int8: {sentences[0]} sentences calibrate, {_tested(sentences[1], texts, "documents")},
each by itself and unpadded. Latency is that of a sentence of {shape} tokens.

{table(TEXT, texts)}

{_reasons(texts)}
The bars for pocketzoo, and what it reached in this run:

{render_table(ASKED, bars.lines)}

The tools: {_versions([*crops, *texts])}.
"""


def render_int8(result: dict[str, Any]) -> str:
    """The table of benchmarks/results/int8.json, the bars last."""
    crops, texts, many = result["models"][CROPS], result["models"][TEXTS], result["many"]
    bars = Bars()
    bars.int8(crops, texts, result.get("groups", {}))
    few, more = _finished(crops).get(CPU, {}), _finished(crops).get(f"{CPU}, {many:,} samples", {})
    grown = more["peak_mb"] / few["peak_mb"] - 1 if few and more else None
    name = f"EfficientNet-Lite0: peak memory with {many:,} samples over that with {result['samples'][CROPS][0]}"
    bars.ask(name, "within 5%", grown, lambda v: abs(v) <= 0.05, "{:+.1%}")
    noise = ", ".join(f"{kept:.3f} at {decibels} dB" for decibels, kept in result["noise"].items())
    return f"""{render_table(["EfficientNet-Lite0", *INT8], _cells(INT8, crops))}

Agreement on these crops under white noise on the float32 outputs: {noise}.

{_reasons(crops)}
{render_table(["MiniLM", *TEXT], _cells(TEXT, texts))}

{_reasons(texts)}
{render_table(ASKED, bars.lines)}
"""


def _time(row: Row, _: Row) -> str:
    return f"{row['seconds']:.1f} s ({row['cpu_seconds']:.1f})" if "seconds" in row else "-"


def _peak(row: Row, _: Row) -> str:
    return f"{row['peak_mb']:,.0f} MB" if "peak_mb" in row else "-"


def _sqnr(row: Row, _: Row) -> str:
    return "-" if row["sqnr"] is None else _with_interval(row, "sqnr", 1)


def _with_interval(row: Row, name: str, digits: int) -> str:
    text = f"{row[name]:.{digits}f}"
    if f"{name}_interval" in row and "versions" in row:  # the float graph's own are certain
        low, high = row[f"{name}_interval"]
        text += f" ({low:.{digits}f}-{high:.{digits}f})"
    return text


def _bytes(row: Row, first: Row) -> str:
    return f"{row['bytes'] / 1e6:.1f} ({first['bytes'] / row['bytes']:.1f}x)"


def _latency(row: Row, _: Row) -> str:
    return f"{row['latency']['ms']:.2f} ({row['latency']['ratio']:.2f}x)"


def _nvidia(row: Row, _: Row) -> str:
    said = row["nvidia"]
    return "built" if said["built"] else "parsed, not built" if said["accepted"] else "refused"


def _share(row: Row, first: Row) -> str:
    return f"{row['macs'] / 1e6:.0f} ({row['macs'] / first['macs']:.0%})"


def _kept(name: str, digits: int = 3) -> Callable[[Row, Row], str]:
    return lambda row, _: _with_interval(row, name, digits)


Columns = dict[str, Callable[[Row, Row], str]]
COSTS: Columns = {"time": _time, "peak memory": _peak}
REST: Columns = {"MB": _bytes, "latency, ms": _latency, "NVIDIA's parser": _nvidia}
INT8: Columns = {**COSTS, "agreement": _kept("agreement"), "SQNR dB": _sqnr, **REST}
CUT: Columns = {**COSTS, "MMACs": _share, "agreement": _kept("agreement"), "SQNR dB": _sqnr, **REST}
TEXT: Columns = {
    **COSTS,
    "cosine": _kept("cosine", 4),
    "same nearest neighbor": _kept("neighbours"),
    "SQNR dB": _sqnr,
    **REST,
}


def table(columns: Columns, rows: Sequence[Row]) -> str:
    """A row a tool; the first is what the others are compared with."""
    return render_table(["by", *columns], _cells(columns, rows))


def _cells(columns: Columns, rows: Sequence[Row]) -> list[list[str]]:
    return [
        [row["name"], "failed", *["-"] * (len(columns) - 1)]
        if "failed" in row
        else [row["name"], *[column(row, rows[0]) for column in columns.values()]]
        for row in rows
    ]


def _reasons(rows: Sequence[Row], *kinds: str) -> str:
    """Why a row failed, or NVIDIA's parser refused it: each reason once."""
    found: dict[str, list[str]] = {}
    for row in rows:
        reason = row.get("failed") or ("" if kinds else row["nvidia"]["reason"])
        if reason:
            found.setdefault(_short(reason), []).append(row["name"])
    lines = [f"- {'; '.join(names)}: {reason}" for reason, names in found.items()]
    return "\n".join([*lines, ""]) if lines else ""


def _short(reason: str) -> str:
    """A reason fit for a line of the page: without the file's name, which says nothing, and not past 200 characters."""
    text = " ".join(reason.split()).replace("|", "/").replace("<", "(").replace(">", ")")
    head, refuses, rest = text.partition("'s parser refuses ")
    if refuses:
        text = f"{head}{refuses}it: {rest.partition(': ')[2]}"
    return text if len(text) <= 200 else f"{text[:200]}..."


class Bars:
    """What is asked of pocketzoo, line by line, and what it did."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = []

    def ask(self, what: str, asked: str, value: float | None, met: Callable[[float], bool], form: str) -> None:
        """A bar; a value of None: there is no such row."""
        told = "failed" if value is None else form.format(value)
        self.lines.append([what, asked, told, "yes" if value is not None and met(value) else "**no**"])

    def int8(self, crops: Sequence[Row], texts: Sequence[Row], groups: dict[str, list[int]]) -> None:
        """Those of int8: costs of making it, how near it is, and how fast, beside what others made in this run."""
        images, words = _finished(crops), _finished(texts)
        ours, rival, name = images.get(CPU, {}), images.get(ORT, {}), "EfficientNet-Lite0, int8 for cpu"
        self.ask(f"{name}: time", "45 s", ours.get("seconds"), partial(ge, 45), "{:.1f} s")
        self.ask(f"{name}: peak memory", "700 MB", ours.get("peak_mb"), partial(ge, 700), "{:,.0f} MB")
        more = _decibels_above(ours, rival)
        self.ask(f"{name}: SQNR above onnxruntime's static graph", "5 dB", more, partial(le, 5), "{:+.1f} dB")
        if ours and rival and groups:
            both = [np.array(list(row["kept"]), np.float64) for row in (ours, rival)]
            low, high = of_mean(both[0] - both[1], np.array(groups[CROPS]))
            told, met = f"{low:+.3f} to {high:+.3f}", "yes" if high >= 0 else "**no**"
            self.lines.append([f"{name}: agreement less onnxruntime's, paired", "not below 0", told, met])
        share = rival["latency"]["ratio"] / ours["latency"]["ratio"] if ours and rival else None
        self.ask(f"{name}: latency over onnxruntime's static graph", "0.93", share, partial(ge, 0.93), "{:.2f}")
        if NO_DATA in images:
            less = _decibels_above(images[NO_DATA], ours)
            self.ask(f"{name}, without data: SQNR over that with", "-3 dB", less, partial(le, -3), "{:+.1f} dB")
        ours, name = images.get(NVIDIA, {}), "EfficientNet-Lite0, int8 for tensorrt-rtx"
        rivals = {n: row for n, row in images.items() if n in SYMMETRIC or n.startswith("Model Optimizer")}
        for rival_name, rival in rivals.items() if ours else ():
            more = _decibels_above(ours, rival)
            self.ask(f"{name}: SQNR above {rival_name}", "3 dB", more, partial(le, 3), "{:+.1f} dB")
        self.lines.append([f"{name}: engine", "built", *_yes(float(ours["nvidia"]["built"]) if ours else None)])
        ours, rival, name = words.get(CPU, {}), words.get(DYNAMIC, {}), "MiniLM, int8 for cpu"
        self.ask(f"{name}: time", "45 s", ours.get("seconds"), partial(ge, 45), "{:.1f} s")
        self.ask(f"{name}: peak memory", "700 MB", ours.get("peak_mb"), partial(ge, 700), "{:,.0f} MB")
        self.ask(f"{name}: cosine", "0.998", ours.get("cosine"), partial(le, 0.998), "{:.4f}")
        self.ask(f"{name}: same neighbor", "0.92", ours.get("neighbours"), partial(le, 0.92), "{:.3f}")
        if rival:
            speed = ours["latency"]["ratio"] / rival["latency"]["ratio"] if ours else None
            self.ask(f"{name}: faster than onnxruntime's dynamic graph", "1.15x", speed, partial(le, 1.15), "{:.2f}x")

    def cut(self, crops: Sequence[Row]) -> None:
        """Those of channels that are removed."""
        images = _finished(crops)
        for ratio, (least, decibels) in PRUNED.items():
            row, name = images.get(f"pocketzoo, {ratio} of the channels", {}), f"EfficientNet-Lite0, {ratio}"
            kept = row.get("agreement")
            if least is not None and decibels is not None:
                what = f"{name} of the channels removed"
                self.ask(f"{what}: agreement", f"{least}", kept, partial(le, least), "{:.3f}")
                self.ask(f"{what}: SQNR", f"{decibels} dB", row.get("sqnr"), partial(le, decibels), "{:.1f} dB")
            rivals = [r["agreement"] for rival, r in images.items() if rival.endswith(f"as many MACs as {ratio}")]
            if rivals:
                best = max(rivals)
                self.ask(f"{name} removed: above Torch-Pruning", f"above {best:.3f}", kept, partial(lt, best), "{:.3f}")


def _decibels_above(ours: Row, rival: Row) -> float | None:
    known: list[float] = [row["sqnr"] for row in (ours, rival) if row.get("sqnr") is not None]
    return known[0] - known[1] if len(known) == 2 else None


def _tested(count: int, rows: Sequence[Row], what: str) -> str:
    """Samples and their sources; results of before the samples were divided by source say of none."""
    sources = rows[0].get("test_sources")
    return f"{count} others of the same sources test" if sources is None else f"{count} of {sources} other {what} test"


def _finished(rows: Sequence[Row]) -> dict[str, Row]:
    return {row["name"]: row for row in rows if "failed" not in row}


def _yes(value: float | None) -> list[str]:
    return ["failed", "**no**"] if value is None else ["built", "yes"] if value else ["not built", "**no**"]


def _versions(rows: Sequence[Row]) -> str:
    """Each tool with what it ran on."""
    found: dict[str, str] = {}
    for row in rows:
        if "versions" in row:
            found[row["tool"]] = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return "; ".join(f"{tool} ({packages})" for tool, packages in found.items())


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
