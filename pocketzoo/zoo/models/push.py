"""Push a bundle, or its head only, to a Hub repository."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import BundleError, LicenseError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.tensor_files import read_tensors
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, seal
from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.bundles.repository_loader import HEAD
from pocketzoo.zoo.hub.reference import HubRef

UNCLEAR = {"", "unknown", "other", "none"}


@survives_exit
def push(
    bundle: str | Path,
    repo_id: str,
    *,
    head_only: bool = False,
    private: bool = False,
    license: str = "",
    progress: Progress = SILENT,
) -> str:
    """Upload a bundle to ``org/name``; returns the pinned reference to it.

    Weights, graphs, manifest and model card are uploaded. Engines are not, because an engine is a program and nobody
    should load one from elsewhere. With ``head_only`` only the head's weights are uploaded: whoever pulls them gets the
    backbone from where it is pinned.

    Raises:
        BundleError: it is not a bundle, or its head belongs to a backbone that compression changed.
        LicenseError: the backbone's license is not known, and none is given.
        HubError: the Hub refuses; without a token it always does.
    """
    opened = read_bundle(bundle)
    manifest = replace(opened.manifest, license=license or opened.manifest.license)
    if manifest.license.lower() in UNCLEAR:
        raise LicenseError(
            f"the license of {manifest.model.backbone} is not known", "read it at its source, then give --license ID"
        )
    if head_only and manifest.steps:
        raise BundleError(
            f"{manifest.name} was compressed, so its head only fits its own backbone",
            "push the whole model, without --head-only",
        )
    from pocketzoo.zoo.hub.repositories import check_upload, upload

    check_upload(repo_id)
    with scratch_folder() as name:
        folder = name
        (_head if head_only else _whole)(opened, manifest, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        progress.say(f"uploading {len(list(folder.iterdir()))} files, {size / 1e6:,.1f} MB, to {repo_id}")
        commit = upload(repo_id, folder, f"{manifest.name}, by pocketzoo {manifest.pocketzoo}", private=private)
    return str(HubRef(repo_id, commit, "head" if head_only else ""))


def _whole(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    built = bundle.built()  # a cache, and code where it is an engine
    for name in manifest.files:
        if name not in built and manifest.files[name].of not in built:
            shutil.copyfile(bundle.path / name, folder / name)
    seal(folder, manifest, manifest.files)


def _head(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    from safetensors.torch import save_file

    state = read_tensors(bundle.file("model.safetensors"))
    save_file({k: v for k, v in state.items() if k.startswith("head.")}, folder / HEAD)
    seal(folder, replace(manifest, layers={}, measurements=()), manifest.files)
