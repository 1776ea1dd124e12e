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

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError, MemoryShortError
from pocketzoo.zoo.backends.tensorrt.cuda import Cuda
from pocketzoo.zoo.backends.tensorrt.load_engine import engine_module, load_engine
from pocketzoo.zoo.catalog.signature import ModelSignature, signature_of_axes

SHAPES = 4  # inputs of as many shapes are kept ready; the one that was not used longest makes room
Shapes = tuple[tuple[int, ...], ...]  # of the inputs, in the engine's order


@dataclass
class _Ready:
    """An execution context for one shape of each input, with its memory."""

    context: Any
    input_buffers: Arrays  # pinned, by input
    output_buffers: Arrays  # pinned, by output
    addresses: Mapping[str, int]  # on the GPU, by tensor
    graph: int | None = None  # what a run is, written down


class EngineRunner:
    """An engine on the first GPU. A context manager that gives memory back; threads take turns."""

    def __init__(self, path: Path, module: str) -> None:
        """Load an engine with ``module``, "tensorrt" or "tensorrt_rtx".

        Raises:
            MissingDependencyError: there is no GPU, no driver, or the module is not installed.
            ExportError: the engine is of another version or GPU, is damaged, or the GPU's memory runs out.
        """
        self.cuda = Cuda()
        trt = engine_module(module)
        self.name, self._trt, self._lock = path.name, trt, Lock()
        self._logger, self._runtime, self._engine = load_engine(path, trt)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._types = {name: np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        self._signature = signature_of_axes(
            [self._axes(name) for name in inputs], [self._axes(name) for name in names if name not in inputs]
        )
        self._stream = self.cuda.stream()
        self._shapes: OrderedDict[Shapes, _Ready] = OrderedDict()

    def _axes(self, name: str) -> tuple[str, list[int | None], str]:
        shape = [None if length < 0 else int(length) for length in self._engine.get_tensor_shape(name)]
        return name, shape, self._types[name].name

    @property
    def signature(self) -> ModelSignature:
        """What the engine reads and outputs."""
        return self._signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> dict[str, npt.NDArray[Any]]:
        """Run once: every input by name to every output by name, those in ``out`` written there.

        Raises:
            DataError: an input is missing, unknown, or its type or shape is not one that the engine was built for; or
                an array of ``out`` does not fit.
            MemoryShortError: the GPU has no memory for as large a batch.
        """
        with self._lock:
            outputs = self._infer(inputs)
            result = dict[str, npt.NDArray[Any]]()
            for name, output in outputs.items():
                array = (out or {}).get(name)
                if array is None:
                    result[name] = output.copy()
                    continue
                if array.shape != output.shape or array.dtype != output.dtype:
                    raise DataError(
                        f"out is {array.dtype} of {array.shape}, the engine outputs {output.dtype} of {output.shape}",
                        "make it with numpy.empty",
                    )
                np.copyto(array, output)
                result[name] = array
            return result

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

    def _infer(self, inputs: Arrays) -> Arrays:
        """The outputs, in memory that the next run writes to; the lock is held."""
        self._check(inputs)
        self.cuda.enter()
        ready = self._ready(tuple(inputs[spec.name].shape for spec in self._signature.inputs))
        for name, buffer in ready.input_buffers.items():
            np.copyto(buffer, inputs[name])
        if ready.graph is not None:
            self.cuda.launch(ready.graph, self._stream)
        else:
            self._run(ready)
        self.cuda.wait(self._stream)
        return ready.output_buffers

    def _check(self, inputs: Arrays) -> None:
        names = [spec.name for spec in self._signature.inputs]
        if set(inputs) != set(names):
            raise DataError(f"the inputs are {', '.join(inputs) or 'none'}", f"give {', '.join(names)}")
        for name in names:
            x, dtype = inputs[name], self._types[name]
            if x.dtype != dtype:
                raise DataError(f"input {name!r} is {x.dtype}, the engine expects {dtype}", "convert it")
            least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
            fits = len(x.shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, x.shape, most, strict=True))
            if not fits:
                raise DataError(
                    f"input {name!r} is {x.shape}, the engine was built for {least} to {most}",
                    "use smaller batches, or build an engine for larger ones: pocketzoo export --help",
                )

    def _ready(self, shapes: Shapes) -> _Ready:
        """What runs inputs of these shapes; made, run once and written down when it is first asked for."""
        if (ready := self._shapes.get(shapes)) is not None:
            self._shapes.move_to_end(shapes)
            return ready
        while len(self._shapes) >= SHAPES:
            self._drop(self._shapes.popitem(last=False)[1])
        ready = self._shapes[shapes] = self._make(shapes)
        self._run(ready)  # a first run loads kernels, which cannot be written down
        self.cuda.wait(self._stream)
        self.cuda.begin_capture(self._stream)
        try:
            self._run(ready)
        finally:
            ready.graph = self.cuda.end_capture(self._stream)
        return ready

    def _make(self, given: Shapes) -> _Ready:
        context = self._engine.create_execution_context()
        inputs = dict(zip((spec.name for spec in self._signature.inputs), given, strict=True))
        batch = self._batch(inputs)
        if context is None or not all(context.set_input_shape(name, shape) for name, shape in inputs.items()):
            size = getattr(self._engine, "device_memory_size_v2", 0) or 0
            free, _ = self.cuda.memory()
            raise MemoryShortError(
                f"{self.name} needs {size / 1e6:,.0f} MB besides its weights, {free / 1e6:,.0f} MB are free on the GPU",
                f"build an engine for batches of at most {max(1, batch // 2)}",
            )
        kinds = self._types
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in kinds}
        buffers = {name: self.cuda.pinned(shapes[name], kinds[name]) for name in kinds}
        addresses: dict[str, int] = {}
        ready = _Ready(
            context,
            {name: buffer for name, buffer in buffers.items() if name in inputs},
            {name: buffer for name, buffer in buffers.items() if name not in inputs},
            addresses,
        )
        try:
            for name, kind in kinds.items():
                addresses[name] = self.cuda.allocate(max(1, int(np.prod(shapes[name])) * kind.itemsize))
                context.set_tensor_address(name, addresses[name])
        except MemoryShortError as error:
            self._drop(ready)
            fewer = f"give batches of {batch // 2}" if batch > 1 else "free GPU memory"
            raise MemoryShortError(f"a batch of {batch}: {error.message}", fewer) from error
        return ready

    def _batch(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many samples inputs of these shapes are."""
        return next((shapes[s.name][s.batch] for s in self._signature.inputs if s.batch is not None), 1)

    def _run(self, ready: _Ready) -> None:
        for name, buffer in ready.input_buffers.items():
            self.cuda.upload(ready.addresses[name], buffer, self._stream)
        if not ready.context.execute_async_v3(self._stream):
            raise BundleError(f"{self.name} does not run: {self._logger.last}", "build it again on this machine")
        for name, buffer in ready.output_buffers.items():
            self.cuda.download(buffer, ready.addresses[name], self._stream)

    def _drop(self, ready: _Ready) -> None:
        if ready.graph is not None:
            self.cuda.end_graph(ready.graph)
        for address in ready.addresses.values():
            self.cuda.free(address)
        for buffer in (*ready.input_buffers.values(), *ready.output_buffers.values()):
            self.cuda.free_pinned(buffer)
