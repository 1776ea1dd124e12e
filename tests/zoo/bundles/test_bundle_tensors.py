"""What bundles read and output: of one graph, of several, with a state, and what was measured of each output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.bundle_tensors import bundle_tensors
from pocketzoo.zoo.bundles.measured_on import MeasuredOn, this_machine
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec

FROZEN = Path(__file__).parents[2] / "frozen" / "format2"


def of(name):
    return read_bundle(FROZEN / name / "bundle")


def test_a_model_of_one_graph_with_what_was_measured_of_its_output():
    bundle = of("compressed")
    image, logits = bundle_tensors(bundle)
    assert (image.graph, image.role, image.name, image.axes, image.batch) == (
        "",
        "input",
        "image",
        ("batch", 1, 8, 8),
        0,
    )
    assert (image.dtype, image.free, image.state, image.sqnr) == ("float32", (), "", ())
    rows = bundle.manifest.measurements
    assert {each.target for each in logits.sqnr} == {"cpu", "tensorrt-rtx"}
    for each in logits.sqnr:
        _, index, _, name = each.key.split(".")
        row = rows[int(index)]
        assert (row.outputs[name], row.target, row.bundle) == (each.value, each.target, bundle.manifest.name)


@pytest.mark.parametrize(("name", "graphs"), [("gpt2", ["", "decoder"]), ("t5", ["", "decoder", "encoder"])])
def test_graphs_of_a_model_that_generates_come_after_the_model(name, graphs):
    tensors = bundle_tensors(of(name))
    assert list(dict.fromkeys(tensor.graph for tensor in tensors)) == [
        "",
        *[g for g in dict.fromkeys(t.graph for t in tensors) if g],
    ]
    assert sorted({tensor.graph for tensor in tensors}) == graphs
    assert all({t.role for t in tensors if t.graph == graph} == {"input", "output"} for graph in graphs)
    (ids,) = [t for t in tensors if (t.graph, t.role, t.name) == ("decoder", "input", "input_ids")]
    assert "batch" not in ids.free


def test_a_state_is_said_on_both_sides():
    bundle = of("image-classifier")
    signature = ModelSignature(
        inputs=(TensorSpec(name="x", shape=("t", "n", 3), batch=1), TensorSpec(name="h", shape=("n", 4))),
        outputs=(TensorSpec(name="y", shape=(), batch=None), TensorSpec(name="h_next", shape=("n", 4), feeds="h")),
    )
    tensors = bundle_tensors(replace(bundle, manifest=replace(bundle.manifest, signature=signature)))
    assert [(t.name, t.batch, t.free, t.state) for t in tensors] == [
        ("x", 1, ("t",), ""), ("h", 0, (), "h_next"), ("y", None, (), ""), ("h_next", 0, (), "h"),
    ]  # fmt: skip


def test_an_output_that_is_equal_and_rows_of_others():
    bundle = of("compressed")
    one = replace(bundle.manifest.measurements[0], bundle=bundle.manifest.name, precision="int8", measured=None)
    before, after = (MeasuredOn(machine=this_machine(), date=date) for date in ("2026-01-01", "2026-02-01"))
    rows = (
        replace(one, target="cpu", outputs={"logits": 9.0}, measured=before),  # the reference of its run
        replace(one, target="cpu", outputs={"logits": 8.0}, measured=before),
        replace(one, target="dla", outputs={"logits": 7.0}, measured=before),
        replace(one, target="cpu", outputs={"logits": 6.0}, measured=after),
        replace(one, target="cpu", outputs={"logits": None}, measured=after),
        replace(one, target="cpu", outputs={"logits": 3.0}, measured=after),  # on another runtime
        replace(one, target="jetson", bundle="another", outputs={"logits": 1.0}, measured=after),
        replace(one, target="rtx", outputs={}, measured=after),
    )
    _, logits = bundle_tensors(replace(bundle, manifest=replace(bundle.manifest, measurements=rows)))
    assert [(each.target, each.value, each.key) for each in logits.sqnr] == [
        ("cpu", None, "measurements.4.outputs.logits"), ("dla", 7.0, "measurements.2.outputs.logits"),
    ]  # fmt: skip
