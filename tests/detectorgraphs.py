"""Detectors that select inside the graph: what they end in is another length for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SIDE, CELLS = 16, 16  # pixels of an image, and boxes in it


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


# What selects, and the outputs that it makes: nodes, outputs (name, type, dims).
ENDS: dict[str, tuple[list[onnx.NodeProto], list[tuple[str, int, list[Any]]]]] = {
    "NonMaxSuppression": (
        [node("NonMaxSuppression", "boxes scores most iou half", "selected")], [("selected", INT64, ["m", 3])],
    ),
    "gathered": (
        [
            node("NonMaxSuppression", "boxes scores most iou half", "selected"),
            node("Gather", "selected two", "place", axis=1), node("Squeeze", "boxes zero", "each"),
            node("Gather", "each place", "found"), node("GatherND", "scores selected", "sure"),
            node("Gather", "selected one", "kind", axis=1),
        ],
        [("found", FLOAT, ["m", 4]), ("sure", FLOAT, ["m"]), ("kind", INT64, ["m"])],
    ),
    "NonZero": (
        [node("Greater", "scores half", "high"), node("NonZero", "high", "where")], [("where", INT64, [3, "m"])],
    ),
    "Unique": ([node("ArgMax", "scores", "best", axis=2), node("Unique", "best", "kinds")], [("kinds", INT64, ["m"])]),
    "Compress": (
        [
            node("ReduceMax", "scores", "best", axes=[0, 1], keepdims=0), node("Greater", "best half", "high"),
            node("Squeeze", "boxes zero", "each"), node("Compress", "each high", "found", axis=0),
        ],
        [("found", FLOAT, ["m", 4])],
    ),
    "TopK": (
        [
            node("ReduceMax", "scores", "best", axes=[0, 1], keepdims=0), node("Greater", "best half", "high"),
            node("Cast", "high", "ones", to=INT64), node("ReduceSum", "ones", "count", keepdims=1),
            node("TopK", "best count", "top at"),
        ],
        [("top", FLOAT, ["m"])],
    ),
    # Of the boxes that are selected, what few bits ruin: a column far larger than the others, and a far offset.
    "two stages": (
        [
            node("NonMaxSuppression", "boxes scores most iou half", "selected"), node("Squeeze", "boxes zero", "each"),
            node("Gather", "selected two", "place", axis=1), node("Gather", "each place", "found"),
            node("Add", "found far", "away"), node("Sub", "away far", "back"),
            node("Mul", "back wide", "widened"), node("MatMul", "widened second", "hidden"),
            node("Relu", "hidden", "hidden1"), node("MatMul", "hidden1 third", "head"),
            node("Gather", "selected one", "kind", axis=1), node("Gather", "table kind", "named"),
        ],
        [("head", FLOAT, ["m", 3]), ("named", FLOAT, ["m", 64])],
    ),
}  # fmt: skip


# As many boxes for each image, in the order of their scores; and what a layer makes of them.
RANKED = {
    "best": (
        [
            node("ReduceMax", "scores", "score", axes=[1], keepdims=0), node("TopK", "score five", "top at"),
            node("Squeeze", "at zero", "place"), node("Squeeze", "boxes zero", "each"),
            node("Gather", "each place", "corners"), node("Mul", "corners size", "found"),
            node("Mod", "at three", "kind"),
        ],
        [("top", FLOAT, [1, 5]), ("at", INT64, [1, 5]), ("found", FLOAT, [5, 4]), ("kind", INT64, [1, 5])],
    ),
}  # fmt: skip
RANKED["best, refined"] = (
    [*RANKED["best"][0], node("MatMul", "found refine", "refined")],
    [("refined", FLOAT, [5, 4]), RANKED["best"][1][2]],
)


def second_stage() -> dict[str, np.ndarray]:
    """The constants after the selection of "two stages"."""
    rng = np.random.default_rng(5)
    return {
        "far": np.array(4096.0), "wide": np.array([1e4, 1, 1, 1]), "table": rng.normal(size=(128, 64)),
        "second": rng.normal(size=(4, 8)) * np.array([[1e-4], [1], [1], [1]]), "third": rng.normal(size=(8, 3)),
    }  # fmt: skip


def head_of(found: np.ndarray) -> np.ndarray:
    """What "two stages" makes of boxes (m, 4)."""
    weights = {name: value.astype(np.float32) for name, value in second_stage().items()}
    widened = ((found + weights["far"]) - weights["far"]) * weights["wide"]
    return np.maximum(widened @ weights["second"], 0) @ weights["third"]


def detector(end: str = "gathered", more: tuple[str, ...] = (), batch: int | str = 1) -> onnx.ModelProto:
    """Of ``image`` (1, 3, 16, 16): 16 boxes, which sigmoids place in their cell, and their scores for 3 classes."""
    rng = np.random.default_rng(0)
    corner = 4.0 * np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(1, CELLS, 2)
    constants = {
        "w": rng.normal(size=(16, 3, 3, 3)) / 4, "v": rng.normal(size=(32, 16, 3, 3)) / 8,
        "b": rng.normal(size=(4, 32, 1, 1)) / 4, "c": rng.normal(size=(3, 32, 1, 1)) / 4,
        "cells": np.concatenate([corner - 2, corner + 4], -1), "size": np.array(4.0), "half": np.array([0.5]),
        "iou": np.array([0.3]), "most": np.array([20]), "zero": np.array([0]), "one": np.array(1), "two": np.array(2),
        "as_boxes": np.array([-1, 4, CELLS]), "as_scores": np.array([-1, 3, CELLS]),
    }  # fmt: skip
    if end == "two stages":
        constants |= second_stage()
    if end in RANKED:
        constants |= {"five": np.array([5]), "three": np.array(3)}
    if end == "best, refined":
        constants["refine"] = rng.normal(size=(4, 4))
    nodes = [
        node("Conv", "image w", "a", pads=[1] * 4, strides=[2, 2]), node("Relu", "a", "a1"),
        node("Conv", "a1 v", "d", pads=[1] * 4, strides=[2, 2]), node("Relu", "d", "d1"),
        node("Conv", "d1 b", "box"), node("Reshape", "box as_boxes", "flat"),
        node("Transpose", "flat", "rows", perm=[0, 2, 1]), node("Sigmoid", "rows", "inside"),
        node("Mul", "inside size", "moved"), node("Add", "moved cells", "boxes"),
        node("Conv", "d1 c", "class"), node("Reshape", "class as_scores", "logits"),
        node("Sigmoid", "logits", "scores"),
    ]  # fmt: skip
    selecting, outputs = {**ENDS, **RANKED}[end]
    shapes = {"boxes": [batch, CELLS, 4], "scores": [batch, 3, CELLS]}
    outputs = [*outputs, *((name, FLOAT, shapes[name]) for name in more)]
    graph = helper.make_graph(
        [*nodes, *selecting],
        "detector",
        [helper.make_tensor_value_info("image", FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [
            numpy_helper.from_array(np.asarray(value, np.float32 if value.dtype.kind == "f" else np.int64), name)
            for name, value in constants.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def images(count: int, seed: int = 1) -> np.ndarray:
    """Images with patches that differ, (count, 3, 16, 16)."""
    patches = np.random.default_rng(seed).normal(size=(count, 3, 4, 4))
    return np.kron(patches, np.ones((1, 1, 4, 4))).astype(np.float32)
