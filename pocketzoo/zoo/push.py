"""A bundle, or its head alone, to a repository of the Hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from pocketzoo.errors import BundleError, LicenseError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import MANIFEST, Bundle, FileEntry, Manifest, read_bundle
from pocketzoo.zoo.card import model_card
from pocketzoo.zoo.files import sha256
from pocketzoo.zoo.reference import HubRef
from pocketzoo.zoo.remote_bundle import HEAD
from pocketzoo.zoo.typed import to_plain

UNCLEAR = {"", "unknown", "other", "none"}


def push(
    bundle: str | Path,
    repo_id: str,
    *,
    head_only: bool = False,
    private: bool = False,
    license: str = "",
    progress: Progress = SILENT,
) -> str:
    """Upload a bundle to ``org/name``; returns the pinned reference to what was uploaded.

    Weights, graphs, manifest and model card go up; engines stay, because an engine is a program and nobody should load
    one from elsewhere. With ``head_only`` the head's weights go up alone: whoever pulls them gets the backbone from
    where it is pinned.

    Raises:
        BundleError: it is no bundle, or its head belongs to a backbone that compression changed.
        LicenseError: the backbone's licence is not known, and none is given.
        HubError: the Hub refuses; without a token it always does.
    """
    opened = read_bundle(bundle)
    manifest = replace(opened.manifest, license=license or opened.manifest.license)
    if manifest.license.lower() in UNCLEAR:
        raise LicenseError(
            f"the licence of {manifest.model.backbone} is not known", "read it at its source, then give --license ID"
        )
    if head_only and any(step.kind for step in manifest.steps):
        raise BundleError(
            f"{manifest.name} was compressed, so its head fits no other backbone", "push it whole, without --head-only"
        )
    from pocketzoo.zoo.hub import upload

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (_head if head_only else _whole)(opened, manifest, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        progress.say(f"uploading {len(list(folder.iterdir()))} files, {size / 1e6:,.1f} MB, to {repo_id}")
        commit = upload(repo_id, folder, f"{manifest.name}, by pocketzoo {manifest.pocketzoo}", private=private)
    return str(HubRef(repo_id, commit, "head" if head_only else ""))


def _whole(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    for name in manifest.files:
        if not name.endswith(".engine"):
            shutil.copyfile(bundle.path / name, folder / name)
    _seal(manifest, folder)


def _head(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(bundle.file("model.safetensors"))
    save_file({k: v for k, v in state.items() if k.startswith("head.")}, folder / HEAD)
    _seal(replace(manifest, layers={}, measurements=()), folder)


def _seal(manifest: Manifest, folder: Path) -> None:
    """Card and manifest, which lists what is there."""
    (folder / "README.md").write_text(model_card(manifest), "utf8")
    files = {
        file.name: replace(
            manifest.files.get(file.name, FileEntry(sha256="", size=0)), sha256=sha256(file), size=file.stat().st_size
        )
        for file in sorted(folder.iterdir())
    }
    text = json.dumps(to_plain(replace(manifest, files=files)), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", "utf8")
