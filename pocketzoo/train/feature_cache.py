"""Cache of frozen backbone features: computed once, memory-mapped, found by a key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.arrays import Arrays, first
from pocketzoo.core.errors import DataError, StorageError, UnsupportedModelError, message_of
from pocketzoo.core.files import home, replacing_folder
from pocketzoo.core.progress import Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.data.batches import Batches

ROOM = 8e9  # bytes that all kept features may take; POCKETZOO_FEATURES sets another number
IN_MEMORY = 256e6  # bytes of a split's features that are read at once; more are mapped
VALUES, TARGETS, FACTS = "values.f32", "targets.npy", "facts.json"


class Source(Protocol):
    """Samples to learn from."""

    def __len__(self) -> int: ...

    @property
    def targets(self) -> Targets:
        """Classes (N,), or numbers (N, outputs)."""
        ...

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, ...) and targets of these rows, batch by batch, in this order."""
        ...


@dataclass(frozen=True)
class Samples:
    """The samples themselves, or what a frozen backbone makes of them each time."""

    batches: Batches
    backbone: nn.Module | None = None

    def __len__(self) -> int:
        return self.batches.samples

    @property
    def targets(self) -> Targets:
        assert self.batches.split.targets is not None
        return self.batches.split.targets[: len(self)]

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches.of(parts):
            if self.backbone is not None:
                with torch.no_grad():
                    inputs = _features(self.backbone, x).cpu()
            elif len(x) == 1:
                inputs = torch.from_numpy(first(x))
            else:
                raise UnsupportedModelError(
                    f"fit cannot train a backbone of several inputs yet: {', '.join(x)}",
                    "leave it frozen: without --unfreeze, LoRA and augmentation",
                )
            yield inputs, torch.from_numpy(y)


@dataclass(frozen=True)
class Features:
    """Features on disk. Sequences lie one after the other, as long as each is, and are filled up with zeros."""

    values: npt.NDArray[np.float32]  # (N, *features), or of sequences (all tokens, channels)
    targets: Targets
    ends: npt.NDArray[np.int64] | None = None  # (N + 1,), where sequences begin and end

    def __len__(self) -> int:
        return len(self.targets)

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            rows = np.asarray(part)
            targets = torch.from_numpy(self.targets[rows])
            if self.ends is None:
                yield torch.from_numpy(self.values[rows]), targets
                continue
            texts = [torch.from_numpy(self.values[self.ends[i] : self.ends[i + 1]].copy()) for i in rows.tolist()]
            longest = max(len(text) for text in texts)
            yield torch.stack([F.pad(text, (0, 0, 0, longest - len(text))) for text in texts]), targets


def features(
    backbone: nn.Module,
    batches: Batches,
    *,
    weights: str,
    data: str,
    sequence: bool,
    what: str,
    label: str,
    progress: Progress,
    reads: Any = None,
) -> Source:
    """The features of all samples: those that were kept under the same key, or computed now.

    The key covers how samples are read (``reads``, the config of the processor), and the digests of the backbone's
    ``weights`` and of the ``data``; ``what`` names them in errors. What is kept takes at most ``ROOM``: features that
    were not used for longest go first. Where there is no room they are computed each time they are used.

    Raises:
        DataError: none of the samples can be read.
    """
    facts = [weights, to_plain(batches.spec if reads is None else reads), data, batches.skipped is not None, sequence]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    place = home() / "features" / key[:32]
    if (cached := _read(place, batches)) is not None:
        return cached
    try:
        _write(place, backbone, batches, sequence, what, progress.track(batches, label, len(batches)))
    except (StorageError, _NoRoom) as error:
        progress.say(f"features are not cached: {message_of(error)}")
        return Samples(batches, backbone)
    written = _read(place, batches)
    assert written is not None
    return written


class _NoRoom(Exception):  # noqa: N818 - no error: they are computed each time
    pass


def _write(
    place: Path,
    backbone: nn.Module,
    batches: Batches,
    sequence: bool,
    what: str,
    items: Iterable[tuple[Any, Targets | None]],
) -> None:
    room = float(os.environ.get("POCKETZOO_FEATURES", ROOM))
    targets, lengths, shape, size = [], [], (), 0
    with replacing_folder(place) as folder, (folder / VALUES).open("wb") as file, torch.no_grad():
        for x, y in items:
            assert y is not None
            out = _features(backbone, x).float().cpu().numpy()
            if not size:
                estimate = (out.nbytes / len(out) + 16) * len(batches.split) + 1024  # with targets, and the facts
                if estimate > room or estimate > shutil.disk_usage(folder).free / 2:
                    raise _NoRoom(f"they would take {estimate / 1e9:.1f} GB")
                _make_room(place.parent, room - estimate)
            samples = [row[: _length(row)] for row in out] if sequence else [out]
            for part in samples:
                file.write(np.ascontiguousarray(part, np.float32).data)
            lengths += [len(part) for part in samples] if sequence else []
            targets.append(y)
            shape, size = out.shape[-1:] if sequence else out.shape[1:], size + out.nbytes
        if not targets:
            raise DataError(f"{what} is empty", "give each class at least five samples")
        np.save(folder / TARGETS, np.concatenate(targets))
        skipped = sorted(batches.skipped.names) if batches.skipped is not None else []
        facts = {"shape": shape, "lengths": lengths if sequence else None, "skipped": skipped}
        (folder / FACTS).write_text(json.dumps(facts))


def _features(backbone: nn.Module, x: Arrays) -> Tensor:
    """What a backbone makes of a batch, each input in its order."""
    features: Tensor = backbone(*(torch.from_numpy(array).to(_device(backbone)) for array in x.values()))
    return features


def _read(place: Path, batches: Batches) -> Features | None:
    try:
        facts = json.loads((place / FACTS).read_text())
        path = place / VALUES
        mapped = path.stat().st_size > IN_MEMORY
        read = np.memmap(path, np.float32, "r") if mapped else np.fromfile(path, np.float32)
        values = read.reshape(-1, *facts["shape"])
        targets = np.load(place / TARGETS)
        os.utime(place / FACTS)
    except (OSError, ValueError, KeyError):
        return None
    ends = None if facts["lengths"] is None else np.cumsum([0, *facts["lengths"]])
    if len(values) != (len(targets) if ends is None else ends[-1]):
        return None
    if batches.skipped is not None:
        batches.skipped.names.update(facts["skipped"])
    return Features(values, targets, ends)


def _length(sequence: npt.NDArray[np.float32]) -> int:
    """Without the zeros after its end; at least one token."""
    used = np.flatnonzero(sequence.any(-1))
    return int(used[-1]) + 1 if len(used) else 1


def _make_room(folder: Path, room: float) -> None:
    """Remove what was not used for longest, until the rest takes no more than ``room`` bytes."""
    entries = sorted(folder.glob(f"*/{FACTS}"), key=lambda facts: facts.stat().st_mtime)
    sizes = {facts.parent: sum(f.stat().st_size for f in facts.parent.iterdir()) for facts in entries}
    for place in list(sizes):
        if sum(sizes.values()) <= room:
            return
        shutil.rmtree(place, ignore_errors=True)
        del sizes[place]


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def weights_digest(module: nn.Module) -> str:
    """sha256 over names and values of everything a module computes with."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data if value.numel() else b"")
    return digest.hexdigest()
