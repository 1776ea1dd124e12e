"""The process group that torchrun starts; a single process is a group of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous

from pocketzoo.core.errors import ProcessLostError
from pocketzoo.core.progress import SILENT, Progress

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # for what the others do alone: features, writing
_RUNS = count()


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many processes this is, and where its tensors live."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and reports."""
        return self.rank == 0

    def heard(self, progress: Progress) -> Progress:
        """``progress`` for the first, silence for the others."""
        return progress if self.first else SILENT

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch: every sample is in one part."""
        return rows[self.rank :: self.size]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def spread(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes; a sharded one does so itself."""
        if self.size == 1 or isinstance(module, FSDPModule):
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def agree(self, module: nn.Module) -> None:
        """Give all processes the buffers of the first: statistics of batch norm are each one's own while it trains."""
        if self.size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def tell(self, value: T | None) -> T | None:
        """What the first has, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, 0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What each of them has, in their order, everywhere."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def seed(self, number: int) -> None:
        """Start chance, such as dropout's, anew on the device. torch.manual_seed would note a traceback each time."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()


@cache
def _meeting() -> tuple[Store, int, int]:
    """Where the processes find each other, as long as this one lives; its rank, and how many they are."""
    meeting: tuple[Store, int, int] = next(rendezvous("env://", timeout=PATIENCE))
    return meeting


@contextmanager
def joined() -> Iterator[World]:
    """The world of this process. Of torchrun's, all are connected: by nccl on GPUs, by gloo elsewhere.

    Raises:
        ProcessLostError: another process ended early.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if size == 1:
        yield World(device=local)
        return
    if cuda:
        torch.cuda.set_device(local)
    store, rank, size = _meeting()
    # What the processes told each other the last time is still in the store, and would be taken for new.
    fresh = PrefixStore(f"run {next(_RUNS)}", store)
    backend = "nccl" if cuda else "gloo"
    distributed.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(distributed.get_rank(), size, local)
    except (RuntimeError, distributed.DistBackendError) as error:
        if not any(sign in str(error) for sign in ("Connection", "peer", "gloo", "NCCL", "Timed out")):
            raise
        raise ProcessLostError(
            f"another of the {size} processes ended: {str(error).splitlines()[0]}",
            "see its error above; the same command resumes from the last checkpoint",
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
