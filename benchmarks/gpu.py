"""Models on an NVIDIA GPU: torch, torch.compile, onnxruntime, TensorRT; fp32, fp16, fp8, int8, 2:4; and the roofline.

Usage: python benchmarks/gpu.py [--models tinynet,mlp] [--batch 1,32,256] [--seconds 0.3] [--out FILE]
A model is tinynet, mlp (wide), a registered backbone with a pretrained head, or the folder of a bundle. Needs torch
with CUDA; what else is installed runs too, what is not is listed with its reason. Outputs are checked against torch in
fp32 on the CPU before anything is timed. Times are of CUDA events around replays of a CUDA graph, and for "eager" and
onnxruntime around launches one by one. Writes benchmarks/results/gpu.json.
--short FOLDER: engines of real files instead (gpu_short.py).
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import record
from gpu_roofline import render

if TYPE_CHECKING:
    import torch

# SQNR in dB that an output has at the least; below, the row is wrong and is not timed.
LEAST = {"fp32": 70.0, "tf32": 40.0, "bf16": 25.0, "fp16": 40.0, "fp8": 12.0, "int8": 12.0, "fp16 2:4": 40.0}
SIDE = 8192  # of the square matrices that the peak is measured with
COPY = 1 << 30  # bytes
ROUNDS = 20
PACKAGES = ("triton", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu13")
TENSORRTS = ("tensorrt", "tensorrt_rtx")
Run = Callable[[], Any]


def main() -> None:
    options = _arguments()
    try:
        import torch
    except ImportError:
        _refuse("torch is not installed", "pip install torch, the build for CUDA")
    if not torch.cuda.is_available():
        _refuse(f"torch {torch.__version__} sees no CUDA device", "run this on a machine with an NVIDIA GPU")
    torch.backends.cudnn.benchmark = True
    with torch.no_grad():
        result: dict[str, Any] = {"gpu": _gpu(), "roofline": _roofline(options.seconds), "models": {}}
        if options.short:
            from gpu_short import short

            result["models"] = short(options.short, min(options.seconds, 0.3))
        batches = [int(each) for each in options.batch.split(",")]
        for name in options.models.split(",") if not options.short else ():
            result["models"][Path(name).name] = _model(name, batches, options.seconds)
    print(render(result))
    if options.out:
        machine = record.machine()
        machine["commit"] = options.commit or machine["commit"]
        options.out.write_text(json.dumps({"machine": machine, **result}, indent=2) + "\n")
    else:
        record.write("gpu_short" if options.short else "gpu", result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tinynet,mlp", help="names and folders of bundles, with commas between")
    parser.add_argument("--short", type=Path, metavar="FOLDER", help="real files of unpacked wheels, in six minutes")
    parser.add_argument("--batch", default="1,32,256", help="batch sizes")
    parser.add_argument("--seconds", type=float, default=0.3, help="to time each row for")
    parser.add_argument("--out", type=Path, help="write the result here instead")
    parser.add_argument("--commit", default="", help="what --out says was measured, where this is not a git checkout")
    return parser.parse_args()


def _refuse(what: str, hint: str) -> None:
    print(f"error: {what}\nhint:  {hint}", file=sys.stderr)
    raise SystemExit(1)


def _gpu() -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    except OSError:
        driver = []
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for package in PACKAGES:
        if found := record._version(package):
            versions[package] = found
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "memory": facts.total_memory,
        "multiprocessors": facts.multi_processor_count,
        "driver, clock, power": driver[0] if driver else "",
        "versions": versions,
    }


# -- time


def _timed(run: Run, seconds: float) -> dict[str, float]:
    """Median, first and third quartile of the milliseconds of a run, by CUDA events, in ``ROUNDS`` rounds."""
    import torch

    stream = torch.cuda.current_stream()

    def elapsed(count: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record(stream)
        for _ in range(count):
            run()
        end.record(stream)
        end.synchronize()
        return begin.elapsed_time(end) / count

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    count = max(1, min(10_000, round(seconds * 1e3 / ROUNDS / max(elapsed(5), 1e-4))))
    elapsed(count)  # at the clock it then keeps
    low, middle, high = quantiles([elapsed(count) for _ in range(ROUNDS)], n=4)
    return {"ms": middle, "low": low, "high": high}


def _replayed(run: Run) -> Run:
    """``run`` captured as a CUDA graph: replaying it launches all kernels at once."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _roofline(seconds: float) -> dict[str, Any]:
    """Operations a second of a large matrix product in each precision, and bytes a second of a copy."""
    import torch

    def rate(run: Run, side: int) -> float:
        return 2 * side**3 / (_timed(run, seconds)["ms"] / 1e3)

    found: dict[str, float] = {}
    for precision, kind in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16),
                            ("fp16", torch.float16)):  # fmt: skip
        side = SIDE // 2 if precision == "fp32" else SIDE
        _allow_tf32(precision == "tf32")
        a, b = (torch.randn(side, side, device="cuda").to(kind) for _ in range(2))
        found[precision] = rate(lambda a=a, b=b: torch.mm(a, b), side)
    _allow_tf32(False)
    a, b = (torch.randint(-100, 100, (SIDE, SIDE), dtype=torch.int8, device="cuda") for _ in range(2))
    products = {"fp8": _fp8_product(), "int8": lambda: torch._int_mm(a, b.t()), "fp16 2:4": _sparse_product()}
    for precision, product in products.items():
        try:
            found[precision] = rate(product, SIDE)
        except Exception as error:  # no kernels for it in this build, or on this GPU
            print(f"no peak for {precision}: {_reason(error)}", file=sys.stderr)
    source = torch.empty(COPY, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = _timed(lambda: target.copy_(source), seconds)["ms"] / 1e3
    return {"operations_per_s": found, "bytes_per_s": 2 * COPY / copied}  # each byte is read and written


def _fp8_product() -> Run:
    """From compute capability 8.9 on; one scale per matrix."""
    import torch

    kept: list[Any] = []

    def product() -> Any:
        if not kept:
            one = torch.ones((), device="cuda")
            a, b = (torch.randn(SIDE, SIDE, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
            kept[:] = a, b.t(), one, one
        return torch._scaled_mm(*kept, out_dtype=torch.float16)

    return product


def _sparse_product() -> Run:
    """Operations count as if it were dense, as vendors do."""
    import torch

    kept: list[Any] = []

    def product() -> Any:
        if not kept:
            dense = torch.randn(SIDE, SIDE, device="cuda").half()
            mask = torch.tensor([1, 1, 0, 0], device="cuda").half().repeat(SIDE // 4)
            kept[:] = torch.sparse.to_sparse_semi_structured(dense * mask), dense
        return torch.mm(*kept)

    return product


def _allow_tf32(allow: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allow
    torch.backends.cudnn.allow_tf32 = allow


# -- models


def _model(name: str, batches: list[int], seconds: float) -> dict[str, Any]:
    from gpu_models import Subject

    subject = Subject(name)
    rows = []
    for batch in batches:
        x = subject.batch(batch)
        for way, precision, prepare, reference in _ways(subject):
            row = {"way": way, "precision": precision, "batch": batch}
            print(f"{subject.name}, batch {batch}: {way}, {precision}", file=sys.stderr)
            try:
                rows.append({**row, **_measured(precision, prepare, reference(), x, seconds)})
            except Exception as error:  # whatever a runtime raises: it is recorded that this did not run, and why
                rows.append({**row, "why": _reason(error)})
            _allow_tf32(False)
    return {**subject.cost(), "rows": rows}


def _measured(precision: str, prepare: Any, reference: Any, x: torch.Tensor, seconds: float) -> dict[str, Any]:
    """Check the outputs, then time."""
    import torch
    from gpu_models import sqnr

    wanted = reference(x)
    _allow_tf32(precision == "tf32")
    run, read = prepare(x.cuda())
    run()
    torch.cuda.synchronize()
    decibel = sqnr(read(), wanted)
    if not decibel >= LEAST[precision]:
        raise ValueError(f"its outputs are wrong: SQNR {decibel:.1f} dB, below {LEAST[precision]:g}")
    return {"sqnr": None if decibel == float("inf") else decibel, **_timed(run, seconds)}


def _ways(subject: Any) -> list[tuple[str, str, Any, Any]]:
    """(way, precision, what makes it ready for a batch, the fp32 module it is held against)."""
    from functools import partial

    import torch
    from gpu_models import two_of_four, with_int8, with_sparse_kernels

    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    whole, sparse = (lambda: subject.module), (lambda: two_of_four(subject.module))
    in_int8 = lambda: with_int8(subject.module)  # noqa: E731
    in_sparse = lambda: with_sparse_kernels(two_of_four(subject.module).half().cuda())  # noqa: E731
    found = [("torch eager", "fp32", partial(_torch, whole, torch.float32, "eager"), whole)]
    for way in ("replayed", "compiled"):
        name = f"torch {way}"
        found += [(name, precision, partial(_torch, whole, kind, way), whole) for precision, kind in kinds.items()]
        found.append((name, "int8", partial(_torch, in_int8, torch.float16, way), whole))
    found.append(("torch replayed", "fp16 2:4", partial(_torch, in_sparse, None, "replayed"), sparse))
    for precision in ("fp32", "fp16"):
        found.append(("onnxruntime CUDA", precision, partial(_onnxruntime, subject, precision), whole))
    for package in TENSORRTS:
        for precision in ("fp32", "fp16", "fp8", "int8", "fp16 2:4"):
            held = sparse if precision == "fp16 2:4" else whole
            found.append((package, precision, partial(_tensorrt, subject, precision, package), held))
    return found


def _torch(make: Any, kind: torch.dtype | None, way: str, x: torch.Tensor) -> tuple[Run, Run]:
    """``kind``: None for what ``make`` gives on the GPU already, in fp16; packed weights are not copied or cast."""
    import torch

    module = make() if kind is None else copy.deepcopy(make()).to("cuda", kind)
    given = x.to(kind or torch.float16) if x.is_floating_point() else x
    if way == "compiled":
        module = torch.compile(module, dynamic=False)
    kept: dict[str, Any] = {}

    def run() -> None:
        kept["out"] = module(given)

    return (run if way == "eager" else _replayed(run)), lambda: kept["out"]


def _graph(subject: Any, precision: str, folder: Path, x: torch.Tensor) -> Path:
    """The module as an ONNX graph in a precision; 8 bits as quantize and dequantize, as NVIDIA's parsers take them."""
    import torch
    from gpu_models import two_of_four

    module = two_of_four(subject.module) if precision.endswith("2:4") else copy.deepcopy(subject.module)
    path, sample = folder / "model.onnx", x[:1].cpu()
    if precision.startswith("fp16"):
        module, sample = module.half(), sample.half() if sample.is_floating_point() else sample
    sample = torch.cat([sample, sample])  # a batch of one the exporter would take for a constant
    axes: tuple[Any, ...] = ({0: torch.export.Dim("batch")},)
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()):
        axes = (axes,)  # of a model of ours, which takes any number of inputs
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_shapes": axes}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of every operator set that is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how = {"dynamo": True, "opset_version": 20, "external_data": False, "verbose": False}
        torch.onnx.export(module, (sample,), path, **how, **names)
    if precision in ("fp8", "int8"):
        import onnx

        from pocketzoo.compress.configs import Int8Config
        from pocketzoo.compress.quantization import fp8, int8
        from pocketzoo.deploy.half_precision_export import half
        from pocketzoo.zoo.catalog.registry import default_registry

        graph, target, samples = onnx.load(path), default_registry().get("target", "tensorrt-rtx"), subject.batch(64)
        plan = int8.plan(graph, Int8Config(), [samples.numpy()])
        if precision == "int8":
            graph = int8.apply(graph, plan, target)
        else:
            graph, _ = fp8.apply(graph, plan, target.fp8, [samples.numpy()])
            _, graph = half(graph, target, "fp16", [samples.numpy()])
        onnx.save(graph, path)
    return path


def _onnxruntime(subject: Any, precision: str, x: torch.Tensor) -> tuple[Run, Run]:
    import onnxruntime
    import torch

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("this onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    with tempfile.TemporaryDirectory() as folder:
        path = _graph(subject, precision, Path(folder), x)
        stream = torch.cuda.current_stream().cuda_stream  # so that events see it
        cuda = ("CUDAExecutionProvider", {"user_compute_stream": str(stream), "use_tf32": "0"})
        session = onnxruntime.InferenceSession(str(path), providers=[cuda])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("onnxruntime's CUDA provider does not start")
    given = x.half() if precision == "fp16" and x.is_floating_point() else x
    given = given.contiguous()
    kinds = {torch.float32: "float32", torch.float16: "float16", torch.int64: "int64"}
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, _numpy_type(kinds[given.dtype]), list(given.shape), given.data_ptr())
    binding.bind_output("y", "cuda", 0)

    def read() -> torch.Tensor:
        return torch.from_numpy(binding.copy_outputs_to_cpu()[0])

    how = onnxruntime.RunOptions()
    how.add_run_config_entry("disable_synchronize_execution_providers", "1")  # events wait for the stream

    def run() -> None:
        assert given is not None  # held as long as it is bound
        session.run_with_iobinding(binding, how)

    return run, read


def _numpy_type(name: str) -> Any:
    import numpy as np

    return np.dtype(name).type


def _tensorrt(subject: Any, precision: str, package: str, x: torch.Tensor) -> tuple[Run, Run]:
    from importlib import import_module

    import torch

    trt = import_module(package)
    with tempfile.TemporaryDirectory() as folder:
        graph = _graph(subject, precision, Path(folder), x).read_bytes()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise RuntimeError(f"the parser refuses the graph: {parser.get_error(0).desc()}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("x", *[tuple(x.shape)] * 3)
    config.add_optimization_profile(profile)
    if precision.endswith("2:4"):
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("the builder gives no engine")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    kinds = {trt.DataType.FLOAT: torch.float32, trt.DataType.HALF: torch.float16, trt.DataType.INT64: torch.int64}
    given = x.to(kinds[engine.get_tensor_dtype("x")]).contiguous()
    context.set_input_shape("x", tuple(given.shape))
    out = torch.empty(tuple(context.get_tensor_shape("y")), dtype=kinds[engine.get_tensor_dtype("y")], device="cuda")
    context.set_tensor_address("x", given.data_ptr())
    context.set_tensor_address("y", out.data_ptr())
    held = (engine, given)  # as long as the context

    def run() -> None:
        assert held
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)

    return _replayed(run), lambda: out


def _reason(error: BaseException) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.strip()[:200]


if __name__ == "__main__":
    main()
