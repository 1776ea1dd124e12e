"""Identify this machine's GPU through NVIDIA's driver; needs no tool or package. Standard library."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

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
