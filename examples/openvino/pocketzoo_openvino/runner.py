"""Run a model with OpenVINO, behind the interface of pocketzoo's runners."""

from __future__ import annotations

import re
from pathlib import Path
from threading import local
from types import TracebackType
from typing import Any

import numpy as np
import openvino as ov

from pocketzoo.api import Arrays, BundleError, DataError, MemoryShortError, ModelSignature, TensorSpec

SHORT = re.compile(r"bad_alloc|allocate|out of memory", re.I)


class OpenVinoRunner:
    """A compiled model on one device. Any number of threads may call ``infer``: each has a request of its own."""

    def __init__(self, model: Path, device: str, threads: int) -> None:
        """``model``: an ONNX graph, or the .xml of OpenVINO's format. ``threads`` = 0 takes all cores."""
        # By itself it computes in bfloat16 where the CPU has that; the precision is the graph's.
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads and device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._compiled = ov.Core().compile_model(str(model), device, settings)
        except RuntimeError as error:  # the one type that OpenVINO raises
            raise BundleError(
                f"OpenVINO does not load {model.name}: {said(error)}", "list what it refuses: pocketzoo check"
            ) from error
        self._requests = local()
        self._inputs = {port.get_any_name(): port for port in self._compiled.inputs}
        self._outputs = {port.get_any_name(): port for port in self._compiled.outputs}
        self._signature = ModelSignature(
            inputs=tuple(tensor_spec(name, port) for name, port in self._inputs.items()),
            outputs=tuple(tensor_spec(name, port) for name, port in self._outputs.items()),
        )

    @property
    def signature(self) -> ModelSignature:
        return self._signature

    @property
    def compiled(self) -> ov.CompiledModel:
        """OpenVINO's own object, which says what runs in which precision."""
        return self._compiled

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> dict[str, np.ndarray[Any, Any]]:
        self._check(inputs)
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        ready = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            results = self._requests.own.infer(ready, share_inputs=True)
        except RuntimeError as error:
            if SHORT.search(str(error)):
                raise MemoryShortError("out of memory for a batch as large", "try a smaller one") from error
            shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
            raise DataError(f"the model does not run on {shapes}: {said(error)}", "give other inputs") from error
        outputs = {name: np.array(results[port]) for name, port in self._outputs.items()}
        for name, array in (out or {}).items():
            if name not in outputs or array.shape != outputs[name].shape or array.dtype != outputs[name].dtype:
                raise DataError(f"out[{name!r}] is {array.dtype} of {array.shape}", "make it with numpy.empty")
            np.copyto(array, outputs[name])
            outputs[name] = array
        return outputs

    def _check(self, inputs: Arrays) -> None:
        if set(inputs) != set(self._inputs):
            raise DataError(f"the inputs are {', '.join(inputs) or 'none'}", f"give {', '.join(self._inputs)}")
        for name, port in self._inputs.items():
            array, shape, dtype = inputs[name], port.get_partial_shape(), port.get_element_type().to_dtype()
            if array.dtype != dtype:
                raise DataError(f"input {name!r} is {array.dtype}, the model expects {dtype}", "convert it")
            if not shape.compatible(ov.PartialShape(list(array.shape))):
                raise DataError(f"input {name!r} is {array.shape}, the model expects {shape}", "reshape the input")

    def close(self) -> None:
        self._requests = local()
        del self._compiled

    def __enter__(self) -> OpenVinoRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensor_spec(name: str, port: Any) -> TensorSpec:
    """An input or output; its first axis counts samples where it is free, and OpenVINO keeps no names of axes."""
    shape = port.get_partial_shape()
    axes = [axis.get_length() if axis.is_static else f"{name}_{i}" for i, axis in enumerate(shape)]
    batch = 0 if axes and isinstance(axes[0], str) else None
    dims = tuple("batch" if i == batch else axis for i, axis in enumerate(axes))
    return TensorSpec(name=name, shape=dims, dtype=str(port.get_element_type().to_dtype()), batch=batch)


def said(error: Exception) -> str:
    """OpenVINO's reason without the places in its source that it names first."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not re.match(r"(Exception from|Check '.*' failed at|Summary:)", line)]
    return " ".join(kept) or str(error)
