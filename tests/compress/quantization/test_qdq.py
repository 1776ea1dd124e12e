"""int8 of graphs that the standard allows and no exporter of ours writes: each gives what the float graph gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.qdq import Integers, activation_parameters
from pocketzoo.plugins.plan_descriptions import describe_int8
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.catalog.specs import Int8Encoding
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.tasks.agreement import sqnr

TARGETS = {t.name: t for t in pocketzoo_targets() if t.name in ("cpu", "cuda", "openvino", "tensorrt-rtx")}
LEAST = 22.0  # dB: what three layers of random weights in 8 bits keep, and nothing that is computed wrongly


@dataclass
class Case:
    """A graph of one float input ``x``; ``left``: the layers that stay in float."""

    nodes: list[onnx.NodeProto]
    outputs: tuple[str, ...] = ("y",)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    size: tuple[int, ...] = (16,)
    left: tuple[str, ...] = ()
    batch: int | str = "n"
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.size])],
            outputs,
            [numpy_helper.from_array(np.asarray(v), k) for k, v in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(made)
        for i, value in enumerate(inferred.graph.output):
            if value.name in self.constants:
                shape = self.constants[value.name].shape
                made.graph.output[i].CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
            elif value.type.tensor_type.elem_type:
                made.graph.output[i].CopyFrom(value)
        onnx.checker.check_model(made)
        return made


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    fan = max(int(np.prod(shape[1:])), 1)
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * (2 / fan) ** 0.5).astype(np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), **attributes)


def body(name: str, nodes: list[onnx.NodeProto], outputs: str, inputs: tuple = (), **constants) -> onnx.GraphProto:
    values = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs.split(" ")]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    return helper.make_graph(nodes, name, list(inputs), values, tensors)


CASES: dict[str, Callable[[], Case]] = {}


def case(name: str, *arguments: object) -> Callable:
    """A case; with ``arguments`` one for each of them."""

    def add(make: Callable[..., Case]) -> Callable[..., Case]:
        for argument in arguments or (None,):
            CASES[f"{name} {argument}".removesuffix(" None")] = (
                make if not arguments else lambda make=make, argument=argument: make(argument)
            )
        return make

    return add


# -- third operands

MLP = {"w0": weight(24, 16), "b0": weight(24), "w1": weight(24, 24), "wf": weight(10, 24), "bf": weight(10)}


@case("a computed addend of Gemm", "relu", "small", "row", "column", "number", "input of another")
def _(kind):
    third = {"relu": "r0", "small": "s", "row": "m", "column": "q", "number": "t", "input of another": "h"}[kind]
    return Case(
        [
            node("Gemm", "x w0 b0", "h", transB=1),
            node("Relu", "h", "r0"),
            node("Mul", "r0 tenth", "s"),
            node("ReduceMean", "r0", "m", axes=[0]),
            node("ReduceMean", "r0", "q", axes=[1]),
            node("ReduceMean", "r0", "t", keepdims=0),
            node("Gemm", f"r0 w1 {third}", "a", transB=1),
            node("Relu", "a", "r1"),
            node("Gemm", "r1 wf bf", "y", transB=1),
        ],
        constants={**MLP, "tenth": np.float32(0.1)},
    )


@case("Gemm adds its own input", 0, 1)
def _(transposed):
    return Case(
        [node("Gemm", "x w x", "a", transB=transposed), node("Relu", "a", "r"), node("Gemm", "r v x", "y")],
        constants={"w": weight(16, 16), "v": weight(16, 16, seed=1)},
    )


@case("a constant addend of shape", "()", "(1,)", "(N,)", "(1, 1)", "(1, N)", "(M, 1)", "(M, N)", "(1, N) of all")
def _(kind):
    shape = {"()": (), "(1,)": (1,), "(N,)": (12,), "(1, 1)": (1, 1), "(1, N)": (1, 12), "(M, 1)": (4, 1),
             "(M, N)": (4, 12), "(1, N) of all": (1, 12)}[kind]  # fmt: skip
    third = "c c c" if kind.endswith("all") else "b0 c c"
    first, second, last = third.split(" ")
    return Case(
        [
            node("Gemm", f"x w0 {first}", "h", transB=1),
            node("Relu", "h", "r0"),
            node("Gemm", f"r0 w1 {second}", "a", transB=0),
            node("Relu", "a", "r1"),
            node("Gemm", f"r1 w2 {last}", "y", transB=1),
        ],
        constants={
            "w0": weight(12, 16), "b0": weight(12), "w1": weight(12, 12), "w2": weight(12, 12, seed=3),
            "c": np.asarray(weight(*(shape or (1,))).reshape(shape)),
        },
        batch=4 if "M" in kind else "n",
    )  # fmt: skip


@case("Gemm with alpha and beta", (0.5, 1.0), (1.0, 0.25), (-2.0, 3.0), (0.5, 0.0), (1.0, -1.0))
def _(factors):
    alpha, beta = factors
    return Case(
        [
            node("Gemm", "x w0 b0", "h", transB=1, alpha=alpha, beta=beta),
            node("Relu", "h", "r0"),
            node("Gemm", "r0 w1 r0", "a", transB=1, alpha=alpha, beta=beta),
            node("Gemm", "a wf row", "y", transB=1, alpha=alpha, beta=beta),
        ],
        constants={**MLP, "row": weight(1, 10, seed=4)},
    )


@case("a weight that is scaled by one of two")
def _():
    return Case(
        [
            node("Gemm", "x w0 b0", "h", transB=1),
            node("Relu", "h", "r0"),
            node("Gemm", "r0 w1", "a", transB=1, alpha=0.5),
            node("Gemm", "a w1", "b", transB=1),
            node("Gemm", "b wf bf", "y", transB=1),
        ],
        constants=MLP,
        left=("w1",),
    )


@case("Gemm that reads its input transposed")
def _():
    return Case(
        [
            node("Gemm", "x w0 b0", "h", transB=1),
            node("Transpose", "h", "t", perm=[1, 0]),
            node("Gemm", "t w1 b0", "a", transA=1),
            node("Gemm", "a wf bf", "y", transB=1),
        ],
        constants=MLP,
        left=("w1",),
    )


@case("a computed bias of a convolution", 1, 2, 3)
def _(rank):
    size, k = (8,) * rank, (3,) * rank
    return Case(
        [
            node("ReduceMean", "x", "m", axes=[0, *range(2, rank + 2)], keepdims=0),
            node("MatMul", "m wm", "bias"),
            node("Conv", "x w bias", "a", pads=[1] * 2 * rank),
            node("Relu", "a", "r"),
            node("Conv", "r v bias", "b", group=4, pads=[1] * 2 * rank),
            node("Relu", "b", "s"),
            node("GlobalAveragePool", "s", "g"),
            node("Flatten", "g", "f"),
            node("Gemm", "f wf bf", "y", transB=1),
        ],
        constants={
            "wm": 5 * weight(3, 8), "w": weight(8, 3, *k), "v": weight(8, 2, *k), "wf": weight(10, 8), "bf": weight(10)
        },
        size=(3, *size),
    )  # fmt: skip


@case("transposed convolutions", "constant", "computed")
def _(kind):
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("ReduceMean", "a", "m", axes=[0, 2, 3], keepdims=0),
            node("ConvTranspose", f"a wt {'bt' if kind == 'constant' else 'm'}", "u", strides=[2, 2]),
            node("Relu", "u", "r"),
            node("Conv", "r v m", "y"),
        ],
        constants={
            "w": weight(8, 3, 3, 3),
            "b": weight(8),
            "wt": weight(8, 8, 2, 2),
            "bt": weight(8),
            "v": weight(8, 8, 1, 1),
        },
        size=(3, 8, 8),
        left=("wt",),
    )


# -- weights that are read in several ways


@case("a weight along two axes", (16, 16), (12, 16), (24, 16))
def _(shape):
    hidden, width = shape
    return Case(
        [
            node("Gemm", "x w b", "a", transB=1),
            node("Relu", "a", "r"),
            node("Gemm", "r w c", "y"),
        ],
        constants={
            "w": weight(*shape) * np.geomspace(0.1, 10, hidden)[:, None].astype(np.float32),
            "b": weight(hidden),
            "c": weight(width),
        },
    )


@case("a weight along two axes, second way first")
def _():
    return Case(
        [
            node("MatMul", "x w", "a"),
            node("Relu", "a", "r"),
            node("Gemm", "r w c", "b", transB=1),
            node("MatMul", "b w", "d"),
            node("Gemm", "d w", "y", transB=1),
        ],
        constants={"w": weight(16, 12), "c": weight(16)},
    )


@case("a filter in groups and whole")
def _():
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("Relu", "a", "r"),
            node("Concat", "r r", "d", axis=1),
            node("Conv", "d w c", "y", pads=[1] * 4, group=2),
        ],
        constants={"w": weight(8, 8, 3, 3), "b": weight(8), "c": weight(8)},
        size=(8, 6, 6),
    )


@case("a weight that a node that is not a layer reads", "Add", "Mul", "Transpose", "Gather", "ReduceSum", "Gather 1")
def _(op):
    other = {
        "Add": [node("Add", "h w", "y")],
        "Mul": [node("Mul", "h w", "y")],
        "Transpose": [node("Transpose", "w", "t"), node("MatMul", "h t", "y")],
        "Gather": [node("Gather", "w i", "t"), node("MatMul", "h t", "y")],
        "Gather 1": [node("Gather", "w i", "t", axis=1), node("MatMul", "h t", "y")],
        "ReduceSum": [node("ReduceSum", "w", "t"), node("Mul", "h t", "y")],
    }[op]
    return Case(
        [node("Gemm", "x w b", "a", transB=1), node("Relu", "a", "r"), node("MatMul", "r v", "h"), *other],
        constants={"w": weight(16, 16), "b": weight(16), "v": weight(16, 16, seed=2), "i": np.arange(16)[::-1].copy()},
        batch=16,
    )


@case("a filter that a Gather reads")
def _():
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("Relu", "a", "r"),
            node("Gather", "w i", "t"),
            node("Conv", "r t", "y", pads=[1] * 4),
        ],
        constants={"w": weight(8, 8, 3, 3), "b": weight(8), "i": np.array([3, 1])},
        size=(8, 6, 6),
    )


@case("a table that a layer reads too", "MatMul", "Gemm")
def _(op):
    layer = node("MatMul", "h e", "a") if op == "MatMul" else node("Gemm", "h e", "a", transB=0)
    return Case(
        [
            node("ArgMax", "x", "id", axis=1, keepdims=0),
            node("Gather", "e id", "rows"),
            node("MatMul", "rows v", "h"),
            layer,
            node("Gemm", "a u", "y"),
        ],
        constants={"e": weight(16, 600), "v": weight(600, 16), "u": weight(600, 8)},
    )


@case("a weight that is an output too", "MatMul", "Gemm", "Conv", "bias", "table", "left")
def _(op):
    if op == "Conv":
        nodes, size = [node("Conv", "x w b", "y", pads=[1] * 4)], (8, 6, 6)
        return Case(nodes, ("y", "w"), {"w": weight(8, 8, 3, 3), "b": weight(8)}, size)
    if op == "table":
        nodes = [node("ArgMax", "x", "id", axis=1), node("Gather", "w id", "h"), node("MatMul", "h v", "y")]
        return Case(nodes, ("y", "w"), {"w": weight(16, 600), "v": weight(600, 8)})
    if op == "left":
        nodes = [node("MatMul", "x v", "h"), node("MatMul", "h w", "y")]
        return Case(nodes, ("y", "w"), {"v": weight(16, 16), "w": weight(16)}, left=("w",))
    layer = node("MatMul", "r w", "y") if op == "MatMul" else node("Gemm", "r w b", "y")
    nodes = [node("MatMul", "x v", "h"), node("Relu", "h", "r"), layer]
    constants = {"v": weight(16, 16), "w": weight(16, 8), "b": weight(8)}
    return Case(
        nodes, ("y", "b" if op == "bias" else "w"), constants if op != "MatMul" else {k: constants[k] for k in "vw"}
    )


@case("layers whose weights have one name but for its end")
def _():
    return Case(
        [
            node("Gemm", "x fc b", "a", transB=1),
            node("Relu", "a", "r"),
            node("Gemm", "r fc.weight c", "d", transB=1),
            node("Gemm", "d fc_quantized", "y", transA=0),
        ],
        constants={
            "fc": weight(12, 16),
            "b": weight(12),
            "fc.weight": weight(9, 12),
            "c": weight(9),
            "fc_quantized": weight(9, 5),
        },
    )


# -- matrices that are none


@case("MatMul with a vector")
def _():
    return Case(
        [node("Gemm", "x w b", "a", transB=1), node("Relu", "a", "r"), node("MatMul", "r v", "y")],
        constants={"w": weight(12, 16), "b": weight(12), "v": weight(12)},
        left=("v",),
    )


@case("MatMul with a stack of matrices", 1, 4)
def _(count):
    return Case(
        [node("MatMul", "x u", "h"), node("MatMul", "h w", "a"), node("Relu", "a", "r"), node("MatMul", "r v", "y")],
        constants={"u": weight(16, 16), "w": weight(count, 16, 24), "v": weight(count, 24, 8)},
        size=(count, 1, 16),
    )


@case("MatMul of a vector")
def _():
    return Case(
        [
            node("ReduceMean", "x", "m", axes=[0], keepdims=0),
            node("MatMul", "m w", "a"),
            node("Relu", "a", "r"),
            node("MatMul", "r v", "b"),
            node("Mul", "x b", "c"),
            node("MatMul", "c v", "y"),
        ],
        constants={"w": weight(16, 16), "v": weight(16, 16, seed=1)},
    )


@case("weights in other types", TensorProto.FLOAT16, TensorProto.DOUBLE)
def _(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return Case(
        [
            node("Gemm", "x w b", "a", transB=1),
            node("Cast", "a", "h", to=kind),
            node("MatMul", "h v", "c"),
            node("Cast", "c", "d", to=TensorProto.FLOAT),
            node("MatMul", "d u", "y"),
        ],
        constants={"w": weight(12, 16), "b": weight(12), "v": weight(12, 12).astype(dtype), "u": weight(12, 5)},
        left=("v",),
    )


@case("recurrent layers", "GRU", "LSTM", "RNN", "GRU beside a layer")
def _(kind):
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind.split(" ")[0]]
    read = "r" if kind != "GRU beside a layer" else "r2"
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("Relu", "a", "r"),
            node("Conv", "r v b", "r2"),
            node("GlobalAveragePool", "r2", "g"),
            node("Flatten", "g", "f"),
            node("Transpose", read, "t", perm=[3, 0, 1, 2]),
            node("Reshape", "t sh", "s"),
            helper.make_node(kind.split(" ")[0], ["s", "wi", "wr"], ["", "last"], hidden_size=16),
            node("Squeeze", "last ax", "q"),
            node("Concat", "q f", "qf", axis=1),
            node("Gemm", "qf wf bf", "y", transB=1),
        ],
        constants={
            "w": weight(8, 1, 3, 3),
            "b": weight(8),
            "v": weight(8, 8, 1, 1),
            "sh": np.array([8, -1, 64]),
            "wi": weight(1, gates * 16, 64),
            "wr": weight(1, gates * 16, 16),
            "ax": np.array([0]),
            "wf": weight(10, 24),
            "bf": weight(10),
        },
        size=(1, 8, 8),
        left=("wi",),
    )


# -- graphs inside nodes


@case("branches that read constants", "own", "shared", "bias", "deep")
def _(kind):
    def branch(name: str, w: str) -> onnx.GraphProto:
        nodes = [node("MatMul", f"f {w}", f"{name}_t")]
        if kind == "bias":
            nodes.append(node("Add", f"{name}_t bf", f"{name}_o"))
            return body(name, nodes, f"{name}_o")
        if kind == "deep":
            inner = body(f"{name}_i", [node("Mul", f"{name}_t scale", f"{name}_u")], f"{name}_u")
            other = body(f"{name}_j", [node("Add", f"{name}_t scale", f"{name}_v")], f"{name}_v")
            nodes.append(node("If", "c", f"{name}_o", then_branch=inner, else_branch=other))
            return body(name, nodes, f"{name}_o")
        return body(name, nodes, f"{name}_t")

    wa, wb = ("wf", "wf") if kind == "shared" else ("wa", "wb")
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("Relu", "a", "r"),
            node("GlobalAveragePool", "r", "g"),
            node("Flatten", "g", "f"),
            node("ReduceMean", "x", "m", keepdims=0),
            node("Greater", "m zero", "c"),
            node("If", "c", "z", then_branch=branch("one", wa), else_branch=branch("two", wb)),
            node("Gemm", "f wf bf", "q"),
            node("Add", "z q", "y"),
        ],
        constants={
            "w": weight(8, 3, 3, 3), "b": weight(8), "zero": np.float32(0), "wf": weight(8, 10), "bf": weight(10),
            "wa": weight(8, 10, seed=5), "wb": weight(8, 10, seed=6), "scale": np.float32(1.5),
        },
        size=(3, 8, 8),
        left=() if kind == "shared" else ("wa", "wb"),
    )  # fmt: skip


@case("a branch that reads what is made around it", "a", "r", "x", "w", "b")
def _(name):
    """The tensor before an activation, behind it, the input, a weight and a bias."""
    used = {"a": "a", "r": "r", "x": "x", "w": "w", "b": "b"}[name]
    one = body("one", [node("ReduceMean", used, "u", keepdims=0)], "u")
    two = body("two", [node("ReduceMax", used, "v", keepdims=0)], "v")
    return Case(
        [
            node("Conv", "x w b", "a", pads=[1] * 4),
            node("Relu", "a", "r"),
            node("Conv", "r w2 b", "a2", pads=[1] * 4),
            node("Add", "a2 r", "s"),
            node("GlobalAveragePool", "s", "g"),
            node("Flatten", "g", "f"),
            node("ReduceMean", "x", "m", keepdims=0),
            node("Greater", "m zero", "c"),
            node("If", "c", "z", then_branch=one, else_branch=two),
            node("Gemm", "f wf z", "y", transB=1),
        ],
        constants={
            "w": weight(8, 3, 3, 3),
            "b": weight(8),
            "w2": weight(8, 8, 3, 3),
            "wf": weight(10, 8),
            "zero": np.float32(0),
        },
        size=(3, 8, 8),
    )


@case("a loop that reads what is around it", "constant", "activation", "both")
def _(kind):
    nodes = [node("Identity", "go", "go_on")]
    state = "h_in"
    if kind != "activation":
        nodes.append(node("MatMul", f"{state} wl", "hm"))
        state = "hm"
    if kind != "constant":
        nodes.append(node("Add", f"{state} f", "ha"))
        state = "ha"
    nodes.append(node("Tanh", state, "h_out"))
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("h_in", TensorProto.FLOAT, ["n", 12]),
    ]
    inner = helper.make_graph(
        nodes,
        "body",
        inputs,
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("h_out", TensorProto.FLOAT, ["n", 12])],
    )  # fmt: skip
    return Case(
        [
            node("Gemm", "x w b", "f", transB=1),
            node("Loop", "count true f", "z", body=inner),
            node("Gemm", "z wf bf", "y", transB=1),
        ],
        constants={
            "w": weight(12, 16), "b": weight(12), "wl": weight(12, 12), "wf": weight(10, 12), "bf": weight(10),
            "count": np.int64(3), "true": np.bool_(True),
        },
        left=("wl",) if kind != "activation" else (),
    )  # fmt: skip


@case("a scan that reads constants")
def _():
    inner = helper.make_graph(
        [node("Add", "s_in e", "s0"), node("MatMul", "s0 wl", "s1"), node("Tanh", "s1", "s_out"),
         node("Mul", "s_out k", "o")],
        "body",
        [helper.make_tensor_value_info("s_in", TensorProto.FLOAT, [12]),
         helper.make_tensor_value_info("e", TensorProto.FLOAT, [12])],
        [helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [12]),
         helper.make_tensor_value_info("o", TensorProto.FLOAT, [12])],
    )  # fmt: skip
    return Case(
        [
            node("Gemm", "x w b", "f", transB=1),
            node("Scan", "start f", "last all", body=inner, num_scan_inputs=1),
            node("Gemm", "all wf bf", "y", transB=1),
        ],
        constants={
            "w": weight(12, 16), "b": weight(12), "wl": weight(12, 12), "wf": weight(10, 12), "bf": weight(10),
            "start": np.zeros(12, np.float32), "k": np.float32(2),
        },
        left=("wl",),
    )  # fmt: skip


@case("a table that a branch looks up in")
def _():
    one = body("one", [node("Gather", "e id", "u")], "u")
    two = body("two", [node("Gather", "e id", "t"), node("Abs", "t", "o")], "o")
    return Case(
        [
            node("ArgMax", "x", "id", axis=1, keepdims=0),
            node("Gather", "e id", "rows"),
            node("ReduceMean", "x", "m", keepdims=0),
            node("Greater", "m zero", "c"),
            node("If", "c", "z", then_branch=one, else_branch=two),
            node("Add", "rows z", "s"),
            node("MatMul", "s v", "y"),
        ],
        constants={"e": weight(16, 600), "v": weight(600, 16), "zero": np.float32(0)},
    )


# -- names that are taken

NAMES = ["scale", "zero", "quantized", "dequantized", "smooth", "unscale", "dynamic", "dynamic_scale", "dynamic_zero",
         "sums", "floats", "step", "rows", "levels", "bias", "product", "addend", "shape"]  # fmt: skip


def taken() -> Iterator[str]:
    """Names that int8 would like for itself, of every tensor of the case below."""
    return (f"{tensor}_{end}" for tensor in ("x", "w", "w2", "v", "a", "r", "h", "e", "id", "rows") for end in NAMES)


@case("names that are taken by", "constants", "outputs of nodes", "nodes", "branches", "both levels")
def _(role):
    nodes = [
        node("Gemm", "x w b", "a", transB=1),
        node("Relu", "a", "r"),
        node("Gemm", "r w2 r", "h", transB=1),
        node("ArgMax", "x", "id", axis=1, keepdims=0),
        node("Gather", "e id", "rows"),
        node("MatMul", "rows v", "m"),
        node("Add", "m h", "s"),
    ]
    constants = {"w": weight(16, 16), "b": weight(16), "w2": weight(16, 16, seed=1), "e": weight(16, 600),
                 "v": weight(600, 16), "zero": np.float32(0), "half": np.float32(0.5)}  # fmt: skip
    last = "s"
    extra = []
    for i, name in enumerate(taken()):
        if role == "constants":
            constants[name] = np.float32(1 + i / 1e6)
            extra.append(node("Mul", f"{last} {name}", f"chain{i}"))
            last = f"chain{i}"
        elif role == "outputs of nodes":
            extra.append(node("Neg", last, name))
            last = name
        elif role == "nodes":
            extra.append(helper.make_node("Neg", [last], [f"chain{i}"], name=name))
            last = f"chain{i}"
    if role in ("branches", "both levels"):
        inside, at = [], "s"
        for name in taken():
            inside.append(node("Neg", at, name))
            at = name
        one = body("one", [*inside, node("Mul", f"{at} half", "u")], "u")
        two = body("two", [node("Mul", "s half", "u2")], "u2")
        extra = [
            node("ReduceMean", "x", "mean", keepdims=0),
            node("Greater", "mean zero", "c"),
            node("If", "c", "z", then_branch=one, else_branch=two),
        ]
        last = "z"
        if role == "both levels":
            constants |= {f"{name}_1": np.float32(1) for name in taken()}
            for i, name in enumerate(taken()):
                extra.append(node("Mul", f"{last} {name}_1", f"chain{i}"))
                last = f"chain{i}"
    return Case([*nodes, *extra, node("Identity", last, "y")], constants=constants)


@case(
    "names that are outputs",
    "x_scale",
    "x_zero",
    "x_quantized",
    "x_dequantized",
    "x_dynamic",
    "w_quantized",
    "w_scale",
    "w_dequantized",
    "r_scale",
)
def _(name):
    return Case(
        [
            node("MatMul", "x w", "a"),
            node("Relu", "a", "r"),
            node("MatMul", "r v", "y"),
            node("Tanh", "x", name),
        ],
        outputs=("y", name),
        constants={"w": weight(16, 16), "v": weight(16, 8)},
    )


# -- activations without a range, without values, that are no numbers


@case("a tensor that is always zero", "MatMul", "Gemm", "Conv", "alone")
def _(kind):
    """The int32 bias of the first layer has steps of its input's: a weight that both share must not follow it."""
    read = "x" if kind != "alone" else "z"
    if kind == "Conv":
        nodes = [node("Conv", "z w b", "a"), node("Conv", "x w b", "c")]
        constants = {"w": weight(6, 6, 3), "b": weight(6)}
    elif kind == "MatMul":
        nodes = [node("MatMul", "z w", "p"), node("Add", "p b", "a"), node("MatMul", "x w", "c")]
        constants = {"w": weight(16, 16), "b": weight(16)}
    else:
        nodes = [node("Gemm", "z w b", "a", transB=1), node("Gemm", f"{read} w b", "c", transB=1)]
        constants = {"w": weight(16, 16), "b": weight(16)}
    return Case(
        [node("Sub", "x x", "z"), *nodes, node("Relu", "c", "r"), node("Add", "a r", "y")],
        constants=constants,
        size=(6, 12) if kind == "Conv" else (16,),
    )


