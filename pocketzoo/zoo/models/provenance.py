"""The origin of a backbone's weights, for the manifest."""

from __future__ import annotations

from importlib.metadata import version

from pocketzoo.zoo.catalog.registry import Entry
from pocketzoo.zoo.catalog.specs import BackboneSpec, HubFile


def provenance(entry: Entry) -> dict[str, object]:
    """Where the weights of a backbone are from."""
    spec: BackboneSpec = entry.spec
    file = spec.weights.file if spec.weights else None
    shards = spec.weights.shards if spec.weights else ()
    where = ""
    if isinstance(file, HubFile):
        where = f"hf://{file.repo_id}@{file.revision}/{file.filename}"
    elif file is not None:
        where = f"package:{file.package}/{file.path}"
    return {
        "plugin": entry.plugin,
        **({"loader": entry.plugin} if spec.name.startswith("hf:") else {}),
        "source": spec.source,
        "weights": where,
        "sha256": file.sha256 if file else "",
        **({"shards": {s.filename: s.sha256 for s in shards}} if shards else {}),
        "pretraining": dict(spec.training),
        "torch": version("torch"),
    }
