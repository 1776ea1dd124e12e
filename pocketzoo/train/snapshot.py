"""Snapshots of unfinished training: a record and tensors in one file, replaced atomically, that a run resumes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pocketzoo.core.errors import PocketzooError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.reading.documents import parse_json
from pocketzoo.core.reading.tensor_files import read_tensor_file
from pocketzoo.core.renamed import keywords_renamed

if TYPE_CHECKING:
    from pocketzoo.train.distributed.process_group import World

R = TypeVar("R")


class Stateful(Protocol):
    """What can say its state as tensors, and be put back into it."""

    def state(self) -> Mapping[str, Tensor]:
        """All of it, by name."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        ...


# What a run is made of; a dict is filled in place.
Part = nn.Module | torch.optim.Optimizer | dict[str, Tensor] | Stateful


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was kept: facts as plain data, and tensors in named parts."""

    facts: dict[str, Any]
    parts: dict[str, dict[str, Tensor]]


class SnapshotFile:
    """The snapshot of one run: how it is kept, and how the run resumes from it.

    A run keeps a record, which is a dataclass of plain data, and its parts by name. It asks for the record first and
    then has the same parts loaded.
    """

    def __init__(self, place: Path | None, key: str = "", world: World | None = None) -> None:
        """``key`` says whose work it is. Without a ``place`` nothing is kept; of several processes the first keeps it.

        The other processes of ``world`` are given what the first has read.
        """
        self.place = place if world is None or world.first else None
        self.key = key
        stored = None if self.place is None else read_snapshot(self.place, key)
        self.stored: Snapshot | None = stored if world is None else world.tell(stored)

    def record(self, kind: type[R]) -> R | None:
        """The record that was kept, None where there is nothing to resume from."""
        return None if self.stored is None else kind(**self.stored.facts)

    def load(self, **parts: Part) -> bool:
        """Put the parts into the state they were kept in, and let go of it; whether there was one."""
        if self.stored is None:
            return False
        for name, part in parts.items():
            _load(part, self.stored.parts[name])
        self.stored = None
        return True

    def keep(self, record: Any, **parts: Part) -> None:
        """Replace the snapshot. Where parts are sharded, all processes are to call this."""
        tensors = {name: _tensors(part) for name, part in parts.items()}
        if self.place is not None:
            write_snapshot(self.place, self.key, asdict(record), **tensors)


def _tensors(part: Part) -> dict[str, Tensor]:
    if isinstance(part, torch.optim.Optimizer):
        return optimizer_tensors(part)
    if isinstance(part, nn.Module):
        return gathered(part.state_dict())
    return gathered(part if isinstance(part, dict) else part.state())


def _load(part: Part, tensors: Mapping[str, Tensor]) -> None:
    if isinstance(part, torch.optim.Optimizer):
        load_optimizer(part, tensors)
    elif isinstance(part, nn.Module):
        part.load_state_dict(tensors)
    elif isinstance(part, dict):
        part.update(tensors)
    else:
        part.load(tensors)


# -- the file


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
        file = read_tensor_file(place)
        facts = parse_json(file.texts["state"])
        if facts.pop("key") != key:
            return None
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in file.texts["parts"].split()}
        for name, tensor in file.tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        return _as_named_now(Snapshot(facts, parts))
    except (PocketzooError, KeyError, TypeError, ValueError, OSError):
        return None


def _as_named_now(snapshot: Snapshot) -> Snapshot:
    """A snapshot of the previous release with today's names."""
    facts, parts = dict(snapshot.facts), dict(snapshot.parts)
    if "optimiser" in parts:
        parts["optimizer"] = parts.pop("optimiser")
    if "distance" in facts:  # of a distillation, whose scores were errors
        facts["best"] = -facts.pop("distance")
        facts["scores"] = [-error for error in facts.pop("history")]
    return Snapshot(facts, parts)


# -- states as tensors


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@keywords_renamed(optimiser="optimizer")
def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Momenta and step counts, gathered: "parameter's number/name" to tensor."""
    state = optimizer.state_dict()["state"]
    return gathered({f"{i}/{k}": v for i, values in state.items() for k, v in values.items() if isinstance(v, Tensor)})


@keywords_renamed(optimiser="optimizer")
def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave; rates and other settings stay the optimizer's own."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        i, _, what = name.partition("/")
        p = parameters[int(i)]
        state.setdefault(int(i), {})[what] = laid_out(value, p) if value.shape == p.shape else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with what other processes have of them, which come to the CPU; all processes are to ask."""
    return {name: value.full_tensor().cpu() if _sharded(value) else value for name, value in tensors.items()}  # type: ignore[attr-defined]


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """``value`` as ``like`` is spread over processes."""
    if not _sharded(like) or _sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]  # all have all of it


def _sharded(value: Tensor) -> bool:
    """Whether it is a DTensor: where nothing is sharded, the import of that class would only cost a second."""
    return hasattr(value, "full_tensor")