@case("channels that are zero keep their bias", "one", "all")
def _(kind):
    """Of them there is nothing but the bias, which has as many steps as of any other."""
    zeros = weight(16, 16, seed=5)
    zeros[0 if kind == "one" else slice(None)] = 0
    return Case(
        [node("Gemm", "x w b", "a", transB=1), node("Gather", "a first", "y", axis=1), node("Relu", "a", "z")],
        outputs=("y", "z"),
        constants={"w": zeros, "b": np.full(16, 0.0123, np.float32), "first": np.array(0)},
    )


@case("a mask that is a bias")
def _():
    """onnxruntime makes a Gemm of a product and the addition of a mask: minus infinity has no step."""
    mask = np.where(np.arange(16) % 3 == 1, -np.inf, 0).astype(np.float32)
    return Case(
        [
            node("Gemm", "x w mask", "a", transB=1),
            node("Softmax", "a", "y", axis=1),
            node("MatMul", "x v", "z"),
        ],
        outputs=("y", "z"),
        constants={"w": weight(16, 16), "mask": mask, "v": weight(16, 8)},
        left=("w",),
    )


@case("a mask before the softmax that is an output")
def _():
    mask = np.where(np.arange(16) % 3 == 1, -np.inf, 0).astype(np.float32)
    return Case(
        [node("MatMul", "x w", "a"), node("Tanh", "a", "t"), node("MatMul", "t v", "b"), node("Mul", "b b", "c"),
         node("Add", "c mask", "d"), node("Softmax", "d", "y", axis=1)],
        constants={"w": weight(16, 16), "mask": mask, "v": weight(16, 16, seed=2)},
    )  # fmt: skip


