"""The bill of materials of a bundle: origin of weights, data, steps, packages, metrics and files, with digests."""

from __future__ import annotations

import platform
from typing import Any

from pocketzoo.core.files import sha256
from pocketzoo.core.optional import version_of_first
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.bundles.bundle import SOURCE_PREFIX, Bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.bundles.step_record import StepRecord

# What decides the numbers in a bundle; of those that are not installed nothing is said.
PACKAGES = (
    "pocketzoo", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "safetensors", "tokenizers", "transformers",
    "timm", "peft", "kornia", "pillow",
)  # fmt: skip


def packages() -> dict[str, str]:
    """The versions that are at work in this process, Python's first."""
    found = {"python": platform.python_version()} | {name: version_of_first(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def bill_of_materials(bundle: Bundle) -> dict[str, Any]:
    """The same of a bundle that is open. What nobody recorded is missing."""
    manifest = bundle.manifest
    noted = dict(manifest.provenance)
    identity = {
        "name": manifest.name,
        "license": manifest.license,
        "created": manifest.created,
        "pocketzoo": manifest.pocketzoo,
        "manifest": sha256(bundle.path / MANIFEST),
        "parameters": manifest.parameters,
        "packed_from": noted.get("packed_from"),
        "compressed_from": noted.get("compressed_from"),
    }
    return {
        key: value
        for key, value in {
            "bundle": _said(identity),
            "origin": _origin(bundle),
            "data": _said({k: v for k, v in dict(noted.get("data") or {}).items() if k != "findings"}),
            "calibration": _said(dict(noted.get("calibration") or {})),
            "steps": [_step(step) for step in manifest.steps],
            "rejected": [{"compressor": no.compressor, "why": no.why} for no in manifest.rejected],
            "packages": noted.get("packages") or _said({"torch": noted.get("torch")}),
            "metrics": to_plain(manifest.metrics),
            "files": {name: {"sha256": e.sha256, "bytes": e.size} for name, e in manifest.files.items()},
        }.items()
        if value
    }


def _step(step: StepRecord) -> dict[str, Any]:
    """Who took a step, of which package, and with which settings."""
    return {**_said({"compressor": step.compressor, "provider": step.provider}), **to_plain(step.config)}


def _origin(bundle: Bundle) -> dict[str, Any]:
    """Where the backbone is from; of a repository of the Hub its commit, and its files as zoo.lock would pin them."""
    manifest, noted = bundle.manifest, bundle.manifest.provenance
    weights = str(noted.get("weights", ""))
    repository, _, rest = weights.removeprefix("hf://").partition("@") if weights.startswith("hf://") else ("", "", "")
    commit, _, path = rest.partition("/")
    lock = {path or weights: str(noted.get("sha256", "")), **dict(noted.get("shards") or {})}
    lock |= {
        name.removeprefix(SOURCE_PREFIX).replace("+", "/"): entry.sha256
        for name, entry in manifest.files.items()
        if name.startswith(SOURCE_PREFIX)
    }
    return _said(
        {
            "backbone": manifest.model.backbone,
            "head": manifest.model.head,
            "plugin": noted.get("plugin"),
            "source": noted.get("source"),
            "repository": f"hf://{repository}" if repository else "",
            "commit": commit,
            "lock": {name: digest for name, digest in lock.items() if digest},
        }
    )


def _said(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", {}, [])}
