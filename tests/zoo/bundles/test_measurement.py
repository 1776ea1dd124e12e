"""Rows of measurements: which were made together, which replace which, and how earlier releases wrote them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.early_format_2 import converted
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef, read_manifest
from pocketzoo.zoo.bundles.measured_on import Machine, MeasuredOn
from pocketzoo.zoo.bundles.measurement import (
    Latency,
    Measurement,
    Memory,
    digest_of,
    measured_now,
    runs_of,
    with_run,
)  # fmt: skip
from pocketzoo.zoo.catalog.described import Described
from pocketzoo.zoo.graphs.layer_cost import LayerCost

MACHINE = Machine(cpu="x", cores=2)


def row(digest: str, **changed: object) -> Measurement:
    facts = {
        "bundle": digest, "target": "", "precision": "float32", "runtime": "onnxruntime", "bytes": 1, "parameters": 1,
        "macs": 1, "samples": 8, "agreement": None, "sqnr": None, "latency": {"1": Latency(p50=1.0, p99=2.0)},
    }  # fmt: skip
    return Measurement(**{**facts, "digest": digest, **changed})  # type: ignore[arg-type]


def run(digests: str, date: str, data: str = "d", version: str = "1", **changed: object) -> tuple[Measurement, ...]:
    on = MeasuredOn(machine=MACHINE, date=date, version=version, data=data, sha256=data)
    return tuple(row(digest, measured=on, **changed) for digest in digests)


def test_what_is_measured_later_is_added_and_changes_nothing_of_what_is_there():
    first = run("ab", "1")
    for other in (
        run("ac", "2"),  # of them "b" was not measured again
        run("ab", "2", data="e"),
        run("ab", "2", version="2"),
        run("ab", "2", threads=2),
        run("ab", "2", samples=9),
        run("ab", "2", runtime="torch"),
        run("ab", "2", latency={"32": Latency(p50=1.0, p99=2.0)}),  # of another batch size
    ):
        assert with_run(first, other) == (*first, *other)
        assert runs_of(with_run(first, other)) == [first, other]
    elsewhere = tuple(
        replace(each, measured=replace(each.measured, machine=Machine(cpu="y", cores=2))) for each in run("ab", "2")
    )
    assert with_run(first, elsewhere) == (*first, *elsewhere)


def test_what_is_measured_again_whole_takes_the_place_of_what_was():
    first, second = run("ab", "1"), run("xy", "2")
    again = run("cba", "3", memory=Memory(peak=2, imports=1))
    assert with_run((*first, *second), again) == (*second, *again)
    assert with_run((*second, *again), run("abc", "4")) == (
        *second,
        *again,
        *run("abc", "4"),
    )  # its memory is not known


def test_rows_of_before_stay_and_are_one_run():
    old = (row("a"), row("b"))
    assert runs_of(old) == [old]
    new = run("ab", "2")
    assert with_run(old, new) == (*old, *new)
    assert runs_of(with_run(old, new)) == [old, new]
    unnamed = tuple(replace(each, digest="") for each in run("ab", "1"))  # it is not said of which files
    assert with_run(unnamed, new) == (*unnamed, *new)


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=5))
def test_no_two_runs_that_stay_measure_the_same(measured):
    rows: tuple[Measurement, ...] = ()
    for i, digests in enumerate(measured):
        rows = with_run(rows, run(digests, str(i)))
    runs = [{each.digest for each in one} for one in runs_of(rows)]
    assert runs[-1:] == [set(measured[-1])] if measured else runs == []
    assert all(not earlier <= later for i, earlier in enumerate(runs) for later in runs[i + 1 :])


def test_rows_that_are_made_now_share_their_date_and_have_their_runtimes_version():
    rows = measured_now(
        [row("a"), row("b", runtime="torch"), row("c", runtime="odd")],
        {"onnxruntime": "1.2", "torch": "2.0"}, data="digits", sha256="ab", gpu="H200",
    )  # fmt: skip
    assert [each.measured.version for each in rows] == ["1.2", "2.0", ""]
    assert len({(each.measured.date, each.measured.machine.gpu, each.measured.sha256) for each in rows}) == 1
    assert runs_of(rows) == [tuple(rows)]


def test_the_digest_of_several_files_is_of_theirs():
    assert digest_of(["ab"]) == "ab"
    assert digest_of(["ab", "cd"]) == hashlib.sha256(b"ab cd").hexdigest() != digest_of(["cd", "ab"])


# -- manifests


def manifest(**changed: object) -> Manifest:
    return Manifest(
        name="m", model=ModelRef(backbone="b", head="h", outputs=1), processor=Described(name="p", config={}),
        labels=(), license="MIT", parameters=1, macs=1, **changed,
    )  # fmt: skip


def test_a_manifest_is_json_and_back():
    cost = LayerCost(layer="l", op="Conv", precision="int8", parameters=2, nonzero=1, bytes=3, macs=4)
    whole = manifest(measurements=run("ab", "1"), layers={"float": (cost,), "cpu": ()})
    assert read_manifest(json.loads(json.dumps(to_plain(whole)))) == whole


def test_what_an_earlier_manifest_says_of_its_last_run_is_said_of_each_row():
    rows = [to_plain(row("a")), to_plain(row("b", runtime="torch")), to_plain(row("c", runtime="odd"))]
    for each in rows:
        del each["measured"], each["digest"]
    old = to_plain(manifest()) | {
        "measurements": rows,
        "measured": {
            "machine": {"cpu": "x", "cores": 2}, "date": "2026-11-29", "data": "digits", "sha256": "ab", "samples": 8,
            "runtimes": {"onnxruntime": "1.2", "torch": "2.0"},
        },
    }  # fmt: skip
    before = json.dumps(old)
    found = read_manifest(old)
    assert json.dumps(old) == before
    on = MeasuredOn(machine=MACHINE, date="2026-11-29", version="1.2", data="digits", sha256="ab")
    assert [each.measured for each in found.measurements] == [on, replace(on, version="2.0"), replace(on, version="")]
    assert read_manifest({**old, "measured": None}).measurements[0].measured is None


@pytest.mark.parametrize("measured", [3, {}, {"machine": 1}, {"runtimes": 2}, {"runtimes": {"onnxruntime": 1}}])
@pytest.mark.parametrize("rows", [None, 3, "x", [1], [{}]])
def test_what_is_damaged_is_left_for_the_reader_to_refuse(measured, rows):
    data = {"measurements": rows, "measured": measured}
    converted(data)


# -- the previous release


def test_rows_are_read_by_key_for_one_release():
    one = row("a", accuracy=0.5)
    with pytest.warns(RenamedWarning, match=r"Measurement\['accuracy'\]"):
        assert one["accuracy"] == 0.5
    with pytest.warns(RenamedWarning):
        assert one["latency"]["1"]["p50"] == 1.0
    with pytest.warns(RenamedWarning):
        assert dict(one)["bytes"] == one.get("bytes") == 1
    assert one.get("watts", 3) == 3
    with pytest.raises(KeyError, match="watts"):
        one["watts"]
    assert from_plain(Measurement, to_plain(one)) == one