@case("a part without values", 0, 1)
def _(place):
    joined = "r e" if place else "e r"
    return Case(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "r"),
            node("Slice", "r zero zero one", "e"),
            node("Concat", joined, "j", axis=1),
            node("Conv", "j v", "c"),
            node("Slice", "c zero zero one", "f"),
            node("Concat", "c f", "y", axis=1),
        ],
        constants={
            "w": weight(8, 6, 3), "v": weight(4, 8, 3),
            "zero": np.array([0], np.int64), "one": np.array([1], np.int64),
        },
        size=(6, 12),
    )  # fmt: skip


@case("a layer that no value reaches")
def _():
    return Case(
        [
            node("MatMul", "x w", "a"),
            node("Slice", "a zero zero one", "e"),
            node("MatMul", "e v", "f"),
            node("MatMul", "a v", "b"),
            node("Concat", "b f", "y", axis=1),
        ],
        constants={
            "w": weight(16, 16), "v": weight(16, 8),
            "zero": np.array([0], np.int64), "one": np.array([1], np.int64),
        },
        size=(5, 16),
    )  # fmt: skip


@pytest.mark.parametrize("opset", [11, 12, 13])
def test_a_graph_of_an_opset_without_scales_by_channel_stays_in_floats_by_name(opset):
    case_ = Case(
        [node("Gather", "t i", "e"), node("MatMul", "x w", "a"), node("Add", "a e", "y")],
        constants={"w": weight(16, 16), "t": weight(64, 16), "i": np.array(3)},
        opset=opset,
    )
    model = case_.model()
    plan = int8.plan(model, Int8Config(), samples(case_, 8, seed=1))
    assert bool(plan.layers) == (opset >= 13)
    assert (f"opset {opset}" in plan.left.get("w", "")) == (opset < 13)
    for target in TARGETS.values():
        onnx.checker.check_model(int8.apply(model, plan, target), full_check=True)


