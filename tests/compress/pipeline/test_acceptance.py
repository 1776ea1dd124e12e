from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.pipeline.acceptance import (
    FLOOR_DB,
    WAYS_OUT,
    WORSE,
    below_floor,
    same_graph,
    same_module,
    worse,
)
from pocketzoo.compress.pipeline.judge import Score

SOURCE = Score(samples=100, accuracy=0.9, agreement=1.0, outputs={"y": None}, chance=0.4)


def after(accuracy=None, **decibels) -> Score:
    return Score(samples=100, accuracy=accuracy, agreement=None, outputs=decibels, chance=0.4)


@pytest.mark.parametrize(
    ("accuracy", "fails"),
    [(0.9, False), (0.81, False), (0.799, True), (0.4, True), (1.0, False)],
)
def test_a_fifth_of_what_is_above_chance_may_go(accuracy, fails):
    """Of 0.9 with 0.4 by chance 0.1 may be lost, whatever the decibels: the classes are what counts."""
    why = below_floor(SOURCE, SOURCE, after(accuracy, y=-3.0))
    assert bool(why) == fails
    if fails:
        assert why == (
            f"accuracy falls from 90.0% to {accuracy:.1%}, losing more than a fifth of what is above chance (40.0%)"
        )


@pytest.mark.parametrize(("decibels", "fails"), [(10.0, False), (9.99, True), (-np.inf, True), (None, False)])
def test_other_outputs_keep_ten_decibels(decibels, fails):
    unknown = replace(SOURCE, accuracy=None, outputs={"y": None, "boxes": None})
    assert bool(below_floor(unknown, unknown, after(y=30.0, boxes=decibels))) == fails
    assert bool(below_floor(unknown, unknown, after(y=decibels, boxes=30.0))) == fails
    # The classes are right, and the other output is what it is all the same.
    assert bool(below_floor(SOURCE, SOURCE, after(0.9, y=0.0, boxes=decibels))) == fails


def test_the_worst_output_is_named():
    unknown = replace(SOURCE, accuracy=None)
    why = below_floor(unknown, unknown, after(a=5.0, boxes=-1.26, c=40.0))
    assert why == "the SQNR of output 'boxes' is -1.3 dB, and 1 more outputs, below 10 dB"


def test_a_model_that_is_no_better_than_chance_is_held_by_decibels():
    weak = replace(SOURCE, accuracy=0.4)
    assert below_floor(weak, weak, after(0.4, y=3.0))
    assert not below_floor(weak, weak, after(0.1, y=30.0))


def test_a_step_is_not_blamed_for_what_an_earlier_one_lost():
    assert not below_floor(SOURCE, after(0.5, y=2.0), after(0.55, y=1.0))
    assert below_floor(SOURCE, after(0.5, y=2.0), after(0.45, y=1.0))
    unknown = replace(SOURCE, accuracy=None)
    assert not below_floor(unknown, after(y=2.0), after(y=2.5))
    assert below_floor(unknown, after(y=2.0), after(y=1.5))


def test_what_a_user_allows_is_allowed():
    assert not below_floor(SOURCE, SOURCE, after(0.5, y=3.0), budget=True)
    assert below_floor(SOURCE, SOURCE, after(0.9, y=30.0, boxes=3.0), budget=True)
    unknown = replace(SOURCE, accuracy=None)
    assert not below_floor(unknown, unknown, after(y=6.0), least=5.0)
    assert below_floor(unknown, unknown, after(y=4.0), least=5.0)
    assert not below_floor(unknown, unknown, after(y=FLOOR_DB), least=30.0)  # search holds that, not the floor


def test_an_output_of_which_nothing_is_left_that_varies_is_lost():
    unknown = replace(SOURCE, accuracy=None)
    flat = replace(after(y=40.0, z=52.0), like_constants=("z",))
    assert below_floor(unknown, unknown, flat) == (
        "of what varies in the output 'z' nothing is left: a constant would be as near"
    )
    assert not below_floor(unknown, flat, flat)


def test_every_cause_has_a_way_out():
    assert set(WAYS_OUT) > WORSE
    assert all("--accept" in WAYS_OUT[cause] for cause in ("floor", "unchanged"))
    assert all("--keep-slower" in WAYS_OUT[cause] for cause in ("larger", "slower"))


def graph(value: float = 1.0, op: str = "Add", name: str = "n", attribute: int = 0) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    node = helper.make_node(op, ["x", "k"], ["y"], name=name, **({"axis": attribute} if attribute else {}))
    return helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [info("x", TensorProto.FLOAT, [2])],
            [info("y", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.full(2, value, np.float32), "k")],
        )
    )


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (graph(), True),
        (graph(name="elsewhere"), True),
        (graph(value=2.0), False),
        (graph(op="Mul"), False),
        (graph(attribute=1), False),
    ],
)
def test_a_graph_is_the_same_if_it_computes_the_same(other, same):
    assert same_graph(graph(), other) == same


def test_a_module_is_the_same_if_all_of_its_numbers_are(small, tmp_path):
    from safetensors.numpy import load_file, save_file

    file = small.file("model.safetensors")
    tensors = load_file(file)
    other, fewer = tmp_path / "other.safetensors", tmp_path / "fewer.safetensors"
    name = next(name for name, array in tensors.items() if array.size > 1)
    changed = tensors[name].copy()
    changed.flat[0] = np.nextafter(changed.flat[0], np.float32(9))
    save_file({**tensors, name: changed}, other)
    save_file({k: v for k, v in tensors.items() if k != name}, fewer)
    assert same_module(small.manifest, small.manifest, (file, file))
    assert not same_module(small.manifest, small.manifest, (file, other))
    assert not same_module(small.manifest, small.manifest, (file, fewer))
    assert not same_module(small.manifest, replace(small.manifest, macs=1), (file, file))


def test_bundles_of_before_name_no_cause(small):
    """``run`` asks it of a bundle that an older version finished."""
    old = {"kind": "int8", "config": {}, "why": "slower: 1.000 -> 2.000 ms a sample", "report": {}}
    manifest = replace(small.manifest, rejected=(old, {**old, "cause": "floor"}, {**old, "cause": "slower"}))
    assert [no["cause"] for no in worse(manifest)] == ["floor"]
