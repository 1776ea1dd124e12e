"""Pack a bundle for a device: one graph, labels, tokenizer; no weights to train on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import BundleError
from pocketzoo.core.files import sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, writing
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import needed_files
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver


@survives_exit
def pack(
    model: str | Path,
    out: str | Path,
    *,
    target: str = "cpu",
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Copy what runs on ``target`` into a bundle at ``out``: its graph, else the float graph. Engines are not copied.

    The manifest is kept, without plans, layer costs and measurements. The copy predicts as the bundle does and cannot
    be compressed or encoded for another target; its provenance has the digest of the original manifest. ``force``
    replaces a finished bundle at ``out``.

    Raises:
        UnknownNameError: no such model or target.
        BundleError: ``out`` is the model itself, a finished bundle, or something else.
    """
    source = Path(str(model).removeprefix("file:"))
    if source.exists() and source.resolve() == Path(out).resolve():
        raise BundleError(f"{out} is the bundle to pack", "choose another place with -o")
    check_place(Path(out), force=force)
    resolver = Resolver.of(registry)
    resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    if Path(out).resolve() == bundle.path.resolve():  # a registered model has a place of its own
        raise BundleError(f"{out} is the bundle to pack", "choose another place with -o")
    manifest = bundle.manifest
    with writing(Path(out), force=force, progress=progress) as draft:
        for name in _needed(bundle, target, resolver.registry):
            shutil.copyfile(bundle.path / name, draft.folder / name)
            draft.kinds[name] = manifest.files[name]
        draft.manifest = replace(
            manifest,
            steps=tuple(replace(step, plan={}, graphs={}, tensors={}, decisions=()) for step in manifest.steps),
            measurements=(),
            layers={},
            rejected=(),
            provenance={**manifest.provenance, "packed_from": sha256(bundle.path / MANIFEST)},
        )
    return read_bundle(out)


def _needed(bundle: Bundle, target: str, registry: Registry) -> Iterable[str]:
    yield from (file.name for path in bundle.graphs(target).values() for file in (path, *weight_files(path)))
    sources = bundle.source_files()
    needed = needed_files(bundle.manifest.processor, registry)
    yield from dict.fromkeys(sources[name].name for name in needed if name in sources)
