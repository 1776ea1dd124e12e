"""The back ends that ship with pocketzoo."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.onnxruntime.facts import former_facts as former_onnxruntime
from pocketzoo.zoo.backends.tensorrt.facts import NvidiaFacts
from pocketzoo.zoo.backends.tensorrt.facts import former_facts as former_nvidia
from pocketzoo.zoo.catalog.backend import Backend, BackendSpec, Check, GraphTimer, RuntimeSpec, TritonModel
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import TargetSpec

# Each provider of onnxruntime is a runtime: the name, what ``provider`` calls it, and the target that it is.
PROVIDERS = (
    RuntimeSpec(name="onnxruntime", aliases=("cpu", "CPUExecutionProvider"), target="cpu", single_thread=True),
    RuntimeSpec(name="onnxruntime-cuda", aliases=("cuda", "CUDAExecutionProvider"), target="cuda"),
    RuntimeSpec(name="onnxruntime-tensorrt", aliases=("tensorrt", "TensorrtExecutionProvider")),
    RuntimeSpec(name="onnxruntime-openvino", aliases=("openvino", "OpenVINOExecutionProvider"), target="openvino"),
)
# What NVIDIA's builders are asked for, besides the graph.
NVIDIA_OPTIONS = (
    "shapes", "usual", "others", "version_compatible", "hardware_compatible", "stripped", "dla", "workspace",
)  # fmt: skip


def _onnxruntime() -> Backend:
    from pocketzoo.zoo.backends.onnxruntime.backend import OnnxruntimeBackend

    return OnnxruntimeBackend()


def _examine_providers() -> Iterable[Check]:
    from pocketzoo.zoo.backends.onnxruntime.backend import examine_providers

    return examine_providers()


def _graphs_in_triton(target: TargetSpec) -> TritonModel:
    from pocketzoo.zoo.backends.onnxruntime.backend import triton_model

    return triton_model(target)


def _times_on_cpus(target: TargetSpec) -> GraphTimer | None:
    from pocketzoo.measure.layer_times import timer_of

    return timer_of(target)


def _torch() -> Backend:
    from pocketzoo.zoo.backends.torch.backend import TorchBackend

    return TorchBackend()


def _nvidia(module: str) -> Backend:
    from pocketzoo.zoo.backends.tensorrt.backend import NvidiaBackend

    return NvidiaBackend(module)


def _built_here(sha256: str) -> bool:
    from pocketzoo.zoo.backends.tensorrt.backend import built_here

    return built_here(sha256)


def _engines_in_triton(target: TargetSpec) -> TritonModel:
    from pocketzoo.zoo.backends.tensorrt.backend import triton_model

    return triton_model(target)


def _examine_rtx() -> Iterable[Check]:
    from pocketzoo.zoo.backends.tensorrt.backend import examine_builder

    return examine_builder("tensorrt_rtx", "tensorrt-rtx")


def _examine_gpu() -> Iterable[Check]:
    from pocketzoo.zoo.backends.tensorrt.backend import examine_gpu

    return examine_gpu()


@hookimpl
def pocketzoo_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="onnxruntime",
            summary="onnxruntime: graphs as they are, on CPUs or by its other providers",
            open=_onnxruntime,
            package="pocketzoo[edge]",
            module="onnxruntime",
            distributions=("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
            runtimes=PROVIDERS,
            target="cpu",
            facts=OnnxruntimeFacts,
            examine=_examine_providers,
            triton=_graphs_in_triton,
            timer=_times_on_cpus,
            former_facts=former_onnxruntime,
        ),
        BackendSpec(
            name="tensorrt",
            summary="TensorRT engine, built on the GPU it will run on",
            open=partial(_nvidia, "tensorrt"),
            package="pocketzoo[tensorrt]",
            module="tensorrt",
            distributions=("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
            runtimes=(RuntimeSpec(name="tensorrt", target="tensorrt"),),
            suffix=".engine",
            loads_graphs=False,
            target="tensorrt",
            facts=NvidiaFacts,
            build_options=NVIDIA_OPTIONS,
            built_here=_built_here,
            examine=_examine_gpu,
            triton=_engines_in_triton,
            former_facts=former_nvidia("tensorrt"),
        ),
        BackendSpec(
            name="tensorrt-rtx",
            summary="TensorRT-RTX engine, built on any machine",
            open=partial(_nvidia, "tensorrt_rtx"),
            package="pocketzoo[tensorrt-rtx]",
            module="tensorrt_rtx",
            distributions=("tensorrt-rtx-cu13", "tensorrt-rtx"),
            runtimes=(RuntimeSpec(name="tensorrt-rtx", target="tensorrt-rtx"),),
            suffix=".engine",
            loads_graphs=False,
            target="tensorrt-rtx",
            facts=NvidiaFacts,
            build_options=NVIDIA_OPTIONS,
            built_here=_built_here,
            examine=_examine_rtx,
            triton=_engines_in_triton,
            former_facts=former_nvidia("tensorrt_rtx"),
        ),
        BackendSpec(
            name="torch",
            summary="torch: the module of a bundle, eagerly, compiled, or on a GPU",
            open=_torch,
            package="pocketzoo[compress]",
            module="torch",
            distributions=("torch",),
            runtimes=(
                RuntimeSpec(name="torch", single_thread=True, automatic=False),
                RuntimeSpec(name="torch-compile", single_thread=True, automatic=False),
                RuntimeSpec(name="torch-cuda", automatic=False),
            ),
            form="module",
            takes_registry=True,
            loads_graphs=False,
        ),
    ]