@case("a slice of what is moved and is an output", 17, 21, 22)
def _(opset):
    return Case(
        [
            node("MatMul", "x w", "a"),
            node("Reshape", "a turned", "m"),
            node("Slice", "m first second axis", "s"),
            node("Exp", "s", "y"),
        ],
        outputs=("y", "m"),
        constants={
            "w": weight(8, 12), "turned": np.array([0, 3, 8]), "first": np.array([0]), "second": np.array([1]),
            "axis": np.array([1]),
        },
        size=(2, 8),
        opset=opset,
    )  # fmt: skip


@case("some axes resized", "sizes", "scales")
def _(kind):
    read = "a   sizes" if kind == "sizes" else "a  scales"
    return Case(
        [
            node("Conv", "x w", "a"),
            node("Resize", read, "r", axes=[2, 3], mode="nearest", coordinate_transformation_mode="asymmetric"),
            node("Conv", "r v", "y"),
        ],
        constants={
            "w": weight(8, 3, 3, 3), "v": weight(4, 8, 1, 1),
            "sizes": np.array([8, 12]), "scales": np.array([2, 2], np.float32),
        },
        size=(3, 6, 8),
        opset=18,
    )  # fmt: skip


@case("the places of maxima beside them", "read", "unread")
def _(kind):
    ends = [node("Cast", "i", "y1", to=TensorProto.FLOAT)] * (kind == "read")
    return Case(
        [
            node("Conv", "x w", "a"),
            node("MaxPool", "a", "m i", kernel_shape=[2], strides=[2]),
            node("Conv", "m v", "y"),
            *ends,
        ],
        outputs=("y",),
        constants={"w": weight(8, 6, 3), "v": weight(4, 8, 3)},
        size=(6, 12),
    )


