from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.cli.render import (
    Bars,
    flat,
    print_columns,
    print_decisions,
    print_json,
    print_measurements,
    print_timings,
)
from pocketzoo.measure.measure_graphs import Latency, Measurement
from pocketzoo.measure.peak_memory import Memory
from pocketzoo.zoo.backends.timing import Interval
from pocketzoo.zoo.bundles.step_record import StepReport

FIELDS = ("precision", "target", "samples", "sqnr")
CELL = st.text("abc äöü-", max_size=8)


def row(**changes) -> Measurement:
    values = {
        "bundle": "model", "target": "", "precision": "float32", "runtime": "onnxruntime", "bytes": 1_000_000,
        "parameters": 250_000, "macs": 20_000_000, "samples": 100, "accuracy": 0.975, "agreement": 1.0, "sqnr": None,
        "latency": {"1": Latency(p50=2.0, p99=3.0)}, "threads": 1, **changes,
    }  # fmt: skip
    return Measurement(**values)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6))
def test_columns_are_aligned(rows):
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_columns(rows)
    lines = out.getvalue().split("\n")[:-1]
    assert len(lines) == len(rows)
    widths = [max(len(r[i]) for r in rows) for i in (0, 1)]
    for line, cells in zip(lines, rows, strict=True):
        padded = line.ljust(widths[0] + widths[1] + 4 + len(cells[2]))
        assert padded[: widths[0]].rstrip() == cells[0].rstrip()
        assert padded[widths[0] + 2 :][: widths[1]].rstrip() == cells[1].rstrip()
        assert padded[widths[0] + widths[1] + 4 :].rstrip() == cells[2].rstrip()


def test_no_rows_print_nothing(capsys):
    print_columns([])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [{"a": (1, 2), "ü": None}, [], {"row": row()}, "text", 1.5])
def test_json_is_json(value, capsys):
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) is not ...
    assert "\\u" not in out


