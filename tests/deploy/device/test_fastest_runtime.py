from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from machine import Machine
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError
from pocketzoo.deploy.device.fastest_runtime import MEMORY, Choice, choose, key_of, remember, remembered
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

RNG = np.random.default_rng(0)
W = RNG.normal(size=(64, 64)).astype(np.float32) / 8
X = RNG.normal(size=(1, 64)).astype(np.float32)


class Paced(OnnxRunner):
    """A real session that takes as long as it is told, on a clock that is simulated."""

    def __init__(self, path: Path, machine: Machine, seconds: float) -> None:
        super().__init__(path, threads=1)
        self.run_once = machine.run(seconds)

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        self.run_once()
        return super().infer(inputs, out)


@pytest.fixture
def machine() -> Machine:
    """One on which every run takes a little more or less, and now and then one takes thrice as long."""
    generator = np.random.default_rng(0)
    return Machine(lambda now: (generator.lognormal(0.0, 0.1) * (3.0 if generator.random() < 0.2 else 1.0), 0.0))


@pytest.fixture
def ways(tmp_path, machine):
    """Real sessions: the same product at three speeds, another product, and a file that does not load."""

    def graph(name: str, weights: np.ndarray, seconds: float) -> partial[Paced]:
        made = helper.make_graph(
            [helper.make_node("MatMul", ["x", "W"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
            [numpy_helper.from_array(weights, "W")],
        )
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return partial(Paced, path, machine, seconds)

    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    return {
        "slow": graph("slow", W, 5e-3),
        "fast": graph("fast", W, 2e-3),
        "middling": graph("middling", W, 3e-3),
        "another": graph("another", np.roll(W, 1), 1e-3),
        "broken": partial(OnnxRunner, tmp_path / "broken.onnx"),
    }


def test_the_fastest_of_those_that_agree_is_taken(ways, machine):
    choice = choose(ways, {"x": X}, clock=machine.clock)
    assert choice.way == "fast"
    assert choice.milliseconds == pytest.approx({"slow": 5.0, "fast": 2.0, "middling": 3.0}, rel=0.2)
    assert "its outputs differ" in choice.left_out["another"]
    assert "does not load" in choice.left_out["broken"]
    assert str(choice).startswith("fast, ")
    assert "slow" in str(choice)
    assert "another skipped: its outputs differ" in str(choice)


def test_what_the_others_are_held_against_must_run(ways, refused):
    with refused(BundleError, "broken.onnx"):
        choose({"broken": ways["broken"], "fast": ways["fast"]}, {"x": X})


def test_a_choice_is_remembered_while_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    ways = {"cpu": None, "cuda": None}
    choice = Choice(way="cuda", milliseconds={"cpu": 2.0, "cuda": 1.0})
    key = key_of("digest", ways, 1)
    assert remembered(key, ways) is None
    remember(key, choice)
    remember("another", Choice(way="cpu"))
    assert remembered(key, ways) == choice
    assert remembered(key, {"cpu": None}) is None, "the way is gone"
    others = [key_of("other", ways, 1), key_of("digest", {"cpu": None}, 1), key_of("digest", ways, 2)]
    assert [remembered(k, ways) for k in others] == [None] * 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"key": {"weg": "cpu"}}', '{"key": {}}'])
def test_a_damaged_memory_is_no_memory(content, tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path))
    (tmp_path / MEMORY).write_text(content)
    assert remembered("key", {"cpu": None}) is None
    remember("key", Choice(way="cpu"))
    assert json.loads((tmp_path / MEMORY).read_text())["key"]["way"] == "cpu"


def test_a_home_that_cannot_be_written_costs_only_the_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "file" / "home"))
    remember("key", Choice(way="cpu"))
    assert remembered("key", {"cpu": None}) is None
