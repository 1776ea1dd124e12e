from __future__ import annotations

from dataclasses import replace

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.job import prepare
from pocketzoo.zoo.catalog.specs import TextSpec


def test_a_graph_is_calibrated_on_one_text_at_a_time(fitted):
    """A batch of texts is filled up to its longest; a device gives them one by one."""
    job = prepare(fitted.path, data="digits", steps=[Int8Config()])
    assert job.graph_samples is job.samples
    reads = TextSpec(vocabulary=9, pad=0, max_length=8)
    of_texts = replace(job, source=replace(job.source, manifest=replace(job.source.manifest, input=reads)))
    assert of_texts.graph_samples.batches.size == 1
    assert of_texts.graph_samples.batches.split is job.samples.batches.split
