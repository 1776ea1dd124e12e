"""Graphs that mean harm, by what they do: loops, functions of functions, files, foreign operators, sizes, names."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

EVIL_TEXT = [
    "\x1b]0;owned\x07", "\x1b[2J", "safe\u202egpj.exe", "\u2066x", "<script>alert(1)</script>", "](javascript:1)",
    "---\na: b", "a\nb", "{{7*7}}", "${x}", "../../x", "/etc/passwd", "a" * 3000, "%s%n", "'; --", "\x00", "\u200b", "",
]  # fmt: skip
BIG = (2**20, 2**26, 2**29, 2**31, 2**33, 2**40, 2**62)
MEAN = (("ReduceMean", ["m"], ["r"], {"keepdims": 0}), ("Add", ["i", "r"], ["o"], {}))  # what becomes of a large tensor
FOREIGN = ("EPContext", "PythonOp", "ATen", "Tokenizer", "BeamSearch", "Gelu", "FusedConv", "NGramRepeatBlock")
PLACES = ("/etc/passwd", "../secret", "secret", "x.npz", "\x00", "a" * 5000, "C:\\x", "//host/x")


@dataclass
class Graph:
    """A graph in the making: (operator, inputs, outputs, attributes) of each node, and its constants by name."""

    nodes: list[Any]
    constants: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=lambda: [("i", ["b", 4], 1)])
    outputs: list[Any] = field(default_factory=lambda: [("o", ["b", 4], 1)])
    functions: list[Any] = field(default_factory=list)
    domains: tuple[str, ...] = ()
    tensors: list[Any] = field(default_factory=list)
    sparse: list[int] = field(default_factory=list)  # the shape of a sparse constant "w"


def sized(operator: str, names: list[str], constants: dict[str, Any], **attributes: Any) -> Graph:
    """One whose node of a large output is read by the rest."""
    return Graph([(operator, names, ["m"], attributes), *MEAN], constants)


def functions(chance: random.Random, big: int) -> Graph:
    """Each calls the one before twice."""
    from onnx import helper

    domains, made, count = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)], [], chance.choice((12, 30, 60))
    for i in range(count):
        kind = {"op_type": f"F{i - 1}", "domain": "l"} if i else {"op_type": "Neg"}
        inside = [helper.make_node(inputs=[a], outputs=[b], **kind) for a, b in pairwise("xty")]
        made.append(helper.make_function("l", f"F{i}", ["x"], ["y"], inside, domains))
    return Graph([(f"F{count - 1}", ["i"], ["o"], {"domain": "l"})], functions=made, domains=("l",))


def external(chance: random.Random, big: int) -> Graph:
    """Weights in a file elsewhere."""
    from onnx import TensorProto

    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=chance.choice(PLACES))
    return Graph([("Add", ["i", "w"], ["o"], {})], tensors=[tensor])


def loop(chance: random.Random, big: int) -> Graph:
    """One of 2^60 rounds."""
    from endlessgraphs import loop as endless

    nodes, constants = endless("i", "o")
    return Graph(nodes, tensors=constants)


def deep(chance: random.Random, big: int) -> Graph:
    """Branches in branches."""
    from onnx import helper

    out = [helper.make_tensor_value_info("y", 1, None)]
    body = helper.make_graph([helper.make_node("Identity", ["i"], ["y"])], "b", [], out)
    small = body
    for level in range(chance.choice((5, 15, 28))):  # protobuf itself makes no more
        node = helper.make_node("If", ["t"], ["y"], then_branch=body, else_branch=small)
        body = helper.make_graph([node], f"b{level}", [], out)
    return Graph([("If", ["t"], ["o"], {"then_branch": body, "else_branch": small})], {"t": True})


def named(chance: random.Random, big: int) -> Graph:
    """Names that are no names."""
    text = chance.choice(EVIL_TEXT) or "n"
    nodes = [("Neg", [f"{text}i"], [f"{text}o"], {"name": text, "doc_string": text})]
    return Graph(nodes, inputs=[(f"{text}i", ["b", 4], 1)], outputs=[(f"{text}o", ["b", 4], 1)])


def shaped(chance: random.Random, big: int) -> Graph:
    """Inputs of shapes that nothing has."""
    shape = chance.choice(([], [0], ["b", big], [2**62] * 8, ["b"] * 4, [-1, 4], ["b", "b"], [1] * 200, [big]))
    return Graph([("Neg", ["i"], ["o"], {})], inputs=[("i", shape, 1)], outputs=[("o", None, 1)])


def typed(chance: random.Random, big: int) -> Graph:
    """Inputs of types that nothing has."""
    kind = chance.choice((8, 9, 7, 10, 11, 14, 16, 17, 21, 99))
    return Graph([("Identity", ["i"], ["o"], {})], inputs=[("i", ["b", 4], kind)], outputs=[("o", ["b", 4], kind)])


def chain(chance: random.Random, big: int) -> Graph:
    """One node after the other: this is no harm, and works."""
    names = ["i", *(f"t{n}" for n in range(chance.choice((3_000, 30_000)) - 1)), "o"]
    return Graph([("Neg", [a], [b], {}) for a, b in pairwise(names)])


def computed(chance: random.Random, big: int) -> Graph:
    """A size that the numbers of its input say."""
    nodes = [
        ("Cast", ["i"], ["c"], {"to": 7}), ("ReduceMax", ["c"], ["top"], {"keepdims": 0}), ("Abs", ["top"], ["a"], {}),
        ("Add", ["a", "big"], ["q"], {}), ("Reshape", ["q", "one"], ["shape"], {}),
        ("ConstantOfShape", ["shape"], ["m"], {}),
    ]  # fmt: skip
    return Graph([*nodes, *MEAN], {"big": big, "one": [1]})


def resized(chance: random.Random, big: int) -> Graph:
    """An image made large."""
    import numpy as np

    nodes = [("Reshape", ["i", "f"], ["g"], {}), ("Resize", ["g", "", "s"], ["m"], {})]
    return Graph([*nodes, *MEAN], {"s": np.float32([1, 1, 2.0**15, 2.0**15]), "f": [-1, 1, 2, 2]})


def ranged(chance: random.Random, big: int) -> Graph:
    """Numbers up to a large one."""
    nodes = [("Range", ["a", "z", "d"], ["k"], {}), ("Cast", ["k"], ["m"], {"to": 1})]
    return Graph([*nodes, *MEAN], {"a": 0, "z": big, "d": 1})


def products(chance: random.Random, big: int) -> Graph:
    """Large only once two small ones are multiplied."""
    nodes = [("ConstantOfShape", ["s"], ["p"], {}), ("MatMul", ["p", "q"], ["m"], {})]
    side = chance.choice((2**12, 2**15, 2**20))
    return Graph([("ConstantOfShape", ["t"], ["q"], {}), *nodes, *MEAN], {"s": [side, 4], "t": [4, side]})


Make = Callable[[random.Random, int], Graph]
WAYS: dict[str, Make] = {
    "loop": loop, "functions": functions, "external": external, "deep": deep, "names": named, "shapes": shaped,
    "types": typed, "chain": chain, "computed": computed, "resize": resized, "range": ranged, "products": products,
    "operator": lambda c, b: Graph([("Run", ["i"], ["o"], {"domain": "evil.so", "library": "/tmp/evil.so"})],
                                   domains=("evil.so",)),
    "contrib": lambda c, b: Graph([(c.choice(FOREIGN), ["i"], ["o"], {
        "domain": "com.microsoft", "ep_cache_context": "/etc/passwd", "embed_mode": 0})], domains=("com.microsoft",)),
    "constant": lambda c, b: sized("ConstantOfShape", ["s"], {"s": [b, c.choice((1, 4, 2**10))]}),
    "expand": lambda c, b: sized("Expand", ["i", "s"], {"s": [b, c.choice((1, 4, 2**10)), 1, 4]}),
    "tile": lambda c, b: sized("Tile", ["i", "s"], {"s": [1, b]}),
    "pad": lambda c, b: sized("Pad", ["i", "s"], {"s": [0, b, 0, 0]}),
    "reshape": lambda c, b: sized("Reshape", ["i", "s"], {"s": [b, -1]}),
    "onehot": lambda c, b: sized("OneHot", ["k", "n", "v"], {"k": [1, 2], "n": b, "v": [0.0, 1.0]}),
    "random": lambda c, b: sized("RandomNormal", [], {}, shape=[b, c.choice((1, 4))]),
    "sparse": lambda c, b: Graph([("Add", ["i", "w"], ["o"], {})], sparse=[b, 4]),
    "strings": lambda c, b: Graph([("Identity", ["i"], ["o"], {})], inputs=[("i", ["b", 4], 8)],
                                  outputs=[("o", ["b", 4], 8)]),
}  # fmt: skip


def write_graph(chance: random.Random, path: Path) -> str:
    """Write one by chance; says what it does."""
    way, big = chance.choice(list(WAYS)), chance.choice(BIG)
    model = model_of(WAYS[way](chance, big), chance.choice(EVIL_TEXT) or "g")
    for key in ("author", chance.choice(EVIL_TEXT) or "k"):
        model.metadata_props.add(key=key, value=chance.choice(EVIL_TEXT))
    path.write_bytes(model.SerializeToString())
    return f"{way} {big}"


def model_of(graph: Graph, name: str) -> Any:
    """The file's message."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    def tensor(name: str, value: Any) -> Any:
        array = np.asarray(value)
        return numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)

    nodes = [
        node if isinstance(node, onnx.NodeProto) else helper.make_node(node[0], node[1], node[2], **node[3])
        for node in graph.nodes
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(each, kind, shape) for each, shape, kind in side]
        for side in (graph.inputs, graph.outputs)
    )
    constants = [*graph.tensors, *(tensor(key, value) for key, value in graph.constants.items())]
    made = helper.make_graph(nodes, name, inputs, outputs, constants)
    if graph.sparse:
        sparse = onnx.SparseTensorProto(dims=graph.sparse)
        sparse.values.CopyFrom(tensor("w", [1.0]))
        sparse.indices.CopyFrom(tensor("", [0]))
        made.sparse_initializer.append(sparse)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in graph.domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, functions=graph.functions)
