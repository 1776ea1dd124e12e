"""Repositories of the Hub that are bundles, or the heads of bundles: what ``push`` uploads."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from pocketzoo.errors import BundleError, RecipeError, UnsafeFileError, UnsupportedModelError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import MANIFEST, Bundle, Manifest, read_bundle, writing
from pocketzoo.zoo.files import home, replacing_folder
from pocketzoo.zoo.reference import is_inside
from pocketzoo.zoo.registry import Registry
from pocketzoo.zoo.specs import BackboneSpec, HeadSpec, LoaderSpec, Repository
from pocketzoo.zoo.typed import from_plain

HEAD = "head.safetensors"  # what a repository has that holds a head alone
SUFFIXES = (
    ".json",
    ".md",
    ".onnx",
    ".safetensors",
    ".txt",
)  # an engine is a program: one from elsewhere is never taken


def unpack(repository: Repository, registry: Registry, progress: Progress = SILENT) -> Bundle:
    """A fetched repository as a bundle below ``home()``; a head alone is joined to its backbone, fetched by its pin.

    Raises:
        BundleError: its manifest is damaged, or does not list the files that came.
        HubError: the Hub does not give the backbone.
    """
    path = home() / "models" / f"{repository.repo_id.replace('/', '--')}-{repository.commit[:12]}"
    with contextlib.suppress(BundleError, UnsafeFileError):
        return read_bundle(path)
    shutil.rmtree(path, ignore_errors=True)  # damaged: it is ours to make again
    if HEAD in repository.files:
        return _join(repository, registry, path, progress)
    with replacing_folder(path) as folder:
        for name, file in repository.files.items():
            shutil.copyfile(file, folder / name)
    return read_bundle(path)


def backbone_of(repository: Repository) -> str:
    """What a fetched head has to be joined to, if that is on the Hub as well; empty for everything else.

    Raises:
        BundleError: its manifest is damaged.
    """
    if HEAD not in repository.files:
        return ""
    name = _manifest(repository).model.backbone
    return name if name.startswith("hf:") else ""


def _manifest(repository: Repository) -> Manifest:
    try:
        return from_plain(Manifest, json.loads(repository.files[MANIFEST].read_bytes()))
    except (ValueError, RecursionError, RecipeError) as error:
        raise BundleError(f"{MANIFEST} of {repository.repo_id} is damaged: {error}", "tell its author") from error


def _join(repository: Repository, registry: Registry, path: Path, progress: Progress) -> Bundle:
    from pocketzoo.zoo.model import build, load_pretrained
    from pocketzoo.zoo.pretrained import provenance
    from pocketzoo.zoo.save import save_model
    from pocketzoo.zoo.weights import load_state, read_safetensors

    manifest = _manifest(repository)
    ref = manifest.model
    progress.say(f"joining the head of {repository.repo_id} to {ref.backbone.split('@')[0]} (once)")
    entry = registry.entry("backbone", ref.backbone)
    backbone: BackboneSpec = entry.spec
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    state = read_safetensors(repository.files[HEAD], HEAD)
    load_state(model.head, {key.removeprefix("head."): value for key, value in state.items()}, repository.repo_id)
    with writing(path) as draft:
        save_model(
            draft,
            model,
            ref,
            name=manifest.name,
            labels=manifest.labels,
            returns=manifest.gives,
            license=manifest.license,
            input_spec=manifest.input,
            provenance={**manifest.provenance, **provenance(entry), "head": repository.name},
            metrics=manifest.metrics,
            files=backbone.files,
        )
    return read_bundle(path)


def _refuses(repository: Repository) -> str:
    return "" if MANIFEST in repository.sizes else "it is no bundle"


def _wants(repository: Repository) -> tuple[str, ...]:
    names = (path for path in repository.sizes if "/" not in path and is_inside(path))
    return tuple(name for name in names if name.endswith(SUFFIXES))


def _backbone(repository: Repository) -> BackboneSpec:
    raise UnsupportedModelError(
        f"{repository.repo_id} is a whole model, no backbone", "give it to compress, export, bench or predict"
    )


def _head(repository: Repository) -> HeadSpec | None:
    return None


LOADER = LoaderSpec(
    name="pocketzoo",
    summary="bundles, as pocketzoo push uploads them",
    refuses=_refuses,
    wants=_wants,
    backbone=_backbone,
    head=_head,
)