# -- the checks


@pytest.fixture(scope="module")
def made() -> Callable[[str], tuple[Case, onnx.ModelProto, Int8Plan]]:
    known: dict[str, tuple[Case, onnx.ModelProto, Int8Plan]] = {}

    def plan(name: str) -> tuple[Case, onnx.ModelProto, Int8Plan]:
        if name not in known:
            case_ = CASES[name]()
            model = case_.model()
            before = model.SerializeToString()
            known[name] = case_, model, int8.plan(model, Int8Config(), samples(case_, 32, seed=1))
            assert model.SerializeToString() == before  # the input is never changed
        return known[name]

    return plan


def samples(of: Case, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    size = of.batch if isinstance(of.batch, int) else 1
    x = np.random.default_rng(seed).normal(size=(count, size, *of.size)).astype(np.float32)
    return [{"x": each} for each in x]


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray], level: str) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_every_output_is_what_the_float_graph_gives(name, target, made):
    case_, model, plan = made(name)
    encoded = int8.apply(model, plan, TARGETS[target])
    onnx.checker.check_model(encoded, full_check=True)
    wanted = [run(model, x, "ORT_DISABLE_ALL") for x in samples(case_, 8, seed=2)]
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        given = [run(encoded, x, level) for x in samples(case_, 8, seed=2)]
        for i, output in enumerate(case_.outputs):
            a, b = (np.stack([each[i] for each in every]).astype(np.float64) for every in (given, wanted))
            ratio = sqnr(a, b)
            assert ratio is None or ratio > LEAST, f"{output} {level}: {ratio:.1f} dB"


