"""Cache of frozen backbone features: computed once, memory-mapped, found by a key."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pocketzoo.core.caching import caching
from pocketzoo.core.errors import DataError, StorageError, message_of
from pocketzoo.core.files import home, replacing_folder
from pocketzoo.core.keys import cache_key, digest_of
from pocketzoo.core.progress import Progress
from pocketzoo.core.reading.documents import read_json
from pocketzoo.train.sources import ONE, Features, Kept, Samples, Source, features_of
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.specs import FeatureSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.modules.features import FeatureChoice

ROOM = 8e9  # bytes that all kept features may take; POCKETZOO_FEATURES sets another number
IN_MEMORY = 256e6  # bytes of a split's features that are read at once; more are mapped
VALUES, TARGETS, FACTS = "values.bin", "targets.npy", "facts.json"


def features(
    backbone: nn.Module,
    batches: Batches,
    *,
    weights: str,
    data: str,
    choice: FeatureChoice = ONE,
    what: str,
    label: str,
    progress: Progress,
    reads: Any = None,
    code: Sequence[Any] = (),
) -> Source:
    """The features of all samples: those that were kept under the same key, or computed now.

    The key covers how samples are read (``reads``, the config of the processor), the digests of the backbone's
    ``weights`` and of the ``data``, and the ``code`` that computes (``plugin_sources``, and the spec); ``choice`` says
    which of the backbone's features, and ``what`` names the samples in errors. What is kept takes at most ``ROOM``:
    features that were not used for longest go first. Where there is no room, or they differ in size, they are computed
    each time they are used.

    Raises:
        DataError: none of the samples can be read.
    """
    key = cache_key(
        "features",
        weights=weights,
        reads=batches.spec if reads is None else reads,
        data=data,
        skips=batches.skipped is not None,
        choice=(choice.named, dict(choice.specs), list(choice.specs)),
        code=list(code),
        torch=torch.__version__,
    )
    place = home() / "features" / key[:32]
    if caching() and (cached := _read(place, batches)) is not None:
        return cached
    # With a note of its own: what was skipped of another split may have the same name.
    own = batches if batches.skipped is None else replace(batches, skipped=Skipped())
    try:
        _write(place, backbone, own, choice, what, progress.track(own, label, len(own)))
    except (StorageError, _NoRoom) as error:
        progress.say(f"features are not cached: {message_of(error)}")
        return Samples(batches, backbone, choice)
    if (written := _read(place, batches)) is None:  # another process removed them, or they may not be read
        progress.say("features are not cached: they cannot be read back")
        return Samples(batches, backbone, choice)
    return written


class _NoRoom(Exception):  # noqa: N818 - no error: they are computed each time
    pass


def _write(
    place: Path,
    backbone: nn.Module,
    batches: Batches,
    choice: FeatureChoice,
    what: str,
    items: Iterable[tuple[Any, Targets | None]],
) -> None:
    room = float(os.environ.get("POCKETZOO_FEATURES", ROOM))
    axes = {name: _sequence_axis(spec) for name, spec in choice.specs.items()}
    targets: list[Targets] = []
    lengths: dict[str, list[int]] = {axis: [] for axis in axes.values() if axis}
    shapes: dict[str, tuple[str, list[int]]] = {}
    with replacing_folder(place) as folder, ExitStack() as stack, torch.no_grad():
        files = {name: stack.enter_context((folder / _file(i)).open("wb")) for i, name in enumerate(axes)}
        for x, y in items:
            assert y is not None
            out = {name: _array(each) for name, each in features_of(backbone, x, choice).items()}
            if not targets:
                size = sum(each.nbytes / len(y) for each in out.values())
                estimate = (size + 16) * len(batches.split) + 1024  # with targets, and the facts
                if estimate > room or estimate > shutil.disk_usage(folder).free / 2:
                    raise _NoRoom(f"they would take {estimate / 1e9:.1f} GB")
                _make_room(place.parent, room - estimate)
            own = {axis: _lengths([out[n] for n in out if axes[n] == axis]) for axis in lengths}
            for name, each in out.items():
                axis = axes[name]
                shape = (each.dtype.str, list(each.shape[2 if axis else 1 :]))
                if shapes.setdefault(name, shape) != shape:
                    raise _NoRoom(f"{name} differ in size from batch to batch")
                for part in [row[:n] for row, n in zip(each, own[axis], strict=True)] if axis else [each]:
                    files[name].write(np.ascontiguousarray(part).data)
            for axis, counts in own.items():
                lengths[axis] += counts
            targets.append(y)
        if not targets:
            raise DataError(f"{what} is empty", "give each class at least five samples")
        np.save(folder / TARGETS, np.concatenate(targets))
        skipped = batches.skipped.listed() if batches.skipped is not None else []
        values = {name: {"type": kind, "shape": shape, "axis": axes[name]} for name, (kind, shape) in shapes.items()}
        (folder / FACTS).write_text(json.dumps({"values": values, "lengths": lengths, "skipped": skipped}))


def _file(number: int) -> str:
    return f"{number}.{VALUES}" if number else VALUES


def _array(features: Tensor) -> npt.NDArray[Any]:
    """As they are kept: what has a fraction in 32 bits."""
    array: npt.NDArray[Any] = (features.float() if features.is_floating_point() else features).cpu().numpy()
    return array


def _sequence_axis(spec: FeatureSpec) -> str:
    """The axis along which samples are of different lengths; "" where they are not."""
    axis = spec.shape[1] if spec.kind in ("sequence", "mask") else 0
    return axis if isinstance(axis, str) else ""


def _read(place: Path, batches: Batches) -> Features | None:
    try:
        facts = read_json(place / FACTS)
        targets = np.load(place / TARGETS)
        ends = {axis: np.cumsum([0, *counts]) for axis, counts in facts["lengths"].items()}
        parts = {}
        for number, (name, fact) in enumerate(facts["values"].items()):
            path = place / _file(number)
            mapped = path.stat().st_size > IN_MEMORY
            read = np.memmap(path, fact["type"], "r") if mapped else np.fromfile(path, fact["type"])
            axis = fact["axis"]
            values = read.reshape(-1, *fact["shape"])
            if len(values) != (ends[axis][-1] if axis else len(targets)):
                return None
            parts[name] = Kept(values, ends[axis] if axis else None, axis)
        with suppress(OSError):  # a store that may not be changed
            os.utime(place / FACTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    rows: Sequence[int] = ()
    if batches.skipped is not None:
        batches.skipped.names.update(facts["skipped"])
        left = set(facts["skipped"])
        rows = [i for i in range(batches.samples) if batches.split.called(i) not in left] if left else ()
    return Features(parts, targets, batches, rows)


def _lengths(features: Sequence[npt.NDArray[Any]]) -> list[int]:
    """Of each sample's sequences, (B, T, ...), without what is zero in all of them at the end; at least one token."""
    used = np.any([each.reshape(*each.shape[:2], -1).any(-1) for each in features], 0)
    return [int(row.nonzero()[0][-1]) + 1 if row.any() else 1 for row in used]


def _make_room(folder: Path, room: float) -> None:
    """Remove what was not used for longest, until the rest takes no more than ``room`` bytes."""
    entries = sorted(folder.glob(f"*/{FACTS}"), key=lambda facts: facts.stat().st_mtime)
    sizes = {facts.parent: sum(f.stat().st_size for f in facts.parent.iterdir()) for facts in entries}
    for place in list(sizes):
        if sum(sizes.values()) <= room:
            return
        shutil.rmtree(place, ignore_errors=True)
        del sizes[place]


def weights_digest(module: nn.Module) -> str:
    """sha256 over names and values of everything a module computes with."""
    return digest_of(module.state_dict())
