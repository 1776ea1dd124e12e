"""Where, when and on what the measurements of a bundle were taken."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that was measured on."""

    cpu: str  # its model
    cores: int
    gpu: str = ""  # its name; "" where no engine ran on one
    system: str = ""  # "Linux x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOn:
    """What the rows of ``Manifest.measurements`` have in common."""

    machine: Machine
    date: str  # in UTC: "2026-11-29"
    runtimes: Mapping[str, str] = field(default_factory=dict)  # each that rows name -> its version
    data: str = ""  # name of the data set; "" for random samples
    sha256: str = ""  # of the data
    samples: int = 0  # that were scored


def this_machine(gpu: str = "") -> Machine:
    """The machine that this process runs on."""
    return Machine(cpu=_cpu(), cores=os.cpu_count() or 1, gpu=gpu, system=f"{platform.system()} {platform.machine()}")


def measured_today(
    runtimes: Mapping[str, str], *, data: str = "", sha256: str = "", samples: int = 0, gpu: str = ""
) -> MeasuredOn:
    """What was measured here just now."""
    today = datetime.now(timezone.utc).date().isoformat()
    return MeasuredOn(
        machine=this_machine(gpu), date=today, runtimes=runtimes, data=data, sha256=sha256, samples=samples
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
