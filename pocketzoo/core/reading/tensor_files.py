"""Read safetensors files: the one place that does. Whatever else a file is, nothing ever parses it as that.

Before it makes any tensor, the library checks the header, that each tensor lies within the file, and that nothing lies
between them. What it raises becomes an error for users, also over types that it knows and torch or numpy do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError, in_a_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What one holds: tensors of torch by name, and texts."""

    tensors: dict[str, Tensor]
    texts: Mapping[str, str] = field(default_factory=dict)


def read_tensor_file(path: Path, name: str = "") -> TensorFile:
    """All that a file holds, on the CPU.

    Raises:
        UnsafeFileError: it is not a safetensors file; the message calls it ``name``.
        UnsupportedModelError: a tensor is of a type that torch does not have.
        OSError: there is none, or it may not be read.
    """
    from safetensors import safe_open

    with _explained(name or path.name), safe_open(str(path), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is not a mapping
        return TensorFile(tensors, file.metadata() or {})


def read_tensors(path: Path, name: str = "") -> dict[str, Tensor]:
    """The tensors of a file, for torch; as ``read_tensor_file``."""
    from safetensors.torch import load_file

    with _explained(name or path.name):
        tensors: dict[str, Tensor] = load_file(path)
        return tensors


def read_arrays(path: Path, name: str = "") -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of a file, for numpy, which has no bfloat16; as ``read_tensor_file``. No torch."""
    from safetensors.numpy import load_file

    with _explained(name or path.name):
        arrays: dict[str, npt.NDArray[np.generic]] = load_file(path)
        return arrays


def parse_arrays(data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors in the bytes of a file, for numpy; as ``read_tensor_file``."""
    from safetensors.numpy import load

    with _explained("this"):
        arrays: dict[str, npt.NDArray[np.generic]] = load(data)
        return arrays


@contextmanager
def _explained(name: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise UnsafeFileError(
            f"{name} is not a safetensors file ({error})", "do not use it: other formats can run code"
        ) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's and numpy's, for types that they lack and shapes that they do not hold
        raise UnsupportedModelError(
            f"{name} has a tensor that cannot be read here ({in_a_line(error)[:200]})",
            "save its weights in float32, fp16 or bf16",
        ) from error
