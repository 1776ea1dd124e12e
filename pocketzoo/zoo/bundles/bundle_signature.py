"""The signature of a bundle: as its manifest has it, or of its graph."""

from __future__ import annotations

from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.signature import ModelSignature


def bundle_signature(bundle: Bundle) -> ModelSignature:
    """What a model reads and outputs, module and graphs alike; of a bundle of before, what its graph says."""
    if bundle.manifest.signature is not None:
        return bundle.manifest.signature
    from pocketzoo.zoo.graphs.signature import signature_of  # a device may lack onnx

    return signature_of(bundle.graph(""))