@pytest.mark.parametrize("name", CASES)
def test_what_has_no_form_is_left_by_name_and_the_rest_becomes_int8(name, made):
    case_, model, plan = made(name)
    stored = {t.name for t in model.graph.initializer}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    no_weight = {n.name or n.output[0] for n in layers if not stored & set(n.input[:2])}
    inside = {decision.layer for decision in describe_int8(plan) if decision.precision} - set(plan.layers)
    assert (set(plan.left) - no_weight) | inside == set(case_.left)
    assert all(plan.left.values())
    assert plan.layers or case_.left
    assert not set(plan.layers) & set(plan.left)
    for target in TARGETS.values():
        encoded = int8.apply(model, plan, target)
        stored = {t.name: t for t in encoded.graph.initializer}
        floats = {t.name: t for t in model.graph.initializer}
        for weight_ in (w for w in plan.left if w in floats):
            assert stored[weight_] == floats[weight_]
        assert plan.bodies or any(t.data_type == TensorProto.INT8 for t in stored.values())


@pytest.mark.parametrize("name", CASES)
def test_a_plan_without_a_layer_is_what_leaves_it_in_float(name, made):
    case_, model, plan = made(name)
    for layer in set(plan.layers):
        less = int8.exclude(plan, [layer])
        for target in (TARGETS["cpu"], TARGETS["tensorrt-rtx"]):
            encoded = int8.apply(model, less, target)
            onnx.checker.check_model(encoded)
            x = samples(case_, 1, seed=2)[0]
            for given, wanted in zip(run(encoded, x, "ORT_ENABLE_ALL"), run(model, x, "ORT_DISABLE_ALL"), strict=True):
                assert sqnr(given, wanted) > LEAST - 6


