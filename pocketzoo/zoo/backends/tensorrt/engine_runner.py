"""Run a TensorRT or TensorRT-RTX engine: pinned memory, one CUDA graph per shape. No torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import BundleError, DataError, MemoryShortError
from pocketzoo.zoo.backends.tensorrt.cuda import Cuda
from pocketzoo.zoo.backends.tensorrt.load_engine import engine_module, load_engine

SHAPES = 4  # inputs of as many shapes are kept ready; the one that was not used longest makes room


@dataclass
class _Ready:
    """An execution context for one shape of the input, with its memory."""

    context: Any
    input_buffer: npt.NDArray[Any]  # pinned
    output_buffers: Mapping[str, npt.NDArray[Any]]  # pinned, by output
    addresses: Mapping[str, int]  # on the GPU, by tensor
    graph: int | None = None  # what a run is, written down


class EngineRunner:
    """An engine on the first GPU. A context manager that gives memory back; threads take turns."""

    def __init__(self, path: Path, module: str) -> None:
        """Load an engine with ``module``, "tensorrt" or "tensorrt_rtx".

        Raises:
            MissingDependencyError: there is no GPU, no driver, or the module is not installed.
            ExportError: the engine is of another version or GPU, is damaged, or the GPU's memory runs out.
            BundleError: it does not have one input.
        """
        self.cuda = Cuda()
        trt = engine_module(module)
        self.name, self._trt, self._lock = path.name, trt, Lock()
        self._logger, self._runtime, self._engine = load_engine(path, trt)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise BundleError(f"{path.name} has {len(inputs)} inputs", "a runtime runs engines with one")
        self.input, self.outputs = inputs[0], [n for n in names if n not in inputs]
        self.dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(self.input)))
        self._stream = self.cuda.stream()
        self._shapes: OrderedDict[tuple[int, ...], _Ready] = OrderedDict()

    def logits(self, x: npt.NDArray[Any], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The first output: (B, *size) -> (B, outputs); written to ``out`` where that is given.

        Raises:
            DataError: the input's type or shape is not one that the engine was built for.
            MemoryShortError: the GPU has no memory for as large a batch.
        """
        with self._lock:
            output = self._infer(x)[self.outputs[0]]
            if out is None:
                return output.copy()
            if out.shape != output.shape or out.dtype != output.dtype:
                raise DataError(
                    f"out is {out.dtype} of {out.shape}, the engine outputs {output.dtype} of {output.shape}",
                    "make it with numpy.empty",
                )
            np.copyto(out, output)
            return out

    def run(self, x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """All outputs by name.

        Raises:
            DataError, MemoryShortError: as ``logits``.
        """
        with self._lock:
            return {name: output.copy() for name, output in self._infer(x).items()}

    def close(self) -> None:
        """Give the memory back, the GPU's and the host's."""
        with self._lock:
            self.cuda.enter()
            while self._shapes:
                self._drop(self._shapes.popitem()[1])
            self.cuda.end_stream(self._stream)
            self._engine = self._runtime = None

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _infer(self, x: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """The outputs, in memory that the next run writes to; the lock is held."""
        self._check(x)
        self.cuda.enter()
        ready = self._ready(x.shape)
        np.copyto(ready.input_buffer, x)
        if ready.graph is not None:
            self.cuda.launch(ready.graph, self._stream)
        else:
            self._run(ready)
        self.cuda.wait(self._stream)
        return ready.output_buffers

    def _check(self, x: npt.NDArray[Any]) -> None:
        if x.dtype != self.dtype:
            raise DataError(f"input {self.input!r} is {x.dtype}, the engine expects {self.dtype}", "convert it")
        least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(self.input, 0))
        fits = len(x.shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, x.shape, most, strict=True))
        if not fits:
            raise DataError(
                f"input {self.input!r} is {x.shape}, the engine was built for {least} to {most}",
                "use smaller batches, or build an engine for larger ones: pocketzoo export --help",
            )

    def _ready(self, shape: tuple[int, ...]) -> _Ready:
        """What runs inputs of a shape; made, run once and written down when it is first asked for."""
        if (ready := self._shapes.get(shape)) is not None:
            self._shapes.move_to_end(shape)
            return ready
        while len(self._shapes) >= SHAPES:
            self._drop(self._shapes.popitem(last=False)[1])
        ready = self._shapes[shape] = self._make(shape)
        self._run(ready)  # a first run loads kernels, which cannot be written down
        self.cuda.wait(self._stream)
        self.cuda.begin_capture(self._stream)
        try:
            self._run(ready)
        finally:
            ready.graph = self.cuda.end_capture(self._stream)
        return ready

    def _make(self, shape: tuple[int, ...]) -> _Ready:
        context = self._engine.create_execution_context()
        if context is None or not context.set_input_shape(self.input, shape):
            size = getattr(self._engine, "device_memory_size_v2", 0) or 0
            free, _ = self.cuda.memory()
            raise MemoryShortError(
                f"{self.name} needs {size / 1e6:,.0f} MB besides its weights, {free / 1e6:,.0f} MB are free on the GPU",
                f"build an engine for batches of at most {max(1, shape[0] // 2)}",
            )
        kinds = {n: np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(n))) for n in (self.input, *self.outputs)}
        shapes = {n: tuple(context.get_tensor_shape(n)) for n in kinds}
        input_buffer = self.cuda.pinned(shapes[self.input], kinds[self.input])
        output_buffers = {name: self.cuda.pinned(shapes[name], kinds[name]) for name in self.outputs}
        addresses: dict[str, int] = {}
        ready = _Ready(context, input_buffer, output_buffers, addresses)
        try:
            for name, kind in kinds.items():
                addresses[name] = self.cuda.allocate(max(1, int(np.prod(shapes[name])) * kind.itemsize))
                context.set_tensor_address(name, addresses[name])
        except MemoryShortError as error:
            self._drop(ready)
            fewer = f"give batches of {shape[0] // 2}" if shape[0] > 1 else "free GPU memory"
            raise MemoryShortError(f"a batch of {shape[0]}: {error.message}", fewer) from error
        return ready

    def _run(self, ready: _Ready) -> None:
        self.cuda.upload(ready.addresses[self.input], ready.input_buffer, self._stream)
        if not ready.context.execute_async_v3(self._stream):
            raise BundleError(f"{self.name} does not run: {self._logger.last}", "build it again on this machine")
        for name, buffer in ready.output_buffers.items():
            self.cuda.download(buffer, ready.addresses[name], self._stream)

    def _drop(self, ready: _Ready) -> None:
        if ready.graph is not None:
            self.cuda.end_graph(ready.graph)
        for address in ready.addresses.values():
            self.cuda.free(address)
        self.cuda.free_pinned(ready.input_buffer)
        for buffer in ready.output_buffers.values():
            self.cuda.free_pinned(buffer)
