"""Run an ONNX graph with onnxruntime. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pocketzoo.core.errors import BundleError, DataError, MemoryShortError, PocketzooError, UnsupportedModelError
from pocketzoo.core.optional import require
from pocketzoo.zoo.backends.onnxruntime.providers import CPU, provider_name
from pocketzoo.zoo.backends.onnxruntime.session import ERRORS, open_session

_TYPES = {
    "tensor(float)": np.dtype("float32"),
    "tensor(float16)": np.dtype("float16"),
    "tensor(uint8)": np.dtype("uint8"),
    "tensor(int64)": np.dtype("int64"),
}
# What onnxruntime and the C++ library below it say when memory is short; the number, where there is one, is in bytes.
_SHORT = re.compile(r"allocate memory|bad_alloc|bad allocation|out of memory|BFCArena|CUDA failure 2\b", re.I)
_DOES_NOT_FIT = re.compile(r"INVALID_ARGUMENT|out of (data )?bounds|broadcast|dimension|shape|\brank\b", re.I)
_BYTES = re.compile(r"(?:buffer of size|requested bytes|allocate) (\d+)|(\d+) bytes", re.I)


class OnnxRunner:
    """A session on a graph; names, shapes and types come from the file. A context manager that gives memory back.

    Several threads may use one at a time.
    """

    def __init__(self, path: Path, *, threads: int = 0, providers: Sequence[str] = ("cpu",)) -> None:
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
                Path(path), providers=[*names, *last], threads=threads, severity=ERRORS, extra="edge"
            )
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if short := memory_short(error, f"loading {Path(path).name}", "a smaller model, or close other programs"):
                raise short from error
            raise BundleError(f"onnxruntime does not load {path}: {error}", "rebuild the graph") from error
        self.providers: list[str] = self.session.get_providers()
        if lacking := [name for name in names if name not in self.providers]:  # it continues without, and only warns
            raise BundleError(f"{lacking[0]} does not start on this machine", "check its driver: pocketzoo doctor")
        self.inputs = {i.name: i.shape for i in self.session.get_inputs()}
        self.types = {i.name: _TYPES.get(i.type) for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self._gives = _TYPES.get(self.session.get_outputs()[0].type)

    def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: input name to array, output name to array.

        Raises:
            DataError: an input is missing, unknown, or has the wrong shape or type.
            MemoryShortError: there is not enough memory for a batch as large.
        """
        self._check(inputs)
        session = self.session  # closing it in another thread leaves this run its own
        try:
            return dict(zip(self.outputs, session.run(self.outputs, dict(inputs)), strict=True))
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if (explained := _explained(error, inputs)) is None:
                raise
            raise explained from error

    def run(self, x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """All outputs by name, for a graph with one input.

        Raises:
            DataError, MemoryShortError: as ``infer``.
            UnsupportedModelError: an output is a sequence or an optional value.
        """
        outputs = self.infer({next(iter(self.inputs)): x})
        for name, value in outputs.items():
            if not isinstance(value, np.ndarray):
                raise UnsupportedModelError(
                    f"the output {name!r} is not a tensor but a {type(value).__name__}", "export the model with tensors"
                )
        return outputs

    def logits(self, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """The first output for a graph with one input: (B, *size) -> (B, outputs).

        With ``out``, a contiguous array of the output's shape and type, the runtime writes there and copies nothing.

        Raises:
            DataError, MemoryShortError: as ``infer``; and ``out`` does not fit.
        """
        inputs = {next(iter(self.inputs)): x}
        if out is None:
            return self.infer(inputs)[self.outputs[0]]
        self._check(inputs)
        if not out.flags.c_contiguous or not out.flags.writeable or self._gives not in (None, out.dtype):
            raise DataError(
                f"out, {out.dtype} of {out.shape}, is not one contiguous array of {self._gives}",
                "make it with numpy.empty",
            )
        session = self.session
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        binding.bind_output(self.outputs[0], "cpu", 0, out.dtype, out.shape, out.ctypes.data)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if (explained := _explained(error, inputs)) is None:
                raise
            raise explained from error
        return out

    def close(self) -> None:
        """Give the session's memory back."""
        del self.session

    def __enter__(self) -> OnnxRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        if unknown := set(inputs) - set(self.inputs):
            raise DataError(f"the graph has no input {min(unknown)!r}", f"its inputs: {', '.join(self.inputs)}")
        for name, shape in self.inputs.items():
            actual = inputs[name].shape if name in inputs else None
            fits = actual is not None and len(actual) == len(shape)
            if not fits or any(isinstance(s, int) and s != g for s, g in zip(shape, actual or (), strict=True)):
                raise DataError(f"input {name!r} is {actual}, the graph expects {tuple(shape)}", "reshape the input")
            if self.types[name] not in (None, inputs[name].dtype):
                given_type, expected_type = inputs[name].dtype, self.types[name]
                raise DataError(f"input {name!r} is {given_type}, the graph expects {expected_type}", "convert it")


def memory_short(error: Exception, doing: str, instead: str) -> MemoryShortError | None:
    """The error to show where a runtime's own says that memory was short, with how much was asked for; else None."""
    text = str(error)
    if not _SHORT.search(text):
        return None
    match = _BYTES.search(text)
    size = f", {int(match[1] or match[2]) / 1e6:,.0f} MB were requested at once" if match else ""
    return MemoryShortError(f"out of memory {doing}{size}", f"try {instead}")


def _explained(error: Exception, inputs: Mapping[str, np.ndarray[Any, Any]]) -> PocketzooError | None:
    """What a run that failed means to the user; None where that is not known."""
    batch = max((len(x) for x in inputs.values() if x.ndim), default=1)
    smaller = f"batches of {batch // 2}" if batch > 1 else "a smaller model, or close other programs"
    if short := memory_short(error, f"with a batch of {batch}", smaller):
        return short
    if not _DOES_NOT_FIT.search(str(error)):
        return None
    shapes = ", ".join(f"{name} {x.dtype} {x.shape}" for name, x in inputs.items())
    return DataError(
        f"the graph does not run on {shapes}: {error}", "give inputs of the shapes and values the graph expects"
    )
