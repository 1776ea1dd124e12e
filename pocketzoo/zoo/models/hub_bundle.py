"""Open Hub repositories that are bundles, or heads of bundles, as ``push`` uploads them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pocketzoo.core.files import replacing_folder
from pocketzoo.core.keys import cache_key
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, writing
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.prepared import prepared
from pocketzoo.zoo.bundles.repository_loader import HEAD, read_repository_manifest
from pocketzoo.zoo.catalog.head_task import AnswerFacts
from pocketzoo.zoo.catalog.specs import BackboneSpec, Repository
from pocketzoo.zoo.models.resolver import Resolver


@keywords_renamed(registry="resolver")
def unpack(repository: Repository, resolver: Resolver, progress: Progress = SILENT) -> Bundle:
    """A fetched repository as a bundle below ``home()``; a head alone is joined to its backbone, fetched by its pin.

    Raises:
        BundleError: its manifest is damaged, or does not list the files that came.
        HubError: the Hub does not give the backbone.
    """
    backbone = None
    if HEAD in repository.files:
        backbone = resolver.entry("backbone", read_repository_manifest(repository).model.backbone)
    key = cache_key(
        "repository",
        name=repository.name,
        files=repository.digests,
        backbone=None if backbone is None else backbone.spec,
        sources=[] if backbone is None else plugin_sources(resolver.registry, backbone),
    )
    path, bundle = prepared(repository.repo_id.replace("/", "--"), key)
    if bundle is not None:
        return bundle
    if HEAD in repository.files:
        return _join(repository, resolver, path, progress)
    with replacing_folder(path) as folder:
        for name, file in repository.files.items():
            shutil.copyfile(file, folder / name)
    return read_bundle(path)


def _join(repository: Repository, resolver: Resolver, path: Path, progress: Progress) -> Bundle:
    from pocketzoo.zoo.hub.weights import load_state, read_safetensors
    from pocketzoo.zoo.models.build import build, load_pretrained
    from pocketzoo.zoo.models.provenance import provenance
    from pocketzoo.zoo.models.save import save_model

    manifest = read_repository_manifest(repository)
    ref = manifest.model
    progress.say(f"combining the head of {repository.repo_id} to {ref.backbone.split('@')[0]} (once)")
    entry = resolver.entry("backbone", ref.backbone)
    backbone: BackboneSpec = entry.spec
    model = build(ref, resolver)
    load_pretrained(model, ref, resolver)
    state = read_safetensors(repository.files[HEAD], HEAD)
    load_state(model.head, {key.removeprefix("head."): value for key, value in state.items()}, repository.repo_id)
    with writing(path) as draft:
        save_model(
            draft,
            model,
            ref,
            name=manifest.name,
            labels=manifest.labels,
            answers=AnswerFacts(
                task=manifest.task,
                tag=manifest.tag,
                provider=manifest.task_provider,
                decoder=manifest.decoder,
                returns=manifest.returns,
            ),
            license=manifest.license,
            input_spec=manifest.processor,
            provenance={**manifest.provenance, **provenance(entry), "head": repository.name},
            metrics=manifest.metrics,
            files=backbone.files,
            registry=resolver.registry,
        )
    return read_bundle(path)
