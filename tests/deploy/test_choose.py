from __future__ import annotations

import json
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.deploy.choose import MEMORY, Choice, choose, key_of, remember, remembered
from pocketzoo.errors import BundleError
from pocketzoo.zoo.runner import OnnxRunner

RNG = np.random.default_rng(0)
W = RNG.normal(size=(64, 64)).astype(np.float32) / 8
X = RNG.normal(size=(1, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """Real sessions: the same product computed slowly and fast, another one, and files that do not load."""
    folder = tmp_path_factory.mktemp("ways")

    def graph(name: str, weights: np.ndarray, detours: int) -> partial[OnnxRunner]:
        """x W, after going ``detours`` times through a wide matrix and back, which changes nothing."""
        wide = np.zeros((64, 2048), np.float32)
        wide[:, :64] = np.eye(64)
        nodes, at = [], "x"
        for i in range(detours):
            nodes += [
                helper.make_node("MatMul", [at, "wide"], [f"w{i}"]),
                helper.make_node("MatMul", [f"w{i}", "back"], [f"b{i}"]),
            ]
            at = f"b{i}"
        made = helper.make_graph(
            [*nodes, helper.make_node("MatMul", [at, "W"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
            [numpy_helper.from_array(v, n) for n, v in {"W": weights, "wide": wide, "back": wide.T.copy()}.items()],
        )
        path = folder / f"{name}.onnx"
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return partial(OnnxRunner, path, threads=1)

    (folder / "broken.onnx").write_bytes(b"no graph")
    return {
        "slow": graph("slow", W, 60),
        "fast": graph("fast", W, 0),
        "another": graph("another", np.roll(W, 1), 0),
        "broken": partial(OnnxRunner, folder / "broken.onnx"),
    }


def test_the_fastest_of_those_that_agree_is_taken(ways):
    choice = choose(ways, X)
    assert choice.way == "fast"
    assert set(choice.milliseconds) == {"slow", "fast"}
    assert choice.milliseconds["slow"] > choice.milliseconds["fast"]
    assert "its answers differ" in choice.left_out["another"]
    assert "does not load" in choice.left_out["broken"]
    assert str(choice).startswith("fast, ")
    assert "slow" in str(choice)
    assert "another left out: its answers differ" in str(choice)


def test_what_the_others_are_held_against_must_run(ways, refused):
    with refused(BundleError, "broken.onnx"):
        choose({"broken": ways["broken"], "fast": ways["fast"]}, X)


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
