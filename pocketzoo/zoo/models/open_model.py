"""Open a model wherever a bundle is read: a bundle's path, a registered name, or a Hub reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import RecipeError, UnknownNameError, nearest
from pocketzoo.core.keys import cache_key
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, updating, writing
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.prepared import prepared
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.head_task import answer_facts
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, HeadSpec
from pocketzoo.zoo.data.processors.open_processor import processor_entries
from pocketzoo.zoo.models.heads import channels
from pocketzoo.zoo.models.open_remote import open_remote
from pocketzoo.zoo.models.provenance import provenance
from pocketzoo.zoo.models.resolver import Resolver, is_path

if TYPE_CHECKING:
    from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata


@survives_exit
def open_model(
    reference: str | Path,
    *,
    metadata: OnnxMetadata | None = None,
    out: str | Path | None = None,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Open a bundle or an ONNX file by path, or a pretrained model by its registered name.

    A pretrained model is written as a bundle below ``home()`` on first use, and read from there afterwards; so is an
    ONNX file. ``metadata`` is what such a file does not say: see ``open_graph``. With ``out`` the bundle is written
    there, too; with ``force`` in place of one that is there.

    Raises:
        BundleError: ``out`` is something else, or a bundle that is not to be replaced.
        RecipeError: metadata of what is no ONNX file.
        BundleError: the path is not a bundle, or is damaged.
        UnsupportedModelError: an ONNX file that pocketzoo does not work on.
        UnknownNameError: neither a path nor a registered backbone; the hint is the nearest name.
    """
    if out is not None:
        check_place(Path(out), force=force)
        bundle = open_model(reference, metadata=metadata, registry=registry, progress=progress)
        with updating(bundle, Path(out), force=force, progress=progress):
            pass
        return read_bundle(Path(out))
    path = Path(str(reference).removeprefix("file:"))
    resolver = Resolver.of(registry)
    name = str(reference)
    if metadata is not None and not (path.suffix == ".onnx" and path.is_file()):
        raise RecipeError(f"{name} is not an ONNX file, and knows its metadata", "leave the metadata out")
    if not name.startswith("hf:"):
        backbones = resolver.registry.entries("backbone")
        if path.suffix == ".onnx" and path.is_file():
            from pocketzoo.zoo.models.import_onnx import open_graph

            return open_graph(path, metadata, progress=progress)
        if is_path(name):
            return read_bundle(path)
        if name not in backbones:
            models = [known for known, entry in backbones.items() if entry.spec.head]
            hint = resolver.registry.hint(nearest(name, models), "backbone")
            raise UnknownNameError(f"{name!r} is neither a bundle nor a registered model", hint)
        return _materialize(backbones[name], resolver, progress)
    opened = open_remote(name, resolver, progress)
    return opened if isinstance(opened, Bundle) else _materialize(opened, resolver, progress)


def _materialize(entry: Entry, resolver: Resolver, progress: Progress) -> Bundle:
    spec: BackboneSpec = entry.spec
    if not spec.head or spec.weights is None:
        raise UnknownNameError(
            f"{spec.name} has no pretrained head", f"fit one: pocketzoo fit {spec.name} --head linear --data D"
        )
    head_entry = resolver.entry("head", spec.head)
    head: HeadSpec = head_entry.spec
    labels = head.labels() if head.labels else ()
    answers = answer_facts(head, spec.input, resolver.registry)
    short = spec.name.removeprefix("hf://").split("@")[0].replace("/", "--")
    reads = processor_entries(spec.input, resolver.registry)
    sources = plugin_sources(resolver.registry, entry, head_entry, *reads)
    key = cache_key("prepared model", backbone=spec, head=head, labels=labels, answers=answers, sources=sources)
    path, bundle = prepared(short, key)
    if bundle is not None:
        return bundle
    progress.say(f"preparing {spec.name.split('@')[0]} (once)")
    from pocketzoo.zoo.models.build import build, load_pretrained
    from pocketzoo.zoo.models.save import save_model

    ref = ModelRef(backbone=spec.name, head=head.name, outputs=2)
    ref = replace(ref, outputs=len(labels) or head.outputs or channels(resolver.parts(ref).features))
    model = build(ref, resolver)
    load_pretrained(model, ref, resolver)
    with writing(path) as draft:
        save_model(
            draft,
            model,
            ref,
            name=short.split("--")[-1],
            labels=labels,
            answers=answers,
            license=spec.license,
            input_spec=spec.input,
            provenance=provenance(entry),
            files=spec.files,
            registry=resolver.registry,
        )
    return read_bundle(path)
