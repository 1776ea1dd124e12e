"""Which data a foreign graph takes, in words, before it is opened."""

from __future__ import annotations

from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.catalog.processor import ForeignInputs
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.data.processors.base import by
from pocketzoo.zoo.data.processors.open_processor import feeding, suffixes

SHOWN = 4  # inputs
SIDE = 224  # pixels, of images of any size: which processors make the input does not depend on it


def needed_data(signature: ModelSignature, source: str, registry: Registry | None = None) -> str:
    """What ``--data`` may be for a graph: arrays by the names of its inputs, and files that a processor reads."""
    rest = len(signature.inputs) - SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    arrays = f"an .npz with {', '.join(map(_told, signature.inputs[:SHOWN]))}{more}, samples along the first axis"
    return "; or ".join([arrays, *_files(signature.inputs, source, registry or default_registry())])


def _told(tensor: TensorSpec) -> str:
    return f"{tensor.name!r} ({tensor.dtype}{' ' + by(tensor.shape) if tensor.shape else ''})"


def _files(inputs: tuple[TensorSpec, ...], source: str, registry: Registry) -> list[str]:
    asked = ForeignInputs(inputs=inputs, source=source, size=SIDE)
    try:
        configs = feeding(asked, registry)
    except PocketzooError:
        return []
    endings = {name: sorted(suffixes(registry, config)) for name, config in configs.items()}
    return [f"a folder of {name} files ({', '.join(files)})" for name, files in endings.items() if files]
