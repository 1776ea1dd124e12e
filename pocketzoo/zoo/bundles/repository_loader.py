"""Loader for Hub repositories that are bundles, or heads of bundles, as ``push`` uploads them."""

from __future__ import annotations

from pocketzoo.core.errors import BundleError, RecipeError, UnsupportedModelError, message_of
from pocketzoo.core.reading.documents import read_json
from pocketzoo.zoo.bundles.manifest import MANIFEST, Manifest, read_manifest
from pocketzoo.zoo.catalog.specs import BackboneSpec, HeadSpec, LoaderSpec, Repository
from pocketzoo.zoo.hub.reference import is_inside

HEAD = "head.safetensors"  # what a repository has that holds a head alone
SUFFIXES = (
    ".json",
    ".md",
    ".onnx",
    ".safetensors",
    ".txt",
)  # an engine is a program: one from elsewhere is never taken


def backbone_of(repository: Repository) -> str:
    """What a fetched head has to be joined to, if that is on the Hub as well; empty for everything else.

    Raises:
        BundleError: its manifest is damaged.
    """
    if HEAD not in repository.files:
        return ""
    name = read_repository_manifest(repository).model.backbone
    return name if name.startswith("hf:") else ""


def read_repository_manifest(repository: Repository) -> Manifest:
    """The manifest of a fetched bundle.

    Raises:
        BundleError: it is damaged.
    """
    try:
        return read_manifest(read_json(repository.files[MANIFEST]))
    except (ValueError, RecipeError) as error:
        raise BundleError(
            f"{MANIFEST} of {repository.repo_id} is damaged: {message_of(error)}", "tell its author"
        ) from error


def _refuses(repository: Repository) -> str:
    return "" if MANIFEST in repository.sizes else "it is not a bundle"


def _wants(repository: Repository) -> tuple[str, ...]:
    names = (path for path in repository.sizes if "/" not in path and is_inside(path))
    return tuple(name for name in names if name.endswith(SUFFIXES))


def _backbone(repository: Repository) -> BackboneSpec:
    raise UnsupportedModelError(
        f"{repository.repo_id} is a whole model, not a backbone", "use it with compress, export, bench or predict"
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
