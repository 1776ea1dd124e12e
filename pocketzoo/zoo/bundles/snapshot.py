"""Snapshots of unfinished work: tensors and facts in one file, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pocketzoo.core.files import replacing_file


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was kept: facts as plain data, and tensors in named parts."""

    facts: dict[str, Any]
    parts: dict[str, dict[str, Tensor]]


def write_snapshot(place: Path, key: str, facts: Mapping[str, Any], **parts: Mapping[str, Tensor]) -> None:
    """Replace the file at ``place``. ``key`` says whose work it is."""
    place.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}/{name}": value.detach().cpu().clone().contiguous()  # tied weights share memory
        for part, found in parts.items()
        for name, value in found.items()
    }
    with replacing_file(place) as temporary:
        save_file(
            tensors, str(temporary), metadata={"state": json.dumps({"key": key, **facts}), "parts": " ".join(parts)}
        )


def read_snapshot(place: Path, key: str) -> Snapshot | None:
    """What was kept there, or None: nothing, something damaged, or the work of another ``key``."""
    if not place.is_file():
        return None
    try:
        with safe_open(str(place), "pt") as file:
            metadata = file.metadata()
            facts = json.loads(metadata["state"])
            if facts.pop("key") != key:
                return None
            parts: dict[str, dict[str, Tensor]] = {part: {} for part in metadata["parts"].split()}
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                part, _, rest = name.partition("/")
                parts[part][rest] = file.get_tensor(name)
            if "optimiser" in parts:  # its name in the previous release
                parts["optimizer"] = parts.pop("optimiser")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError):
        return None
    return Snapshot(facts, parts)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Momenta and step counts: "parameter's number/name" to tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{k}": v for i, values in state.items() for k, v in values.items() if isinstance(v, Tensor)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave; rates and other settings stay the optimizer's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        i, _, what = name.partition("/")
        state.setdefault(int(i), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
