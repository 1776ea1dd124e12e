"""What a task may have to know of a bundle's model."""

from __future__ import annotations

from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.described import spec_of
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import GenerationSpec
from pocketzoo.zoo.catalog.task import ModelFacts


def model_facts(
    bundle: Bundle, processor: Processor, registry: Registry, generation: GenerationSpec | None = None
) -> ModelFacts:
    """Of a bundle's model and its processor; ``generation`` where the bundle does not say how it writes."""
    manifest = bundle.manifest
    return ModelFacts(
        name=manifest.name,
        labels=manifest.labels,
        input=processor.text or spec_of(manifest.processor, "processor", registry)[1],
        files=bundle.source_files(),
        generation=manifest.generation or generation,
        window=dict(manifest.provenance.get("training", {})).get("window"),
    )
