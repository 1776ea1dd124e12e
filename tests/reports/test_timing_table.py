from __future__ import annotations

import re
from dataclasses import replace

from pocketzoo.measure.measure_graphs import Latency, Measurement
from pocketzoo.measure.peak_memory import Memory
from pocketzoo.reports.bench_table import measurement_table
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting
from pocketzoo.reports.timing_table import timings_figure
from pocketzoo.zoo.backends.timing import Interval

OLD = Measurement(
    bundle="a<b",
    target="",
    precision="float32",
    runtime="onnxruntime",
    bytes=1000,
    parameters=100,
    macs=100,
    samples=100,
    accuracy=0.9,
    agreement=1.0,
    sqnr=None,
    latency={"1": Latency(p50=2.0, p99=3.0)},
)


def timed(faster: Interval | None = None, p90: float = 1.1, size: str = "1") -> Measurement:
    latency = Latency(p50=1.0, p90=p90, p99=1.5, throughput=987.0, runs=40, faster=faster, clock="cpu")
    return replace(OLD, latency={size: latency}, memory=Memory(peak=70_000_000, imports=50_000_000))


def drawn(*rows: Measurement) -> str:
    return timings_figure(BenchRun(0, rows), "r", 2)


def test_rows_of_older_versions_have_no_such_table():
    assert drawn(OLD, OLD) == ""
    assert "memory" not in measurement_table(BenchRun(0, (OLD,)), "r")


def test_every_number_is_there_with_its_place():
    table = drawn(timed(), timed(Interval(middle=2.0, low=1.9, high=2.1)))
    found = dict(re.findall(r'data-key="measurements\.1\.latency\.1\.([\w.]+)" data-value="([\d.]+)"', table))
    assert found == {
        "p50": "1.0", "p90": "1.1", "p99": "1.5", "throughput": "987.0",
        "faster.middle": "2.0", "faster.low": "1.9", "faster.high": "2.1",
    }  # fmt: skip
    assert "a&lt;b" in table
    assert "CPU time of the one thread" in table


def test_what_is_no_difference_and_what_varies_much_is_marked():
    sure = drawn(timed(), timed(Interval(middle=2.0, low=1.9, high=2.1)))
    assert " =</td>" not in sure
    assert " ~</td>" not in sure
    unsure = drawn(timed(), timed(Interval(middle=1.0, low=0.98, high=1.02), p90=2.0))
    assert " =</td>" in unsure
    assert " ~</td>" in unsure
    assert "noisy times" in unsure


def test_slower_is_worse():
    assert 'class="worse"' in drawn(timed(), timed(Interval(middle=0.5, low=0.4, high=0.6)))


def test_a_ratio_of_medians_gives_way_to_the_one_of_rounds():
    run = BenchRun(0, (replace(timed(), latency=OLD.latency), timed(Interval(middle=1.7, low=1.6, high=1.8))))
    assert run.ratio(1, "latency.1.p50") == 1.7
    assert run.ratio(1, "latency.1.p99") == 2.0
    assert BenchRun(0, (OLD, OLD)).ratio(1, "latency.1.p50") == 1.0


def test_memory_has_a_column():
    assert 'data-key="measurements.0.memory.peak" data-value="70000000"' in measurement_table(
        BenchRun(0, (timed(),)), "r"
    )


def test_lengths_are_told_and_ordered_by_size():
    sizes = ("8x128", "1x128", "1x32", "16x32")
    run = BenchRun(0, (replace(OLD, latency={size: Latency(p50=1.0, p99=1.0) for size in sizes}),))
    assert run.batches == ["1x32", "1x128", "8x128", "16x32"]
    assert (batch_setting("8x128"), batch_setting("8")) == ("batch 8, 128 tokens", "batch 8")


def test_many_settings_are_lines_and_no_columns():
    few, many = (replace(timed(), latency={str(n): timed().latency["1"] for n in range(1, k)}) for k in (4, 6))
    assert "latency.3.p50" in measurement_table(BenchRun(0, (few,)), "r")
    assert "latency.3.p50" not in measurement_table(BenchRun(0, (many,)), "r")
    assert "latency.5.p50" in drawn(many)
