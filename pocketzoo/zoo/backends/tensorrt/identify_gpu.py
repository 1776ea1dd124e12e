"""Identify this machine's GPU through NVIDIA's driver; needs no tool or package. Standard library."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from dataclasses import dataclass

from pocketzoo.zoo.catalog.backend import Check

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The first GPU."""

    name: str
    capability: str  # compute capability, such as "8.7"
    memory: int  # bytes
    driver: str  # newest CUDA that the driver runs, such as "13.0"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability})"


def find_gpu() -> Gpu | None:
    """The GPU that engines are built for and run on; None where there is no driver, or it finds none."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{major.value}.{minor.value}",
        memory=memory.value,
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def driver_check() -> Check:
    """What NVIDIA's own tool says of the GPUs here."""
    tool = shutil.which("nvidia-smi")
    fix = "install NVIDIA's driver; engines for RTX can be built without, and run elsewhere"
    if tool is None:
        return Check("NVIDIA GPU", False, "no driver (nvidia-smi is missing)", fix)
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return Check("NVIDIA GPU", False, done.stdout.strip() or "none found", fix)
    return Check("NVIDIA GPU", True, "; ".join(done.stdout.strip().splitlines()))
