"""What is said of the machine and the data that measurements are of."""

from __future__ import annotations

import os
from datetime import date

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.measured_on import MeasuredOn, measured_today, this_machine


def test_it_says_machine_date_runtimes_and_data():
    found = measured_today({"onnxruntime": "1.0"}, data="digits", sha256="ab", samples=7, gpu="H200")
    assert found.machine == this_machine("H200")
    assert (found.machine.cores, found.machine.gpu) == (os.cpu_count(), "H200")
    assert found.machine.cpu
    assert abs((date.fromisoformat(found.date) - date.today()).days) <= 1
    assert (found.runtimes, found.data, found.sha256, found.samples) == ({"onnxruntime": "1.0"}, "digits", "ab", 7)
    assert from_plain(MeasuredOn, to_plain(found)) == found


def test_a_compressed_bundle_says_on_what_it_was_measured(compressed):
    found = compressed.manifest.measured
    assert found.data == "digits"
    assert found.samples == compressed.manifest.measurements[0]["samples"]
    assert found.runtimes["onnxruntime"]
    assert found.sha256 == compressed.manifest.provenance["calibration"]["sha256"]
