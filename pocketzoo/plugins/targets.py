"""The runtimes pocketzoo encodes for."""

from __future__ import annotations

from pocketzoo.plugins.hookspecs import hookimpl
from pocketzoo.zoo.specs import Int8Encoding, TargetSpec

# onnxruntime's x86 and Arm kernels run fastest on uint8 activations with int32 biases.
ONNXRUNTIME = Int8Encoding(activations="uint8", symmetric=False, int32_bias=True, fuses_add=False, dynamic=True)
# NVIDIA's parsers refuse an int32 DequantizeLinear, its kernels take symmetric activations only, and its fusion of
# convolution and addition wants the other summand quantised, not what lies between the two.
NVIDIA = Int8Encoding(activations="int8", symmetric=True, int32_bias=False, fuses_add=True)


@hookimpl
def pocketzoo_targets() -> list[TargetSpec]:
    return [
        TargetSpec(name="cpu", summary="onnxruntime on x86 or Arm", int8=ONNXRUNTIME, channel_multiple=8),
        TargetSpec(
            name="tensorrt",
            summary="NVIDIA TensorRT 10 and 11",
            int8=NVIDIA,
            channel_multiple=16,
            engine="tensorrt",
        ),
        TargetSpec(
            name="tensorrt-rtx",
            summary="NVIDIA TensorRT for RTX; builds engines without a GPU",
            int8=NVIDIA,
            channel_multiple=16,
            engine="tensorrt_rtx",
        ),
    ]
