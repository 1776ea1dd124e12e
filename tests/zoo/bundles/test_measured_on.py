"""What is said of the machine, the runtime and the data that each measurement is of."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.measured_on import MeasuredOn, now, this_machine


def test_it_says_machine_and_date():
    found = MeasuredOn(machine=this_machine("H200"), date=now(), version="1.0", data="digits", sha256="ab")
    assert (found.machine.cores, found.machine.gpu) == (os.cpu_count(), "H200")
    assert found.machine.cpu
    assert found.date.endswith("Z")
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found.date.replace("Z", "+00:00"))
    assert timedelta(milliseconds=-1) <= age < timedelta(minutes=5)
    assert from_plain(MeasuredOn, to_plain(found)) == found


def test_a_compressed_bundle_says_on_what_each_row_was_measured(compressed):
    rows = compressed.manifest.measurements
    assert len(rows) == 4
    assert len({row.measured for row in rows}) == 1
    found = rows[0].measured
    assert (found.data, found.machine.cores) == ("digits", os.cpu_count())
    assert found.version
    assert found.sha256 == compressed.manifest.provenance["calibration"]["sha256"]
    files = compressed.manifest.files
    assert [row.digest for row in rows[1:]] == [
        files[compressed.graph(target).name].sha256 for target in ("", "cpu", "tensorrt-rtx")
    ]