# -- what runs on integers, and with which numbers


def test_outputs_that_are_left_out_do_not_tie_nodes_together():
    """Of a pool the second output may be named "": of two such, only the one behind a planned layer moves integers."""
    model = Case(
        [
            node("Conv", "x w", "a"),
            helper.make_node("MaxPool", ["a"], ["p", ""], kernel_shape=[2, 2]),
            node("Conv", "x v", "b"),
            helper.make_node("MaxPool", ["b"], ["q", ""], kernel_shape=[2, 2]),
            node("Concat", "p q", "y", axis=1),
        ],
        constants={"w": weight(4, 3, 1, 1), "v": weight(4, 3, 1, 1, seed=1)},
        size=(3, 4, 4),
    ).model()
    nodes = {n.output[0]: n for n in model.graph.node}
    for names in (("a", "p", "b", "q", "y"), ("q", "p", "b", "a", "y")):
        decides = Integers(GraphIndex(model), {"w"}, ("Concat",))
        assert {name for name in names if decides(nodes[name])} == {"a", "p"}


@pytest.mark.parametrize("moves", [0, 1, 2000])
@pytest.mark.parametrize("last", ["GRU", "Conv", "both"])
def test_what_only_recurrent_layers_read_is_known_through_any_number_of_moves(moves, last):
    chain = [node("Flatten", f"m{i} ", f"m{i + 1}") for i in range(moves)]
    ends = [helper.make_node("GRU", [f"m{moves}", "w", "r"], ["g"])] * (last != "Conv")
    ends += [helper.make_node("Conv", [f"m{moves}", "v"], ["c"])] * (last != "GRU")
    graph = helper.make_graph([node("Relu", "x", "m0"), *chain, *ends], "g", [], [])
    decides = Integers(GraphIndex(helper.make_model(graph)), {"v"}, ())
    recurrent = last == "GRU"
    assert {decides.recurs(f"m{i}") for i in range(moves + 1)} == {recurrent}
    assert not any(decides.recurs(name) for name in ("x", "g", "c", ""))


