"""The calibration cache of TensorRT's removed calibrators: the scales of activations, read and planned with.

A line is ``tensor: 3c010a14``, the scale as the bits of a float32 in hexadecimal digits, the most significant first; of
the first it says who wrote it. An int8 value times its scale is the number: the largest told apart is 127 scales.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from onnx import ModelProto

from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.compress.quantization.elementwise import whole_gates, with_equal_ends, without_unlike_joins
from pocketzoo.compress.quantization.int8 import digest, needed_tensors, prepare
from pocketzoo.compress.quantization.qdq import ARITHMETIC, PASSING, moves
from pocketzoo.core.errors import DataError
from pocketzoo.core.reading.documents import read_bytes
from pocketzoo.zoo.graphs.foreign.selections import unseen_layers, unseen_nodes
from pocketzoo.zoo.graphs.index import GraphIndex, left_alone, quantizable
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operands import plain_operands

HEADER = re.compile(r"TRT-\d+-\w+")
LINE = re.compile(r"(?P<name>.+): (?P<bits>[0-9a-fA-F]{1,8})")
MOST = 127  # the largest integer of a symmetric encoding


def read_cache(path: Path) -> dict[str, float]:
    """Tensor -> its scale. What has none, as of a tensor that was 0 throughout, is left out.

    Raises:
        DataError: it is not such a file.
    """
    lines = [line for line in read_bytes(path).decode("utf8", "replace").splitlines() if line.strip()]
    if not lines or not HEADER.match(lines[0]):
        raise DataError(
            f"{path} is not a calibration cache of TensorRT",
            "give the file that a calibrator wrote; it begins with TRT-",
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if (match := LINE.fullmatch(line.strip())) is None:
            raise DataError(f"{path}, line {number} is no scale: {line[:60]!r}", "a line is TENSOR: 3c010a14")
        (scale,) = struct.unpack(">f", bytes.fromhex(match["bits"].zfill(8)))
        if not 0 <= scale < float("inf"):  # NaN as well
            raise DataError(f"{path}, line {number}: the scale of {match['name']!r} is {scale}", "write the cache anew")
        if scale > 0:
            scales[match["name"]] = scale
    return scales


def plan_by_scales(model: ModelProto, scales: dict[str, float]) -> Int8Plan:
    """The plan of an int8 step whose ranges are those of a cache; weights are rounded to nearest.

    A layer whose input the cache has no scale for stays in float, by name.
    """
    index = GraphIndex(model)
    left = unseen_layers(index) | left_alone(index)
    layers = quantizable(index, (), left=left)
    model = whole_gates(plain_operands(model, {layer_name(node.input[1]) for node in layers}))
    index = GraphIndex(model)
    found = []
    for node in quantizable(index, (), left=left):
        if node.input[0] in scales:
            found.append(node)
        else:
            left[layer_name(node.input[1])] = f"the calibration cache has no scale for its input {node.input[0]}"
    names = tuple(layer_name(node.input[1]) for node in found)
    needed = needed_tensors(index, set(names), ARITHMETIC | PASSING, unseen_nodes(index))
    ranges = {}
    for name in needed:
        if (scale := scales.get(name)) is not None:
            ranges[name] = Range(low=-MOST * scale, high=MOST * scale, magnitude=MOST * scale)
    ranges = with_equal_ends(index, without_unlike_joins(index, ranges, moves))
    tensors = prepare(index, found, ranges, {})
    return Int8Plan(ranges=ranges, layers=names, left=left, sha256=digest(tensors), tensors=tensors)
