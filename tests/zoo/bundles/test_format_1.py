"""Manifests of format 1: read in the words of format 2, and never rewritten in place."""

from __future__ import annotations

import json

import pytest

from pocketzoo.core.errors import BundleError
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.format_1 import converted
from pocketzoo.zoo.bundles.manifest import FORMAT, MANIFEST, read_manifest
from pocketzoo.zoo.bundles.step_record import Change, GenerationReport, Rejection, StepReport

OLD = {
    "format": 1,
    "name": "old",
    "model": {
        "backbone": "mlp",
        "head": "values",
        "outputs": 1,
        "backbone_options": {"input": [4], "standardise": True},
    },
    "input": {"shape": ["batch", 4], "mean": [], "std": [], "resize": 0},
    "labels": [],
    "license": "MIT",
    "parameters": 7,
    "macs": 6,
    "provenance": {"training": {"optimiser": "sgd", "epochs": 3}, "loader": "x"},
    "steps": [
        {"kind": "low-rank", "config": {"rank_share": 0.1, "energy": None}, "plan": {"left": {}}},
        {
            "kind": "heal",
            "config": {"epochs": 2, "quantised": True},
            "plan": {"epochs": 2, "quantised": True},
            "report": {"turned_down": [{"kind": "heal", "config": {"quantised": False}, "why": "too much"}]},
        },
        {
            "kind": "int8",
            "config": {},
            "plan": {},
            "parts": {"decoder": {"layers": []}},
            "report": {
                "writing": {
                    "cpu": {
                        "turned_down": "slower",
                        "bytes_before": 4,
                        "bytes_after": 2,
                        "ms_a_token_before": 1.0,
                        "ms_a_token_after": 2.0,
                    }
                }
            },
        },
    ],
    "turned_down": [{"kind": "heal", "config": {"quantised": True}, "why": "it is slower", "report": {}}],
}


def test_every_name_of_format_1_has_its_new_one():
    manifest = read_manifest(json.loads(json.dumps(OLD)))
    assert manifest.format == FORMAT == 2
    assert manifest.model.backbone_options == {"input": [4], "standardize": True}
    assert manifest.provenance == {"training": {"optimizer": "sgd", "epochs": 3}, "loader": "x"}
    low_rank, distill, int8 = manifest.steps
    assert low_rank.config == {"rank_fraction": 0.1, "energy": None}
    assert distill.compressor == "distill"
    assert distill.config == distill.plan == {"epochs": 2, "quantized": True}
    tried = Rejection(compressor="distill", config={"quantized": False}, why="too much")
    assert distill.report == StepReport(rejected=(tried,))
    generation = GenerationReport(
        bytes=Change(before=4, after=2), latency=Change(before=1.0, after=2.0), why="slower", cause="slower"
    )
    assert int8.report == StepReport(generation={"cpu": generation})
    assert int8.graphs == {"decoder": {"layers": []}}
    assert manifest.rejected == (Rejection(compressor="distill", config={"quantized": True}, why="it is slower"),)


@pytest.mark.parametrize(
    ("head", "options", "now"),
    [
        ("embedding", {"pool": "cls", "normalise": False}, {"pool": "cls", "normalize": False}),
        ("acme-embedding", {"normalise": False}, {"normalise": False}),  # a plugin's own option is its own
    ],
)
def test_options_of_a_head_that_ships_have_their_new_names(head, options, now):
    model = {**OLD["model"], "backbone": "acme-mlp", "head": head, "head_options": options}
    found = read_manifest({**OLD, "model": model}).model
    assert (found.head_options, found.backbone_options) == (now, OLD["model"]["backbone_options"])


def test_what_is_read_is_not_changed():
    before = json.dumps(OLD)
    converted(OLD)
    assert json.dumps(OLD) == before


def test_format_2_is_left_alone():
    new = {**OLD, "format": 2}
    assert converted(new) is new


@pytest.mark.parametrize(
    "damage",
    [{"steps": 3}, {"steps": [3]}, {"steps": [{"kind": ["heal"], "config": {}, "plan": {}}]}, {"turned_down": "x"},
     {"model": 3}, {"model": {"backbone_options": 3}}, {"provenance": {"training": 3}, "input": 1},
     {"steps": [{"kind": "a", "config": {}, "plan": {}, "report": {"turned_down": 3, "writing": 3}}], "name": 3}],
)  # fmt: skip
def test_damage_is_damage_in_format_1_as_well(damage, tmp_path, refused):
    (tmp_path / MANIFEST).write_text(json.dumps({**OLD, **damage}))
    with refused(BundleError, "is damaged"):
        read_bundle(tmp_path)


def test_an_old_bundle_is_opened_in_silence_and_its_file_stays(tmp_path):
    """In silence: warnings are errors here."""
    (tmp_path / MANIFEST).write_text(json.dumps(OLD))
    before = (tmp_path / MANIFEST).read_bytes()
    manifest = read_bundle(tmp_path).manifest
    assert manifest.rejected[0].compressor == "distill"
    assert (tmp_path / MANIFEST).read_bytes() == before
    with pytest.warns(RenamedWarning, match="'turned_down' was renamed to 'rejected'"):
        assert manifest.turned_down == manifest.rejected
