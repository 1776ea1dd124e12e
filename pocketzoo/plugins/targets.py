"""The targets (runtimes and devices) that ship with pocketzoo, by their vendors' documentation.

Sources: NVIDIA's support matrices, "DLA Supported Layers and Restrictions" and "Working with DLA" of TensorRT 10 and 11
(docs.nvidia.com/deeplearning/tensorrt); "Supported ONNX Operators & Functions on Orin DLA" (NVIDIA's repository
Deep-Learning-Accelerator-SW); onnxruntime's pages on its execution providers. What TensorRT-RTX refuses was asked of
its parser, operator by operator, and a test asks again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pocketzoo.core.former_names import names_before
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.tensorrt.facts import DlaSpec, NvidiaFacts
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import Fp8Encoding, Int8Encoding, KernelCosts, TargetSpec

# onnxruntime's x86 and Arm kernels run fastest on uint8 activations with int32 biases. Its SkipLayerNormalization takes
# longer than the addition and the layer norm apart: benchmarks/int8.py.
ONNXRUNTIME = Int8Encoding(
    activations="uint8",
    symmetric=False,
    int32_bias=True,
    fuses_add=False,
    dynamic=True,
    splits_norm=True,
    operators=(
        "Add", "AveragePool", "Concat", "GlobalAveragePool", "HardSigmoid", "LeakyRelu", "Mul", "Resize", "Sigmoid",
        "Slice", "Split",
    ),
)  # fmt: skip
# NVIDIA's parsers refuse an int32 DequantizeLinear, its kernels take symmetric activations only, and its fusion of
# convolution and addition wants the other summand quantized, not what lies between the two.
NVIDIA = Int8Encoding(activations="int8", symmetric=True, int32_bias=False, fuses_add=True, required=True)
# OpenVINO takes zero points as they are, and wants biases in floats.
OPENVINO = Int8Encoding(activations="uint8", symmetric=False, int32_bias=False, fuses_add=False)
# TensorRT's release notes: fp8 convolutions came with 10.2, none are optimized for groups, and on Ada and Blackwell's
# desktop GPUs none take more than 32 values of a filter; "Working with Quantized Types" of TensorRT-RTX: products of
# matrices from Ada (8.9) on. Model Optimizer, NVIDIA's own quantizer, leaves out what loses time: convolutions of up to
# 16 channels and products of less than 16. Scales for each channel came with 10.6 (Hopper) and 10.7 (Ada), for products
# alone; one a tensor is what every kernel has.
NVIDIA_FP8 = Fp8Encoding(conv_channels=17, matmul_channels=16, kernel=32)

STATIC = "compress for this target, which needs calibrated (static) ranges"
OUTSIDE = "do it before or after the graph"
ON_THE_HOST = "cut the graph before it, at what it reads, and select on the host"
SEQUENCES = "give the graph tensors, not sequences or optional values"
FLOATS = "use float tensors, or move it out of the graph"

REFUSED_BY_NVIDIA = {
    **dict.fromkeys(("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"), STATIC),
    **dict.fromkeys(
        (
            "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
            "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
            "SplitToSequence",
        ),
        SEQUENCES,
    ),
    **dict.fromkeys(("BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"), FLOATS),
    **dict.fromkeys(
        (
            "AffineGrid", "Bernoulli", "CenterCropPad", "Col2Im", "CumProd", "DFT", "DeformConv", "Det",
            "ImageDecoder", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss",
            "RegexFullMatch", "SoftmaxCrossEntropyLoss", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU",
            "TfIdfVectorizer",
        ),
        OUTSIDE,
    ),
    **dict.fromkeys(("Compress", "Unique"), ON_THE_HOST),
}  # fmt: skip
# What TensorRT-RTX's parser says that it knows, and lacks the plugin for (NonZero, RoiAlign), or its builder kernels.
# Version 1.7 was asked to build each, and a test asks again.
NOT_IN_RTX = {**dict.fromkeys(("NonMaxSuppression", "NonZero"), ON_THE_HOST), "RoiAlign": OUTSIDE}
# Of opsets 23 and 24, which TensorRT 10 does not read.
NOT_IN_TENSORRT_10 = dict.fromkeys(
    ("Attention", "RMSNormalization", "RotaryEmbedding", "Swish", "TensorScatter"), "export with opset 20"
)
SYNCHRONIZES = "its output size depends on the data, so the GPU has to wait; do it after the graph"
SLOW_ON_GPUS = {
    **dict.fromkeys(("NonZero", "NonMaxSuppression", "RoiAlign"), SYNCHRONIZES),
    **dict.fromkeys(("If", "Loop", "Scan"), "control flow splits the engine; export the model without the branch"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), "runs its steps one after another, each too small for a GPU"),
}
SLOW_ON_CUDA = {
    **SLOW_ON_GPUS,
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear"),
        "onnxruntime's CUDA kernels compute in float between Q/DQ nodes; use fp16, or a TensorRT target for int8",
    ),
}
# Sums over many values overflow 65,504, and what is small vanishes below 6e-8.
NEEDS_RANGE = (
    "BatchNormalization", "CumSum", "Exp", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization",
    "Log", "LogSoftmax", "LpNormalization", "LpPool", "MeanVarianceNormalization", "Pow", "RMSNormalization",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Softmax", "Softplus", "Sqrt",
)  # fmt: skip
ORIN_DLA = DlaSpec(
    cores=2,
    operators=(
        "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv",
        "ConvTranspose", "Equal", "Gemm", "LRN", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Relu",
        "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh", "Transpose", "Upsample",
    ),
    kernel=32,
    stride=8,
    window=8,
    window_stride=16,
    channels=8192,
    size=8192,
    batch=4096,
)  # fmt: skip


# What NVIDIA's engines have in common. Sparse kernels and int8 tiles want multiples of 16.
TENSORRT = TargetSpec(
    name="tensorrt",
    summary="NVIDIA TensorRT, 10 or 11 as installed",
    int8=NVIDIA,
    fp8=NVIDIA_FP8,
    channel_multiple=16,
    newest_opset=22,
    refuses={**REFUSED_BY_NVIDIA, **NOT_IN_TENSORRT_10},
    slow=SLOW_ON_GPUS,
    precisions=("fp32", "bf16", "fp16", "fp8", "int8"),
    keeps_fp32=NEEDS_RANGE,
    sparse=True,
    device="gpu",
    backend="tensorrt",
    facts=NvidiaFacts(versions=(10, 11)),
)
TENSORRT_11 = replace(
    TENSORRT,
    name="tensorrt-11",
    summary="NVIDIA TensorRT 11",
    newest_opset=0,
    refuses=REFUSED_BY_NVIDIA,
    facts=NvidiaFacts(versions=(11,)),
)


@hookimpl
def pocketzoo_targets() -> list[TargetSpec]:
    return [
        TargetSpec(
            name="cpu",
            summary="onnxruntime on x86 or Arm",
            int8=ONNXRUNTIME,
            # Off it depthwise kernels in int8 take 2.5 times as long: of 14 x 14 pixels 464, 472, 480 channels by 3 x 3
            # 24, 62, 24 us, and 656, 664, 672 by 5 x 5 70, 189, 76 us; float ones and other layers have no such steps.
            int8_depthwise_multiple=16,
            # Of EfficientNet-Lite0's kernels, AVX-512 VNNI: 2.7 ps a multiply-accumulate (672 channels, 14 x 14),
            # 20 ps a depthwise one (5 x 5 at 14 x 14), 44 ps a value (16 to 96 channels, 112 x 112).
            int8_costs=KernelCosts(depthwise=7.5, value=16.0),
            domains=("", "ai.onnx.ml", "com.microsoft"),
            precisions=("fp32", "int8"),
            backend="onnxruntime",
            facts=OnnxruntimeFacts(provider="CPUExecutionProvider"),
            timed_here=True,
        ),
        TargetSpec(
            name="cuda",
            summary="onnxruntime on an NVIDIA GPU",
            int8=replace(NVIDIA, required=False),  # it computes in float between all Q/DQ nodes, and refuses none
            domains=("", "ai.onnx.ml", "com.microsoft"),
            slow=SLOW_ON_CUDA,
            precisions=("fp32", "bf16", "fp16"),
            keeps_fp32=NEEDS_RANGE,
            device="gpu",
            backend="onnxruntime",
            facts=OnnxruntimeFacts(provider="CUDAExecutionProvider"),
        ),
        TargetSpec(
            name="openvino",
            summary="onnxruntime's OpenVINO provider on Intel CPUs",
            int8=OPENVINO,
            newest_opset=22,
            precisions=("fp32", "fp16", "int8"),
            keeps_fp32=NEEDS_RANGE,
            backend="onnxruntime",
            facts=OnnxruntimeFacts(provider="OpenVINOExecutionProvider", triton_accelerators=("openvino",)),
            timed_here=True,
        ),
        TENSORRT,
        replace(TENSORRT, name="tensorrt-10", summary="NVIDIA TensorRT 10", facts=NvidiaFacts(versions=(10,))),
        TENSORRT_11,
        replace(
            TENSORRT_11,
            name="tensorrt-rtx",
            summary="NVIDIA TensorRT for RTX; builds engines without a GPU",
            refuses={**REFUSED_BY_NVIDIA, **NOT_IN_RTX},
            slow={op: why for op, why in SLOW_ON_GPUS.items() if op not in NOT_IN_RTX},
            lacks_kernels={"bf16": ("ConvTranspose",)},
            backend="tensorrt-rtx",
            facts=NvidiaFacts(module="tensorrt_rtx"),
        ),
        # JetPack 6 has TensorRT 10.3. DLA left after 10.7, and is back in 11.4 for JetPack 7.2 alone.
        replace(
            TENSORRT,
            name="jetson-orin",
            summary="Jetson Orin with JetPack 6: TensorRT 10, and two DLA cores",
            newest_opset=20,
            precisions=("fp32", "bf16", "fp16", "int8"),
            fp8=None,
            facts=NvidiaFacts(versions=(10,), machine="aarch64", capability="8.7", dla=ORIN_DLA),
        ),
        replace(
            TENSORRT,
            name="jetson-thor",
            summary="Jetson Thor with JetPack 7: TensorRT 10 or 11, fp8, no DLA",
            facts=NvidiaFacts(versions=(10, 11), machine="aarch64", capability="11.0"),
        ),
    ]


if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
