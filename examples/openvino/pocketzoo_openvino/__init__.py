"""OpenVINO as a back end of pocketzoo, and the target that it is on a CPU; declared without importing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pocketzoo.api import (
    Backend,
    BackendSpec,
    Check,
    Int8Encoding,
    RuntimeSpec,
    TargetSpec,
    TritonModel,
    hookimpl,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoFacts:
    """What OpenVINO has to know of a target."""

    device: str = "CPU"  # OpenVINO's own name: "CPU", "GPU", "NPU"


def _open() -> Backend:
    from pocketzoo_openvino.backend import OpenVinoBackend

    return OpenVinoBackend()


def _examine() -> Iterable[Check]:
    from pocketzoo_openvino.backend import examine

    return examine()


def _triton(target: TargetSpec) -> TritonModel:
    return TritonModel(backend="openvino", file="model.xml")


@hookimpl
def pocketzoo_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="openvino",
            summary="OpenVINO's own format, an .xml with its .bin",
            open=_open,
            package="openvino",
            module="openvino",
            runtimes=(RuntimeSpec(name="openvino", target="openvino-cpu"),),
            suffix=".xml",
            target="openvino-cpu",
            facts=OpenVinoFacts,
            build_options=("shapes",),
            examine=_examine,
            triton=_triton,
        )
    ]


# OpenVINO's devices are called CPU, GPU and NPU: this is the first of them, without onnxruntime in between, which is
# the target "openvino" of pocketzoo itself. Its x86 kernels multiply unsigned activations, with their zero points, by
# signed weights, and add biases in float32: docs.openvino.ai, "Low Precision Transformations" and "Quantized models".
@hookimpl
def pocketzoo_targets() -> list[TargetSpec]:
    return [
        TargetSpec(
            name="openvino-cpu",
            summary="OpenVINO on x86 and Arm CPUs, by itself",
            backend="openvino",
            facts=OpenVinoFacts(device="CPU"),
            int8=Int8Encoding(activations="uint8", symmetric=False, int32_bias=False, fuses_add=False),
            newest_opset=22,
            precisions=("fp32", "fp16", "int8"),
        )
    ]
