"""What the driver says of the first GPU, put into words; a machine without one has none."""

from __future__ import annotations

import pytest

from pocketzoo.zoo.backends.tensorrt import identify_gpu as module
from pocketzoo.zoo.backends.tensorrt.identify_gpu import DRIVER, Gpu, find_gpu


class Driver:
    """The functions of the driver API that are asked, as NVIDIA's documentation has them."""

    def __init__(self, start: int = 0, found: int = 0, version: int = 13020, name: bytes = b"RTX 9") -> None:
        self.start, self.found, self.version, self.name = start, found, version, name

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.start

    def cuDeviceGet(self, device, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 7 + ordinal
        return self.found

    def cuDriverGetVersion(self, version) -> None:  # noqa: N802
        version._obj.value = self.version

    def cuDeviceGetName(self, name, size: int, device) -> None:  # noqa: N802
        assert (size, device.value) == (256, 7)
        name.value = self.name

    def cuDeviceTotalMem_v2(self, memory, device) -> None:  # noqa: N802
        assert device.value == 7
        memory._obj.value = 1 << 35

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> None:  # noqa: N802
        assert device.value == 7
        value._obj.value = {75: 8, 76: 9}[attribute]


@pytest.mark.parametrize(("version", "words"), [(13020, "13.2"), (12080, "12.8"), (11000, "11.0"), (10010, "10.1")])
def test_the_first_gpu_is_described(version, words, monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", {DRIVER: Driver(version=version)}.__getitem__)
    assert find_gpu() == Gpu(name="RTX 9", capability="8.9", memory=1 << 35, driver=words)
    assert str(find_gpu()) == "RTX 9 (compute capability 8.9)"


def test_a_name_that_is_no_text_is_read_as_far_as_it_is(monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", {DRIVER: Driver(name=b"RTX \xff")}.__getitem__)
    assert find_gpu().name == "RTX \ufffd"


@pytest.mark.parametrize(
    "driver", [Driver(start=100), Driver(found=101), None], ids=["no start", "no GPU", "no driver"]
)
def test_where_there_is_none_none_is_found(driver, monkeypatch):
    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(f"no {name}")
        return driver

    monkeypatch.setattr(module.ctypes, "CDLL", load)
    assert find_gpu() is None
