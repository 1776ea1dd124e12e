"""Run the module of a bundle with torch, behind the interface of the graph runner."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.resolver import Resolver


class TorchRunner:
    """The module on a device. Its threads are all of torch's, until it is closed."""

    def __init__(self, bundle: Path, *, threads: int = 0, compiled: bool = False, device: str = "cpu") -> None:
        """``threads`` = 0 leaves them as torch has them.

        Raises:
            UnsupportedModelError: the bundle came as an ONNX file, and has no module.
        """
        module = load_module(read_bundle(bundle), Resolver()).to(device)
        self.module: Any = torch.compile(module) if compiled else module
        self.device, self.before = device, torch.get_num_threads()
        torch.set_num_threads(threads or self.before)

    def run(self, x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """The one output, called as that of the graph."""
        return {"logits": self.logits(x)}

    def logits(self, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """(B, *size) -> (B, outputs); back on the CPU, so that a GPU has finished."""
        with torch.inference_mode():
            output: np.ndarray[Any, Any] = self.module(torch.from_numpy(x).to(self.device)).cpu().numpy()
        if out is None:
            return output
        np.copyto(out, output)
        return out

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
