"""A plugin with a back end of its own: numpy that runs a few operators of ONNX from a form that it writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.api import (
    BackendSpec,
    BundleError,
    Check,
    DataError,
    ExportError,
    Int8Encoding,
    ModelSignature,
    RuntimeSpec,
    Support,
    TargetFinding,
    TargetSpec,
    TensorSpec,
    hookimpl,
)

SUFFIX, WEIGHTS = ".beads", ".npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbacusFacts:
    rods: int = 13


def windows(x, shape, strides, pads):
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    return np.lib.stride_tricks.sliding_window_view(x, tuple(shape), (2, 3))[:, :, :: strides[0], :: strides[1]]


def conv(x, w, b=None, *, strides=(1, 1), pads=(0, 0, 0, 0), group=1, **_):
    assert group == 1
    out = np.einsum("nchwij,ocij->nohw", windows(x, w.shape[2:], strides, pads), w, optimize=True)
    return out if b is None else out + b[:, None, None]


def gemm(a, b, c=0.0, *, transA=0, transB=0, alpha=1.0, beta=1.0):
    return alpha * ((a.T if transA else a) @ (b.T if transB else b)) + beta * c


def average_pool(x, *, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), **_):
    assert not any(pads)
    return windows(x, kernel_shape, strides, pads).mean((4, 5), dtype=np.float32)


def along(values, x, axis):
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]) if values.size > 1 else values


def quantize(x, scale, zero, *, axis=1, **_):
    scaled = np.rint(x / along(scale, x, axis)) + along(zero, x, axis).astype(np.float32)
    limits = np.iinfo(zero.dtype)
    return scaled.clip(limits.min, limits.max).astype(zero.dtype)


def dequantize(x, scale, zero=0, *, axis=1, **_):
    zero = np.asarray(zero)
    return ((x.astype(np.int32) - along(zero, x, axis).astype(np.int32)) * along(scale, x, axis)).astype(np.float32)


OPERATORS = {
    "Add": lambda a, b: a + b,
    "AveragePool": average_pool,
    "Conv": conv,
    "DequantizeLinear": dequantize,
    "Flatten": lambda x, axis=1: x.reshape(len(x), -1),
    "Gemm": gemm,
    "MatMul": lambda a, b: a @ b,
    "QuantizeLinear": quantize,
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": lambda x, shape, allowzero=0: x.reshape(shape),
}


class AbacusRunner:
    def __init__(self, model: Path) -> None:
        try:
            facts = json.loads(model.read_text("utf8"))
            with np.load(model.with_suffix(WEIGHTS)) as arrays:
                self.weights = {name: arrays[str(i)] for i, name in enumerate(facts["weights"])}
        except (OSError, ValueError) as error:
            raise BundleError(f"abacus does not read {model.name}: {error}", "export it again") from error
        self.nodes = facts["nodes"]
        sides = [
            tuple(TensorSpec(name=n, shape=tuple(dims), dtype="float32") for n, dims in facts[side])
            for side in ("inputs", "outputs")
        ]
        self.signature = ModelSignature(inputs=sides[0], outputs=sides[1])

    def infer(self, inputs, out=None) -> dict[str, np.ndarray]:
        for tensor in self.signature.inputs:
            if tensor.name not in inputs or inputs[tensor.name].ndim != len(tensor.shape):
                raise DataError(f"{tensor.name!r} is missing or of another shape", f"give {tensor.shape}")
        values: dict[str, Any] = {**self.weights, **inputs}
        for operator, takes, gives, attributes in self.nodes:
            values[gives] = OPERATORS[operator](*(values[name] for name in takes), **attributes)
        outputs = {tensor.name: values[tensor.name] for tensor in self.signature.outputs}
        for name, array in (out or {}).items():
            np.copyto(array, outputs[name])
        return outputs

    def close(self) -> None:
        self.weights = {}

    def __enter__(self) -> AbacusRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Abacus:
    def why_not(self, runtime):
        return ""

    def support(self, target, precision=""):
        assert isinstance(target.facts, AbacusFacts)
        return Support(builds=True, runs=True)

    def check(self, model, target, *, options):
        if model.suffix == SUFFIX:
            AbacusRunner(model).close()
            return "loaded by abacus", ()
        import onnx

        odd: dict[str, list[str]] = {}
        for node in onnx.load(model).graph.node:
            if node.op_type not in OPERATORS:
                odd.setdefault(node.op_type, []).append(node.name or node.output[0])
        return "asked abacus", [
            TargetFinding(level="refused", what=f"abacus has no {operator}", todo="use fewer", nodes=tuple(nodes))
            for operator, nodes in odd.items()
        ]

    def build(self, graph, out, target, *, options, progress):
        import onnx
        from onnx import numpy_helper

        if refused := self.check(graph, target, options=options)[1]:
            raise ExportError(refused[0].what, refused[0].todo)
        model = onnx.load(graph).graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
        progress.say(f"sliding {len(weights)} beads on {target.facts.rods} rods")

        def sides(values):
            dims = [(v.name, v.type.tensor_type.shape.dim) for v in values if v.name not in weights]
            return [(name, [d.dim_param or d.dim_value for d in shape]) for name, shape in dims]

        facts = {
            "weights": list(weights),
            "inputs": sides(model.input),
            "outputs": sides(model.output),
            "nodes": [
                [
                    n.op_type,
                    list(n.input),
                    n.output[0],
                    {a.name: plain(a) for a in n.attribute},
                ]
                for n in model.node
            ],
        }
        np.savez(out.with_suffix(WEIGHTS), **{str(i): array for i, array in enumerate(weights.values())})
        out.write_text(json.dumps(facts), "utf8")

    def load(self, model, *, runtime, target=None, threads=0):
        return AbacusRunner(model)


def plain(attribute):
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else list(value) if hasattr(value, "__len__") else value


SPEC = BackendSpec(
    name="abacus",
    summary="numpy, one operator after the other",
    open=Abacus,
    package="numpy",
    module="numpy",
    runtimes=(RuntimeSpec(name="abacus", aliases=("beads",), target="abacus", single_thread=True),),
    suffix=SUFFIX,
    loads_graphs=False,
    target="abacus",
    facts=AbacusFacts,
    examine=lambda: [Check("rods", True, "13")],
)


@hookimpl
def pocketzoo_backends():
    return [SPEC]


@hookimpl
def pocketzoo_targets():
    return [
        TargetSpec(
            name="abacus",
            summary="whatever runs numpy",
            backend="abacus",
            facts=AbacusFacts(rods=17),
            int8=Int8Encoding(activations="uint8", symmetric=False, int32_bias=False, fuses_add=False),
            precisions=("fp32", "int8"),
        )
    ]