@pytest.mark.parametrize("size", ["Shape", "Size"])
def test_who_asks_for_the_size_of_an_output_reads_no_values_of_it(size):
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "y"), node(size, "y", "s")]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    assert Integers(GraphIndex(helper.make_model(graph)), {"w"}, ()).recurs("y")


def encoding(activations: str, *, symmetric: bool = False) -> Int8Encoding:
    return Int8Encoding(activations=activations, symmetric=symmetric, int32_bias=False, fuses_add=False)


RANGE = Range(low=-1.0, high=3.0, magnitude=3.0)


@pytest.mark.parametrize(
    ("range_", "written", "scale", "zero"),
    [
        (RANGE, encoding("int8", symmetric=True), 3 / 127, np.int8(0)),
        (RANGE, encoding("uint8"), 4 / 255, np.uint8(64)),
        (RANGE, encoding("int8"), 4 / 255, np.int8(-64)),
        (Range(low=0.0, high=2.0, magnitude=2.0), encoding("uint8"), 2 / 255, np.uint8(0)),
        (Range(low=-2.0, high=0.0, magnitude=2.0), encoding("uint8"), 2 / 255, np.uint8(255)),
        (Range(low=0.0, high=0.0, magnitude=0.0), encoding("int8", symmetric=True), 1e-12 / 127, np.int8(0)),
        (Range(low=0.0, high=0.0, magnitude=0.0), encoding("uint8"), 1e-12 / 255, np.uint8(0)),
    ],
)
def test_scale_and_zero_point_of_a_range(range_, written, scale, zero):
    found = activation_parameters(range_, written)
    assert found == (pytest.approx(scale), zero)
    assert found[1].dtype == zero.dtype


BOTH = [node("Transpose", "f", "t", perm=[0, 2, 1]), node("Reshape", "t same", "g")]
MOVED = {
    "one": [node("Transpose", "f", "g", perm=[0, 2, 1])],
    "two": BOTH,
    "three": [
        node("Unsqueeze", "f first", "u"),
        node("Squeeze", "u first", "s"),
        node("Transpose", "s", "g", perm=[0, 2, 1]),
    ],
    "two, and one is read beside": [*BOTH, node("Neg", "t", "z")],
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("others", ["output", "reader"])
@pytest.mark.parametrize("moved", MOVED)
def test_floats_that_are_read_as_they_are_are_not_rounded_for_being_moved_before_a_layer(moved, others, target):
    """onnxruntime takes Q/DQ nodes back over moves, to whoever made what is moved."""
    nodes, outputs = [node("Tanh", "x", "f"), *MOVED[moved], node("MatMul", "g w", "y")], ["y"]
    if others == "reader":
        nodes.append(node("Abs", "f", "a"))
    outputs += ["f" if others == "output" else "a", *(["z"] if "beside" in moved else [])]
    constants = {"w": weight(6, 10), "same": np.array([0, 4, 6]), "first": np.array([0])}
    case_ = Case(nodes, tuple(outputs), constants, size=(6, 4))
    model = case_.model()
    encoded = int8.apply(model, int8.plan(model, Int8Config(), samples(case_, 16, seed=1)), TARGETS[target])
    (feed,) = samples(case_, 1, seed=2)
    wanted, given = run(model, feed, "ORT_DISABLE_ALL"), run(encoded, feed, "ORT_ENABLE_ALL")
    assert len(wanted) == len(outputs)
    for exact, other in zip(wanted[1:], given[1:], strict=True):
        assert np.allclose(exact, other, rtol=0, atol=1e-6)
    assert sqnr(given[0], wanted[0]) > LEAST
