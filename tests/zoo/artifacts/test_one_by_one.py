from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pocketzoo.core.arrays import row_of
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends
from pocketzoo.zoo.artifacts.one_by_one import OneByOneRunner
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec


class Doubled:
    """Doubles what it reads, one sample in a run: ``x`` has an axis of length 1 for it, ``k`` has none."""

    signature = ModelSignature(
        inputs=(TensorSpec(name="x", shape=(1, 2)), TensorSpec(name="k", shape=(), dtype="int64", batch=None)),
        outputs=(TensorSpec(name="y", shape=(1, 2)), TensorSpec(name="z", shape=("m", 2), batch=None)),
    )

    def __init__(self) -> None:
        self.closed = False

    def infer(self, inputs, out=None):
        assert inputs["x"].shape == (1, 2)
        assert inputs["k"].shape == ()
        return {"y": 2 * inputs["x"], "z": np.repeat(inputs["x"], int(inputs["k"]), 0)}

    def close(self) -> None:
        self.closed = True


AXES = {"x": 0, "k": None, "y": 0, "z": None}


def test_samples_are_run_one_by_one_and_come_out_as_a_batch():
    runner = Doubled()
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    with OneByOneRunner(runner, AXES) as several:
        assert [t.shape for t in several.signature.inputs] == [("batch", 2), ("batch",)]
        assert [t.shape for t in several.signature.outputs] == [("batch", 2), ("batch", "m", 2)]
        out = several.infer({"x": x, "k": np.full(3, 4)})
        np.testing.assert_array_equal(out["y"], 2 * x)
        np.testing.assert_array_equal(out["z"], np.repeat(x[:, None], 4, 1))
        into = np.empty((3, 2), np.float32)
        assert several.infer({"x": x, "k": np.full(3, 4)}, {"y": into})["y"] is into
        np.testing.assert_array_equal(into, 2 * x)
    assert runner.closed


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": np.zeros((2, 2))}, "'k' is missing"),
        ({"x": np.zeros((2, 2)), "k": np.ones(3, int)}, "input 'k' is (3,)"),
    ],
    ids=["missing", "another number"],
)
def test_what_is_no_batch_is_named(inputs, says, refused):
    with refused(DataError, says):
        OneByOneRunner(Doubled(), AXES).infer(inputs)


def test_an_output_of_another_shape_for_each_sample_is_one_array_for_each():
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    out = OneByOneRunner(Doubled(), AXES).infer({"x": x, "k": np.array([1, 3])})
    assert out["z"].dtype == object
    assert out["z"].shape == (2,)
    for row, count in enumerate((1, 3)):
        np.testing.assert_array_equal(out["z"][row], np.repeat(x[row : row + 1], count, 0))
        np.testing.assert_array_equal(row_of(out["z"], row, 0), out["z"][row])
        np.testing.assert_array_equal(row_of(out["y"], row, 0), 2 * x[row])
    assert out["y"].dtype == np.float32
    counted = OneByOneRunner(Doubled(), {**AXES, "z": 0}).infer({"x": x, "k": np.array([1, 3])})
    assert [each.shape for each in counted["z"]] == [(2,), (2,)]  # without the axis for it


def test_an_end_with_other_graphs_in_its_place_runs_these(tmp_path):
    (end,) = ends(Artifact(graphs={"model": tmp_path / "one"}, run_axes=AXES))
    other = replace(end, artifact=Artifact(graphs={"model": tmp_path / "other"}, run_axes=AXES))
    started = []

    def start(path):
        started.append(path.name)
        return Doubled()

    for each in (end, other):
        with each.open(start) as runner:
            assert runner.infer({"x": np.ones((3, 2)), "k": np.full(3, 4)})["y"].shape == (3, 2)
    assert started == ["one", "other"]
