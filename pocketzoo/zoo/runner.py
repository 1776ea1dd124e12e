"""Run an ONNX graph with onnxruntime. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pocketzoo.errors import BundleError, DataError
from pocketzoo.optional import require

_TYPES = {"tensor(float)": np.dtype("float32"), "tensor(uint8)": np.dtype("uint8"), "tensor(int64)": np.dtype("int64")}


class OnnxRunner:
    """A session on a graph; names, shapes and types come from the file. A context manager that gives memory back."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """``threads`` = 0 takes all cores.

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            BundleError: onnxruntime does not load the graph.
        """
        ort = require("onnxruntime", extra="compress")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            raise BundleError(f"onnxruntime does not load {path}: {error}", "make the graph again") from error
        self.inputs = {i.name: i.shape for i in self.session.get_inputs()}
        self.types = {i.name: _TYPES.get(i.type) for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: input name to array, output name to array.

        Raises:
            DataError: an input is missing, unknown, or has the wrong shape.
        """
        if unknown := set(inputs) - set(self.inputs):
            raise DataError(f"the graph has no input {min(unknown)!r}", f"its inputs: {', '.join(self.inputs)}")
        for name, shape in self.inputs.items():
            given = inputs[name].shape if name in inputs else None
            fits = given is not None and len(given) == len(shape)
            if not fits or any(isinstance(s, int) and s != g for s, g in zip(shape, given or (), strict=True)):
                raise DataError(f"input {name!r} is {given}, the graph takes {tuple(shape)}", "reshape the input")
            if self.types[name] not in (None, inputs[name].dtype):
                given_type, wanted = inputs[name].dtype, self.types[name]
                raise DataError(f"input {name!r} is {given_type}, the graph takes {wanted}", "convert it")
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(inputs)), strict=True))

    def logits(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The first output for a graph with one input: (B, *size) -> (B, outputs)."""
        return self.infer({next(iter(self.inputs)): x})[self.outputs[0]]

    def close(self) -> None:
        """Give the session's memory back."""
        del self.session

    def __enter__(self) -> OnnxRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
