"""What the driver is asked for, and what becomes of its answers: a driver whose GPU is this process."""

# ruff: noqa: N802, N815 - the names are those of the driver
from __future__ import annotations

import ctypes

import numpy as np
import pytest

from pocketzoo.core.errors import BundleError, MemoryShortError, MissingDependencyError
from pocketzoo.zoo.backends.tensorrt import cuda as module
from pocketzoo.zoo.backends.tensorrt.cuda import Cuda
from pocketzoo.zoo.backends.tensorrt.identify_gpu import DRIVER, Gpu

SHORT, INVALID = 2, 1  # CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_INVALID_VALUE
ROOM = 1000


def target(pointer: object) -> ctypes.c_void_p:
    """What ``byref`` refers to."""
    return pointer._obj


class Driver:
    """The functions of the driver API that are needed, with the argument order of NVIDIA's documentation."""

    def __init__(self) -> None:
        self.held: dict[int, ctypes.Array] = {}
        self.fails, self.calls, self.graph, self.ready = {}, [], 70, 71

    def __getattr__(self, name: str):
        def call(*arguments: object) -> int:
            self.calls.append(name)
            if name in self.fails:
                return self.fails[name]
            return getattr(self, f"do_{name}", lambda *given: 0)(*arguments)

        if name.startswith("do_"):
            raise AttributeError(name)
        return call

    def _make(self, pointer: object, size: ctypes.c_size_t) -> int:
        if sum(map(len, self.held.values())) + size.value > ROOM:
            return SHORT
        block = ctypes.create_string_buffer(size.value)
        target(pointer).value = ctypes.addressof(block)
        self.held[ctypes.addressof(block)] = block
        return 0

    do_cuMemAlloc_v2 = do_cuMemAllocHost_v2 = _make

    def do_cuDeviceGet(self, device, ordinal) -> int:
        target(device).value = 5 + ordinal.value
        return 0

    def do_cuDevicePrimaryCtxRetain(self, context, device) -> int:
        assert device.value == 5
        target(context).value = 50
        return 0

    def do_cuCtxSetCurrent(self, context) -> int:
        self.context = context.value
        return 0

    def do_cuMemGetInfo_v2(self, free, total) -> int:
        target(free).value, target(total).value = ROOM - sum(map(len, self.held.values())), ROOM
        return 0

    def do_cuMemFree_v2(self, address) -> int:
        del self.held[address.value]
        return 0

    do_cuMemFreeHost = do_cuMemFree_v2

    def do_cuStreamCreate(self, handle, flags) -> int:
        assert flags.value == 1, "it does not wait for the default stream"
        target(handle).value = 60
        return 0

    def copy(self, to, source, size, stream) -> int:
        assert stream.value == 60
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    do_cuMemcpyHtoDAsync_v2 = do_cuMemcpyDtoHAsync_v2 = copy

    def do_cuStreamBeginCapture_v2(self, stream, mode) -> int:
        assert (stream.value, mode.value) == (60, 1)
        return 0

    def do_cuStreamEndCapture(self, stream, graph) -> int:
        target(graph).value = self.graph
        return 0

    def do_cuGraphInstantiateWithFlags(self, ready, graph, flags) -> int:
        assert (graph.value, flags.value) == (self.graph, 0)
        target(ready).value = self.ready
        return 0

    def do_cuGraphDestroy(self, graph) -> int:
        assert graph.value == self.graph
        return 0

    def do_cuGraphLaunch(self, graph, stream) -> int:
        assert (graph.value, stream.value) == (self.ready, 60)
        return 0

    def do_cuGetErrorString(self, code, text) -> int:
        target(text).value = b"invalid argument" if code.value == INVALID else None
        return 0


@pytest.fixture
def driver(monkeypatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(module, "find_gpu", lambda: Gpu(name="X", capability="9.0", memory=ROOM, driver="13.0"))
    monkeypatch.setattr(module.ctypes, "CDLL", {DRIVER: driver}.__getitem__)
    return driver


@pytest.fixture
def cuda(driver) -> Cuda:
    return Cuda()


def test_it_takes_the_first_gpus_context(driver, cuda):
    assert driver.calls == ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
    assert driver.context == 50
    driver.context = 0
    cuda.enter()
    assert driver.context == 50


def test_memory_comes_and_goes(driver, cuda):
    assert cuda.memory() == (ROOM, ROOM)
    address = cuda.allocate(600)
    assert list(driver.held) == [address]
    assert cuda.memory() == (400, ROOM)
    cuda.free(address)
    assert cuda.memory() == (ROOM, ROOM)


@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), np.float32), ((7,), np.int64), ((2, 0), np.float32)])
def test_arrays_go_to_the_gpu_and_come_back(shape, dtype, driver, cuda):
    stream = cuda.stream()
    there, back = cuda.pinned(shape, dtype), cuda.pinned(shape, dtype)
    assert (there.shape, there.dtype) == (shape, dtype)
    there[...] = np.arange(there.size).reshape(shape)
    address = cuda.allocate(max(there.nbytes, 1))
    cuda.upload(address, there, stream)
    cuda.download(back, address, stream)
    cuda.wait(stream)
    np.testing.assert_array_equal(back, there)
    cuda.free(address)
    cuda.free_pinned(there)
    cuda.free_pinned(back)
    assert driver.held == {}
    cuda.end_stream(stream)
    assert driver.calls[-1] == "cuStreamDestroy_v2"


def test_work_is_written_down_and_launched(driver, cuda):
    stream = cuda.stream()
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    assert graph == driver.ready
    cuda.launch(graph, stream)
    cuda.end_graph(graph)
    assert driver.calls[-3:] == ["cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy"]


@pytest.mark.parametrize("how", ["capture", "instantiate", "nothing"])
def test_what_cannot_be_written_down_is_none(how, driver, cuda):
    stream = cuda.stream()
    cuda.begin_capture(stream)
    if how == "nothing":
        driver.graph = None
    else:
        driver.fails[{"capture": "cuStreamEndCapture", "instantiate": "cuGraphInstantiateWithFlags"}[how]] = INVALID
    assert cuda.end_capture(stream) is None
    assert ("cuGraphDestroy" in driver.calls) == (how == "instantiate")


def test_too_little_memory_says_how_much_there_is(driver, cuda, refused):
    cuda.allocate(400)

    def memory(free, total) -> int:
        target(free).value, target(total).value = 600_000_000, 1_000_000_000
        return 0

    driver.do_cuMemGetInfo_v2 = memory
    with refused(MemoryShortError, "4,000 MB were asked for, 600 of the GPU's 1,000 MB are free", hint="smaller"):
        cuda.allocate(4_000_000_000)
    driver.fails["cuGraphLaunch"] = SHORT
    with refused(MemoryShortError, "0 MB were asked for"):
        cuda.launch(71, 60)


def test_what_the_driver_says_is_passed_on(driver, cuda, refused):
    driver.fails["cuStreamSynchronize"] = INVALID
    with refused(BundleError, "the GPU's driver says of cuStreamSynchronize: invalid argument", hint="doctor"):
        cuda.wait(60)
    driver.fails["cuStreamSynchronize"] = 999
    with refused(BundleError, "cuStreamSynchronize: error 999"):
        cuda.wait(60)


def test_without_a_gpu_it_says_what_to_do(monkeypatch, refused):
    monkeypatch.setattr(module, "find_gpu", lambda: None)
    with refused(MissingDependencyError, "no NVIDIA GPU", hint="--provider cpu"):
        Cuda()
