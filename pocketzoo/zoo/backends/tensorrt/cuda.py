"""GPU memory, streams and CUDA graphs through NVIDIA's driver API; needs no package.

The names are those of "CUDA Driver API", NVIDIA. The context is the primary one, which TensorRT uses as well.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import BundleError, MemoryShortError, MissingDependencyError
from pocketzoo.zoo.backends.tensorrt.identify_gpu import DRIVER, find_gpu

_OUT_OF_MEMORY = 2
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is not part of a graph


class Cuda:
    """The driver, with the first GPU's context."""

    def __init__(self) -> None:
        """Start the driver.

        Raises:
            MissingDependencyError: there is no driver, or no GPU.
        """
        if find_gpu() is None:
            raise MissingDependencyError(
                "this machine has no NVIDIA GPU, or no driver for it, which engines need",
                "run the graph: leave out --provider, or give --provider cpu",
            )
        self._driver = ctypes.CDLL(DRIVER)
        self._context, device = c_void_p(), c_int()
        self._ask("cuDeviceGet", byref(device), c_int(0))
        self._ask("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self.enter()

    def enter(self) -> None:
        """Make the context that of the calling thread."""
        self._ask("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and in all."""
        free, total = c_size_t(), c_size_t()
        self._ask("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """An address of ``size`` bytes on the GPU.

        Raises:
            MemoryShortError: there are not as many.
        """
        address = c_void_p()
        self._ask("cuMemAlloc_v2", byref(address), c_size_t(size), asked=size)
        return address.value or 0

    def free(self, address: int) -> None:
        self._ask("cuMemFree_v2", c_void_p(address))

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        """An array in memory of the host that the GPU reads directly; ``free_pinned`` gives it back."""
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        address = c_void_p()
        self._ask("cuMemAllocHost_v2", byref(address), c_size_t(size), asked=size)
        held = (ctypes.c_byte * size).from_address(address.value or 0)
        return np.frombuffer(memoryview(held), dtype, count=int(np.prod(shape))).reshape(shape)

    def free_pinned(self, array: npt.NDArray[np.generic]) -> None:
        self._ask("cuMemFreeHost", c_void_p(array.ctypes.data))

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        handle = c_void_p()
        self._ask("cuStreamCreate", byref(handle), c_uint(1))
        return handle.value or 0

    def end_stream(self, stream: int) -> None:
        self._ask("cuStreamDestroy_v2", c_void_p(stream))

    def wait(self, stream: int) -> None:
        self._ask("cuStreamSynchronize", c_void_p(stream))

    def upload(self, address: int, array: npt.NDArray[np.generic], stream: int) -> None:
        """From pinned memory to the GPU, without waiting."""
        self._ask(
            "cuMemcpyHtoDAsync_v2", c_void_p(address), c_void_p(array.ctypes.data), c_size_t(array.nbytes),
            c_void_p(stream),
        )  # fmt: skip

    def download(self, array: npt.NDArray[np.generic], address: int, stream: int) -> None:
        """From the GPU to pinned memory, without waiting."""
        self._ask(
            "cuMemcpyDtoHAsync_v2", c_void_p(array.ctypes.data), c_void_p(address), c_size_t(array.nbytes),
            c_void_p(stream),
        )  # fmt: skip

    def begin_capture(self, stream: int) -> None:
        """From here on the stream's work is written down, not done."""
        self._ask("cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int | None:
        """What was written down, ready to be launched; None where the work cannot be written down."""
        graph, ready = c_void_p(), c_void_p()
        if self._driver.cuStreamEndCapture(c_void_p(stream), byref(graph)) or not graph.value:
            return None
        failed = self._driver.cuGraphInstantiateWithFlags(byref(ready), graph, ctypes.c_ulonglong(0))
        self._driver.cuGraphDestroy(graph)
        return None if failed else ready.value

    def launch(self, graph: int, stream: int) -> None:
        self._ask("cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def end_graph(self, graph: int) -> None:
        self._ask("cuGraphExecDestroy", c_void_p(graph))

    def _ask(self, name: str, *arguments: object, asked: int = 0) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code == 0:
            return
        if code == _OUT_OF_MEMORY:
            free, total = self.memory() if asked else (0, 0)
            raise MemoryShortError(
                f"{asked / 1e6:,.0f} MB were asked for, {free / 1e6:,.0f} of the GPU's {total / 1e6:,.0f} MB are free",
                "use smaller batches, or free GPU memory",
            )
        text = c_char_p()
        self._driver.cuGetErrorString(c_int(code), byref(text))
        why = (text.value or b"").decode(errors="replace") or f"error {code}"
        raise BundleError(f"the GPU's driver says of {name}: {why}", "see pocketzoo doctor, and nvidia-smi")
