"""Run the module of a bundle with torch, behind the interface of the graph runner."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.bundle_signature import bundle_signature
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.modules.outputs import outputs_of


class TorchRunner:
    """The module on a device. Its threads are all of torch's, until it is closed."""

    def __init__(
        self,
        bundle: Path,
        *,
        threads: int = 0,
        compiled: bool = False,
        device: str = "cpu",
        registry: Registry | None = None,
    ) -> None:
        """``threads`` = 0 leaves them as torch has them. What the module is built from is of ``registry``.

        Raises:
            UnsupportedModelError: the bundle came as an ONNX file, and has no module.
        """
        read = read_bundle(bundle)
        module = load_module(read, Resolver.of(registry)).to(device)
        self.module: Any = torch.compile(module) if compiled else module
        self._signature = bundle_signature(read)
        self.device, self.before = device, torch.get_num_threads()
        torch.set_num_threads(threads or self.before)

    @property
    def signature(self) -> ModelSignature:
        """What the module reads and outputs."""
        return self._signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: every input by name to every output by name, on the CPU, so that a GPU has finished.

        Raises:
            DataError: an input is missing or unknown.
        """
        names = [spec.name for spec in self._signature.inputs]
        if set(inputs) != set(names):
            raise DataError(f"the inputs are {', '.join(inputs) or 'none'}", f"give {', '.join(names)}")
        with torch.inference_mode():
            tensors = outputs_of(self.module(*(torch.from_numpy(inputs[name]).to(self.device) for name in names)))
            outputs = {name: value.cpu().numpy() for name, value in tensors.items()}
        for name, array in (out or {}).items():
            np.copyto(array, outputs[name])
        return {**outputs, **(out or {})}

    def close(self) -> None:
        """Give the module back, and torch the threads it had."""
        del self.module
        torch.set_num_threads(self.before)

    def __enter__(self) -> TorchRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