@pytest.mark.parametrize(
    ("mapping", "rows"),
    [
        ({"a": 1, "b": {"c": 2, "d": {"e": 3}}}, [("a", "1"), ("b.c", "2"), ("b.d.e", "3")]),
        ({"a": ["x", "y"]}, [("a", "x, y")]),
        ({"a": []}, [("a", "")]),
        ({"a": None, "b": 0, "c": {"d": None, "e": ""}}, [("b", "0"), ("c.e", "")]),
        ({"a": [{"b": 1}, {"b": 2}]}, [("a", "2 entries")]),
        ({"a": list(range(20))}, [("a", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (20)")]),
        ({"a": {}}, [("a", "{}")]),
    ],
)
def test_nested_facts_are_rows(mapping, rows):
    assert list(flat(mapping)) == rows


def test_ratios_are_against_the_first_row(capsys):
    small = row(bundle="small", target="cpu", precision="int8", bytes=250_000, sqnr=30.04,
                latency={"1": Latency(p50=0.5, p99=0.6)}, agreement=0.9)  # fmt: skip
    print_measurements([row(), small])
    lines = capsys.readouterr().out.splitlines()
    assert "1,000" in lines[1]
    assert "x)" not in lines[1]
    assert "250 (4.0x)" in lines[2]
    assert "0.50 (4.0x)" in lines[2]
    assert "int8 for cpu" in lines[2]
    assert "30.0" in lines[2]
    assert "0.900" in lines[2]


def test_what_is_not_known_is_a_dash(capsys):
    print_measurements([row(accuracy=None)])
    assert capsys.readouterr().out.splitlines()[1].split()[2] == "-"


@pytest.mark.parametrize(("threads", "text"), [(1, "1 thread,"), (2, "2 threads,"), (0, "all cores")])
def test_threads_are_told(threads, text, capsys):
    print_measurements([row(threads=threads)])
    assert text in capsys.readouterr().out


def test_a_slower_model_says_so(capsys):
    print_measurements([row(), row(bundle="slow", latency={"1": Latency(p50=4.0, p99=5.0)})])
    assert "4.00 (0.5x)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["[bold]model[/bold]", "model [x]", "[red]"])
def test_names_in_brackets_are_no_markup(name, capsys):
    print_measurements([row(bundle=name)])
    assert name in capsys.readouterr().out


def test_bars_are_silent_where_there_is_no_terminal(capsys):
    assert list(Bars().track(range(3), "working", 3)) == [0, 1, 2]
    Bars().say("half way")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "  half way\n")


def test_graphs_for_another_runtime_get_a_star_and_no_ratio(capsys):
    """onnxruntime runs NVIDIA's encoding on slow kernels; a ratio would be read as what the device does."""
    fast, slow = ({"1": Latency(p50=p, p99=p)} for p in (1.0, 8.0))
    print_measurements([row(), row(target="cpu", latency=fast), row(target="tensorrt-rtx", latency=slow)])
    out = capsys.readouterr().out
    assert "1.00 (2.0x)" in out
    assert "8.00*" in out
    assert "runs the graph for tensorrt-rtx correctly but slowly" in out
    print_measurements([row(), row(target="cpu", latency=fast)])
    assert "*" not in capsys.readouterr().out


def test_numbers_and_digests_are_cut_short_for_reading():
    found = dict(flat({"rate": 0.97214484, "many": [0.123456, 2], "sha256": "ab" * 32, "size": 1464344}))
    assert found == {"rate": "0.9721", "many": "0.1235, 2", "sha256": "abababababab", "size": "1464344"}


def timed(faster: Interval | None = None, p90: float = 2.1, **changes) -> Measurement:
    latency = Latency(p50=2.0, p90=p90, p99=3.0, throughput=500.0, runs=40, faster=faster, clock="cpu")
    return row(latency={"1": latency}, memory=Memory(peak=70_000_000, imports=50_000_000), **changes)


def test_times_are_told_in_full_with_how_sure_they_are(capsys):
    rows = [
        timed(bundle="first"),
        timed(Interval(middle=2.5, low=2.4, high=2.6), bundle="fast"),
        timed(Interval(middle=1.0, low=0.99, high=1.02), bundle="same"),
        row(bundle="old"),
    ]
    print_timings(rows)
    lines = capsys.readouterr().out.splitlines()
    first, fast, same, old = (next(line for line in lines if line.startswith(r.bundle)) for r in rows)
    assert first.split()[2:] == ["1", "2.00", "2.10", "3.00", "500", "-", "-", "70", "20"]
    assert fast.split()[7:11] == ["2.50x", "2.40", "to", "2.60"]
    assert "=" not in fast
    assert "0.99 to 1.02 =" in same
    assert "too few runs" in old
    assert any("CPU time of the thread" in line for line in lines)
    assert not any(line.startswith("~") for line in lines)


def test_times_that_vary_much_are_marked(capsys):
    print_timings([timed(p90=4.0)])
    out = capsys.readouterr().out
    assert "3.00~" in out
    assert "vary much" in out


def test_lengths_are_rows_and_no_columns(capsys):
    latency = {f"{batch}x{tokens}": Latency(p50=1.0, p99=1.0) for batch in (1, 8) for tokens in (32, 128)}
    print_measurements([row(latency=latency)])
    assert "ms" not in capsys.readouterr().out.splitlines()[0].split()
    print_timings([row(latency=latency)])
    assert "8 x 128 tokens" in capsys.readouterr().out


def test_a_ratio_of_rounds_comes_before_one_of_medians(capsys):
    print_measurements([timed(), timed(Interval(middle=1.7, low=1.6, high=1.8), bundle="fast")])
    assert "2.00 (1.7x)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "shown", "metric", "said"),
    [(12.0, 9.2, None, True), (12.0, 10.0, None, False), (9.0, 8.0, None, False), (12.0, 9.2, "metric", False)],
)
def test_what_the_table_has_below_the_floor_that_was_held_elsewhere_is_said(held, shown, metric, said, capsys):
    """The step was judged on other samples; where it was below there too, that was accepted, or said as the reason."""
    report = StepReport(sqnr=held, samples=30)
    rows = [row(), row(target="cpu", precision="int8", sqnr=shown, samples=20)]
    step = SimpleNamespace(report=report, decisions=(), compressor="int8", config={})
    print_decisions(
        SimpleNamespace(
            steps=[step],
            rejected=(),
            provenance={},
            measurements=[SimpleNamespace(**{f: getattr(r, f) for f in FIELDS}, metric=metric) for r in rows],
        )
    )
    line = f"int8 for cpu: SQNR {shown} dB on the 20 samples of the table is below 10 dB, though {held} on the 30"
    assert (line in capsys.readouterr().out) is said
