"""Join two encoders of one space, such as CLIP's of images and of texts, as one bundle of the driver ``dual``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import BundleError
from pocketzoo.core.files import sha256
from pocketzoo.core.names import RULE, as_file_name, is_name
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.artifacts.dual import SIMILARITY
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, read_bundle, source_file_name, writing
from pocketzoo.zoo.bundles.bundle_signature import bundle_signature
from pocketzoo.zoo.bundles.manifest import DUAL, GRAPH_ONLY, MANIFEST, MODEL, SINGLE, Manifest, ModelRef
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.processor_configs import MappingSpec
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import describe_config
from pocketzoo.zoo.graphs.files.weight_files import copy_graph
from pocketzoo.zoo.models.model_costs import macs_of
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver


@survives_exit
def pair_encoders(
    models: Mapping[str, str | Path],
    out: str | Path,
    *,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Write the graphs of two models as a bundle at ``out`` that embeds samples of both and compares them.

    ``models``: what each encoder is to be called -> a bundle, a registered model or an ONNX file, whose first output is
    its embedding (B, channels). A sample of the pair is a mapping of these names to what each one reads. The bundle has
    graphs and no module, as an ONNX file has.

    Raises:
        BundleError: there are not two, their inputs have one name or their files differ under one, or one is made of
            several graphs; or ``out`` is not to be replaced.
        UnknownNameError: no such model.
    """
    check_place(Path(out), force=force)
    if len(models) != 2:
        raise BundleError(f"a pair is of two encoders, and there are {len(models)}", "give image=MODEL text=MODEL")
    for name in models:
        if not is_name(name) or name in (MODEL, SIMILARITY):
            taken = f"{MODEL!r} and {SIMILARITY!r} are taken"
            raise BundleError(f"an encoder cannot be called {name!r}", taken if is_name(name) else RULE)
    resolver = Resolver.of(registry)
    bundles = {name: open_model(model, registry=resolver, progress=progress) for name, model in models.items()}
    inputs: dict[str, str] = {}
    for name, bundle in bundles.items():
        if bundle.manifest.driver != SINGLE:
            raise BundleError(f"{bundle.manifest.name} runs several graphs", "give an encoder of one graph")
        for tensor in bundle_signature(bundle).inputs:
            if tensor.name in inputs:
                raise BundleError(
                    f"{inputs[tensor.name]!r} and {name!r} both have an input {tensor.name!r}",
                    "rename it in one of the graphs",
                )
            inputs[tensor.name] = name
    first = next(iter(bundles.values())).manifest
    with writing(Path(out), force=force, progress=progress) as draft:
        for name, bundle in bundles.items():
            copy_graph(
                bundle.graph(""), draft.mark(graph_name(graph=name), precision=bundle.float_precision, graph=name)
            )
            for path, file in bundle.source_files().items():
                place = draft.folder / source_file_name(path)
                if place.exists() and sha256(place) != sha256(file):
                    raise BundleError(f"both encoders have a file {path}, and they differ", "give other encoders")
                shutil.copyfile(file, place)
        configs = {name: bundle.manifest.processor for name, bundle in bundles.items()}
        draft.manifest = Manifest(
            name=Path(out).name,
            model=ModelRef(backbone=f"{GRAPH_ONLY}{'+'.join(bundles)}", head="", outputs=first.model.outputs),
            processor=describe_config(MappingSpec(fields=configs), resolver.registry),
            labels=(),
            license=_license(bundles),
            parameters=sum(bundle.manifest.parameters for bundle in bundles.values()),
            macs=sum(map(macs_of, bundles.values())),
            counted_at={name: dims for each in bundles.values() for name, dims in each.manifest.counted_at.items()},
            driver=DUAL,
            provenance={
                "encoders": {
                    name: {"name": bundle.manifest.name, "manifest": sha256(bundle.path / MANIFEST)}
                    for name, bundle in bundles.items()
                }
            },
            layers={
                "float": tuple(
                    replace(row, layer=f"{name}:{row.layer}")
                    for name, bundle in bundles.items()
                    for row in bundle.manifest.layers.get("float", ())
                )
            },
        )
    return read_bundle(out)


def named_encoders(models: Iterable[str]) -> dict[str, str]:
    """``NAME=MODEL`` of each, as ``pair_encoders`` wants them; without ``NAME`` it is called as its file or folder is.

    Raises:
        BundleError: two are called the same.
    """
    encoders: dict[str, str] = {}
    for model in models:
        name, given, reference = model.partition("=")
        if not given or Path(model).exists() or not is_name(name):
            reference, last = model, Path(model.removeprefix("file:")).stem
            name = as_file_name(last.partition("@")[0] if model.startswith("hf:") else last)
        if name in encoders:
            raise BundleError(f"both encoders are called {name!r}", "give them names: image=MODEL text=MODEL")
        encoders[name] = reference
    return encoders


def _license(bundles: Mapping[str, Bundle]) -> str:
    """Of both, where they are not the same."""
    return " AND ".join(dict.fromkeys(bundle.manifest.license for bundle in bundles.values()))
