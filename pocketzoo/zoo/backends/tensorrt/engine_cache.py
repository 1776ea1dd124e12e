"""Cache of built engines, keyed by everything they were built from: ``store/engines``. Standard library.

The graph is the artifact, an engine only saves the time to build it again: none is fetched, and none is taken that is
not what was put in. ``store prune`` removes those that nobody took for a month.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from pocketzoo.core.caching import caching
from pocketzoo.core.errors import StorageError
from pocketzoo.core.files import replacing_file, sha256
from pocketzoo.core.keys import cache_key
from pocketzoo.zoo.backends.tensorrt.facts import facts_of
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.hub.store import Store


def engine_key(graph: Path, target: TargetSpec, version: str, gpu: Gpu | None, options: EngineOptions) -> str:
    """The digest of all that decides what an engine is; if any of it differs, it is another."""
    runtime = f"{facts_of(target).module} {version}"
    weights = {"weights": tuple(files)} if (files := weight_files(graph)) else {}
    return cache_key("engine", graph=graph, **weights, target=target, runtime=runtime, gpu=gpu, options=options)


class EngineCache:
    """A folder of engines, each alongside the sha256 it had."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Store().root / "engines"

    def find(self, key: str) -> Path | None:
        """The engine of a key; one whose bytes are not those that were kept is removed."""
        path, note = self._places(key)
        if not caching():
            return None
        try:
            if path.is_symlink() or note.is_symlink():
                raise ValueError  # no writer makes one
            if note.read_text("ascii") == sha256(path):
                os.utime(path)  # prune looks at it
                return path
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            pass
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
        return None

    def keep(self, key: str, engine: memoryview) -> None:
        """Take an engine in; where the disk refuses, it is built again next time."""
        path, note = self._places(key)
        with contextlib.suppress(StorageError):
            with replacing_file(path) as temporary:
                temporary.write_bytes(engine)
            with replacing_file(note) as temporary:
                temporary.write_text(hashlib.sha256(engine).hexdigest(), "ascii")

    def built(self, digest: str) -> bool:
        """Whether an engine of this sha256 was built here: no other is loaded."""
        return any(note.read_text("ascii", "replace") == digest for note in self.root.glob("*.sha256"))

    def timings(self, module: str, version: str, gpu: Gpu | None) -> Path:
        """Where kernels' times are kept, which hold for one version on one GPU."""
        name = hashlib.sha256(f"{module} {version} {gpu}".encode()).hexdigest()
        return self.root / f"{name}.timings"

    def _places(self, key: str) -> tuple[Path, Path]:
        return self.root / f"{key}.engine", self.root / f"{key}.sha256"
