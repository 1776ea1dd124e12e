"""Artifacts measured where they end: text that is written, embeddings of one space, sequences with a state."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from artifactgraphs import STATES, WIDTH, encoders, listener, random

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.measure.measure_graphs import Candidate, Measurement, measure
from pocketzoo.workflows.bench import bench
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.catalog.specs import InputSpec


def test_a_model_writes_as_itself_and_graphs_that_are_the_same_count_once(language_bundles, tmp_path):
    first = language_bundles["gpt2"]
    copy = shutil.copytree(first, tmp_path / "copy")
    (row,) = bench([first, copy], seconds=0.0, batch_sizes=[1], memory=False)
    (end,) = row.ends
    assert (end.end, end.unit, end.agreement, end.same) == ("generation", "token", 1.0, 1.0)
    assert end.steps > 0
    assert end.milliseconds > 0
    assert end.files == ("decoder.onnx",)
    assert end.bytes == (first / "decoder.onnx").stat().st_size
    assert from_plain(Measurement, to_plain(row)) == row, "as a bundle keeps it"


def test_what_has_one_end_has_no_others(fitted):
    (row,) = bench([fitted.path], seconds=0.0, batch_sizes=[1], memory=False)
    assert row.ends == ()


class Given:
    """Batches that are ready."""

    spec = InputSpec(shape=("batch", 1), mean=(), std=(), resize=0, layout="N")
    axes: ClassVar = {}  # samples are along the first axis of each input

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return ((inputs, None) for inputs in self.batches)

    def __len__(self):
        return len(self.batches)


def spoiled(path, place):
    """A graph whose weights are a little off."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1.1), tensor.name))
    onnx.save(model, place)
    return place


def row(artifact):
    graph = next(iter(artifact.graphs.values()))
    return Candidate(bundle="b", target="", graph=graph, artifact=artifact, parameters=1, macs=1)


@pytest.mark.parametrize("memory", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_state_is_measured_over_a_sequence_of_calls(tmp_path, memory):
    """An error adds up in it: the outputs of later calls are further off, and so is the state in the end."""
    listener(tmp_path / "float.onnx")
    spoiled(tmp_path / "float.onnx", tmp_path / "off.onnx")
    whole = Artifact(graphs={"model": tmp_path / "float.onnx"}, driver="stateful", states=STATES)
    off = replace(whole, graphs={"model": tmp_path / "off.onnx"})
    one, many = ({"piece": random(4, calls, WIDTH)} for calls in (1, 12))
    short = measure([row(whole), row(off)], Given(one), seconds=0.0, batch_sizes=[1])
    rows = measure([row(whole), row(off)], Given(many), seconds=0.0, batch_sizes=[1], memory=memory)
    assert rows[0].sqnr is None
    assert list(rows[1].outputs) == ["score", "stateN"]
    assert rows[1].sqnr < short[1].sqnr
    assert rows[1].bytes == (tmp_path / "off.onnx").stat().st_size
    assert rows[0].latency["1"].p50 > 0
    if memory:
        assert all(each.memory.model > 0 for each in rows)


def test_both_encoders_are_measured_and_what_they_have_in_common(tmp_path):
    encoders(tmp_path)
    spoiled(tmp_path / "words.onnx", tmp_path / "off.onnx")
    whole = Artifact(graphs={name: tmp_path / f"{name}.onnx" for name in ("image", "words")}, driver="dual")
    off = replace(whole, graphs={**whole.graphs, "words": tmp_path / "off.onnx"})
    batch = {"pixels": random(4, 1, 8, 8), "words": random(4, 20)}
    rows = measure([row(whole), row(off)], Given(batch), seconds=0.0, batch_sizes=[1, 2])
    assert rows[1].outputs["image"] is None, "this one is as it was"
    assert rows[1].outputs["words"] is not None
    assert rows[1].outputs["similarity"] is not None
    assert rows[1].sqnr == min(value for value in rows[1].outputs.values() if value is not None)
    assert rows[0].bytes == sum((tmp_path / f"{name}.onnx").stat().st_size for name in ("image", "words"))
    assert set(rows[1].latency) == {"1", "2"}
