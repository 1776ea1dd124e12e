"""The tables of benchmarks/results/peers.json, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import le, lt
from typing import Any

Row = dict[str, Any]
CROPS, TEXTS = "efficientnet-lite0", "minilm"
ORT, CPU, NVIDIA = "onnxruntime, MinMax, uint8 activations", "pocketzoo, for cpu", "pocketzoo, for tensorrt-rtx"
SYMMETRIC = ("onnxruntime, symmetric int8, float biases", "Model Optimizer, max")  # in NVIDIA's encoding
NO_DATA = f"{CPU}, no data"
ASKED = ("", "asked", "measured", "met")
PRUNED = {"0.1": 0.97, "0.2": 0.95, "0.3": 0.93}  # ratio -> agreement that is asked for


def render(result: dict[str, Any]) -> str:
    """All tables, the bars last."""
    crops, texts = result["models"][CROPS], result["models"][TEXTS]
    cut = [row for row in crops if "channels" in row["name"] or "MACs" in row["name"]]
    int8 = [row for row in crops if row not in cut]
    tests, sentences = result["samples"][CROPS], result["samples"][TEXTS]
    shape = result["shapes"][TEXTS][-1]
    bars = Bars()
    bars.int8(crops, texts)
    bars.cut(crops)
    return f"""EfficientNet-Lite0 with its ImageNet weights, int8: {tests[0]} crops of photographs calibrate,
{tests[1]} others test. Time is wall-clock time and, in brackets, CPU time of all cores, without imports. Latency is
that of one crop on one thread of onnxruntime's CPU provider, all graphs in turn, the minimum over the rounds; x: median
speedup over float32.

{table(INT8, int8)}

{_reasons(int8)}
The same network with channels removed in one shot, no training. Ours removes the fraction in the row; Torch-Pruning
then prunes down to as many multiply-accumulates.

{table(CUT, [crops[0], *cut])}

{_reasons(cut, "failed")}
all-MiniLM-L6-v2, int8: {sentences[0]} sentences calibrate, {sentences[1]} others test, each by itself and unpadded.
Latency is that of a sentence of {shape} tokens.

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
    bars.int8(crops, texts)
    bars.unseen(crops)
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
    return "-" if row["sqnr"] is None else f"{row['sqnr']:.1f}"


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
    return lambda row, _: f"{row[name]:.{digits}f}"


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

    def int8(self, crops: Sequence[Row], texts: Sequence[Row]) -> None:
        """Those of int8: costs of making it, how near it is, and how fast."""
        images, words = _finished(crops), _finished(texts)
        for model, found in (("EfficientNet-Lite0", images), ("MiniLM", words)):
            row, name = found.get(CPU, {}), f"{model}, int8 for cpu"
            self.ask(f"{name}: time", "60 s", row.get("seconds"), lambda v: v <= 60, "{:.1f} s")
            self.ask(f"{name}: peak memory", "700 MB", row.get("peak_mb"), lambda v: v <= 700, "{:,.0f} MB")
            if found is images:
                self.ask(f"{name}: SQNR", "25 dB", row.get("sqnr"), lambda v: v >= 25, "{:.1f} dB")
                self.ask(f"{name}: agreement", "0.99", row.get("agreement"), lambda v: v >= 0.99, "{:.3f}")
                rival = images.get(ORT, {})
                both = "latency" in row and "latency" in rival
                slower = rival["latency"]["ratio"] / row["latency"]["ratio"] - 1 if both else None
                self.ask(f"{name}: slower than onnxruntime's own graph", "3%", slower, lambda v: v <= 0.03, "{:+.1%}")
                row, name = images.get(NVIDIA, {}), f"{model}, int8 for tensorrt-rtx"
                self.ask(f"{name}: SQNR", "23 dB", row.get("sqnr"), lambda v: v >= 23, "{:.1f} dB")
                built = float(row["nvidia"]["built"]) if row else None
                self.lines.append([f"{name}: engine", "built", *_yes(built)])
            else:
                self.ask(f"{name}: cosine", "0.997", row.get("cosine"), lambda v: v >= 0.997, "{:.4f}")
                self.ask(f"{name}: same neighbor", "0.92", row.get("neighbours"), lambda v: v >= 0.92, "{:.3f}")
                speed = row["latency"]["ratio"] if row else None
                self.ask(f"{name}: faster than float32", "2.2x", speed, lambda v: v >= 2.2, "{:.2f}x")

    def unseen(self, crops: Sequence[Row]) -> None:
        """Those of int8 beside others' graphs, on photos that nothing was calibrated on."""
        found = {name: row["sqnr"] for name, row in _finished(crops).items() if row.get("sqnr") is not None}

        def above(name: str, rival: str, least: float) -> None:
            if name in found and rival in found:
                what = f"EfficientNet-Lite0, {name}: SQNR above {rival}"
                self.ask(what, f"{least:+} dB", found[name] - found[rival], partial(le, least), "{:+.1f} dB")

        if NO_DATA not in found:  # results of before, on other crops of the photos that calibrated
            return
        above(CPU, ORT, 5)
        for rival in SYMMETRIC:
            above(NVIDIA, rival, 3)
        above(NO_DATA, CPU, -3)

    def cut(self, crops: Sequence[Row]) -> None:
        """Those of channels that are removed."""
        images = _finished(crops)
        for ratio, least in PRUNED.items():
            row, name = images.get(f"pocketzoo, {ratio} of the channels", {}), f"EfficientNet-Lite0, {ratio}"
            kept = row.get("agreement")
            self.ask(f"{name} of the channels removed: agreement", f"{least}", kept, partial(le, least), "{:.3f}")
            rivals = [r["agreement"] for rival, r in images.items() if rival.endswith(f"as many MACs as {ratio}")]
            if rivals:
                best = max(rivals)
                self.ask(f"{name} removed: above Torch-Pruning", f"above {best:.3f}", kept, partial(lt, best), "{:.3f}")
            if ratio == "0.3":
                speed = 1 - 1 / row["latency"]["ratio"] if row else None
                self.ask(f"{name} removed: latency saved", "20%", speed, lambda v: v >= 0.2, "{:.0%}")


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
