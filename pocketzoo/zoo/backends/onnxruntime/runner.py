"""Run an ONNX graph with onnxruntime. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError, PocketzooError, UnsupportedModelError
from pocketzoo.core.optional import require
from pocketzoo.zoo.backends.onnxruntime.providers import CPU, provider_name
from pocketzoo.zoo.backends.onnxruntime.run_errors import explained, memory_short
from pocketzoo.zoo.backends.onnxruntime.session import Optimization, open_session
from pocketzoo.zoo.catalog.signature import ONE, SAMPLES, ModelSignature, signature_of_axes, without_samples

_TYPES = {  # that differ from numpy's
    "float": "float32",
    "double": "float64",
    "string": "str",
}


class OnnxRunner:
    """A session on a graph; names, shapes and types come from the file. A context manager that gives memory back.

    Several threads may use one at a time.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        providers: Sequence[str] = ("cpu",),
        optimization: Optimization = "all",
    ) -> None:
        """``threads`` = 0 takes all cores. What the first of the ``providers`` cannot run falls to the next.

        Raises:
            MissingDependencyError: onnxruntime, or a provider, is not installed.
            BundleError: onnxruntime does not load the graph, or a provider does not start on this machine.
        """
        require("onnxruntime", extra="edge")
        names = [provider_name(p) for p in providers]
        last = [] if CPU in names else [CPU]
        try:
            self.session = open_session(
                Path(path),
                providers=[*names, *last],
                threads=threads,
                optimization=optimization,
                extra="edge",
            )
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if short := memory_short(error, f"loading {Path(path).name}", "a smaller model, or close other programs"):
                raise short from error
            raise BundleError(f"onnxruntime does not load {path}: {error}", "rebuild the graph") from error
        self.providers: list[str] = self.session.get_providers()
        if lacking := [name for name in names if name not in self.providers]:  # it continues without, and only warns
            raise BundleError(f"{lacking[0]} does not start on this machine", "check its driver: pocketzoo doctor")
        try:
            self._signature = signature_of_axes(
                [(value.name, value.shape, _numpy_type(value.type)) for value in self.session.get_inputs()],
                [(value.name, value.shape, _numpy_type(value.type)) for value in self.session.get_outputs()],
            )
            if self.session.properties().get(SAMPLES) == ONE:
                self._signature = without_samples(self._signature)
        except UnicodeDecodeError as error:
            raise BundleError(f"a name in {path} is not UTF-8: {error}", "export the model again") from error

    @property
    def signature(self) -> ModelSignature:
        """What the graph reads and outputs."""
        return self._signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: input name to array, output name to array.

        With ``out``, contiguous arrays of the shapes and types of some outputs, the runtime writes there and copies
        nothing.

        Raises:
            DataError: an input is missing, unknown, or has the wrong shape or type; or ``out`` does not fit.
            MemoryShortError: there is not enough memory for a batch as large.
            UnsupportedModelError: an output is a sequence or an optional value.
            TooLargeError: it takes longer than the limit.
            BundleError: onnxruntime fails on the graph in another way.
        """
        self._check(inputs)
        session = self.session  # closing it in another thread leaves this run its own
        names = [output.name for output in self._signature.outputs]
        try:
            if out:
                return self._infer_into(session, inputs, out)
            outputs = dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except PocketzooError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if (known := explained(error, inputs)) is not None:
                raise known from error
            if not type(error).__module__.startswith("onnxruntime") and not isinstance(error, RuntimeError):
                raise
            raise BundleError(f"onnxruntime does not run the graph: {error}", "rebuild the graph") from error
        for name, value in outputs.items():
            if not isinstance(value, np.ndarray):
                raise UnsupportedModelError(
                    f"the output {name!r} is not a tensor but a {type(value).__name__}", "export the model with tensors"
                )
        return outputs

    def _infer_into(self, session: Any, inputs: Arrays, out: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        count = next((inputs[t.name].shape[t.batch] for t in self._signature.inputs if t.batch is not None), 0)
        for name, array in out.items():
            tensor = self._signature.output(name)
            shape = tuple(count if axis == tensor.batch and count else size for axis, size in enumerate(tensor.shape))
            fits = len(shape) == array.ndim and all(
                isinstance(size, str) or size == own for size, own in zip(shape, array.shape, strict=True)
            )
            if not array.flags.c_contiguous or not array.flags.writeable or tensor.dtype != array.dtype or not fits:
                raise DataError(
                    f"out, {array.dtype} of {array.shape}, is not one contiguous array of {tensor.dtype}, {shape}",
                    "make it with numpy.empty",
                )
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for output in self._signature.outputs:
            if output.name not in out:
                binding.bind_output(output.name, "cpu")
                continue
            array = out[output.name]
            binding.bind_output(output.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding, max((len(x) for x in inputs.values() if x.ndim), default=1))
        names = [output.name for output in self._signature.outputs]
        if len(out) == len(names):
            return {name: out[name] for name in names}
        values = dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
        return {name: out.get(name, values[name]) for name in names}

    def close(self) -> None:
        """Give the session's memory back."""
        del self.session

    def __enter__(self) -> OnnxRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, inputs: Arrays) -> None:
        known = {spec.name: spec for spec in self._signature.inputs}
        if unknown := set(inputs) - set(known):
            raise DataError(f"the graph has no input {min(unknown)!r}", f"its inputs: {', '.join(known)}")
        for name, spec in known.items():
            actual = inputs[name].shape if name in inputs else None
            fits = actual is not None and len(actual) == len(spec.shape)
            if not fits or any(isinstance(s, int) and s != g for s, g in zip(spec.shape, actual or (), strict=True)):
                raise DataError(f"input {name!r} is {actual}, the graph expects {spec.shape}", "reshape the input")
            if inputs[name].dtype != spec.dtype and inputs[name].dtype.kind not in "OU":
                raise DataError(f"input {name!r} is {inputs[name].dtype}, the graph expects {spec.dtype}", "convert it")


def _numpy_type(kind: str) -> str:
    """numpy's name for a type of onnxruntime: "tensor(float)" is "float32". What is no tensor keeps its name."""
    inside = kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind
    return _TYPES.get(inside, inside)
