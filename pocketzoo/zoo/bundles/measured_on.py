"""Where, when and on what a measurement was taken."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

RANDOM, SYNTHETIC = "random samples", "synthetic samples"  # in place of the name of a data set


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that was measured on."""

    cpu: str  # its model
    cores: int
    gpu: str = ""  # its name; "" where no engine ran on one
    system: str = ""  # "Linux x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOn:
    """Of one row of ``Manifest.measurements``, which has the runtime's name and the number of samples itself."""

    machine: Machine
    date: str  # and time, the same for all rows of a run, in UTC: "2026-11-29T14:05:59.123Z"; of before the date alone
    version: str = ""  # of the runtime; "" where it does not say
    data: str = ""  # name of the data set; RANDOM, SYNTHETIC, and in rows of before "", where there was none
    sha256: str = ""  # of the data; "" of rows that were not to be kept

    @property
    def made_samples(self) -> str:
        """What it is of where nobody took the samples, so that it says little of how well a model answers; else ""."""
        if not self.sha256 and self.data in ("", RANDOM):
            return RANDOM
        return SYNTHETIC if self.data == SYNTHETIC else ""


def this_machine(gpu: str = "") -> Machine:
    """The machine that this process runs on."""
    return Machine(cpu=_cpu(), cores=os.cpu_count() or 1, gpu=gpu, system=f"{platform.system()} {platform.machine()}")


def now() -> str:
    """The time in UTC as ``MeasuredOn`` has it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
