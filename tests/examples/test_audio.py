"""The example package audio, as its users have it: speech of many voices, a classifier of words, and held-out voices.

espeak-ng speaks, so nothing is downloaded; voices of the test split are heard in no other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiopackage import PACKAGE, installed, plugin
from filelock import FileLock

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.load_data import load_data

WORDS = ("yes", "no", "stop", "left", "right", "seven")
# Accents with variants of the voice; each speaks at several speeds and pitches.
VOICES = {
    "train": ("en-us", "en-gb", "en-gb-scotland", "en-us+m3", "en-gb+m7", "en-us+f2", "en-gb+f4", "en-029"),
    "val": ("en-gb-x-rp+m2", "en-us+f5"),
    "test": ("en-gb-x-gbclan", "en-us-nyc+m5", "en-gb+f3", "en-029+f1"),
}
MANNERS = ((140, 40), (165, 55), (190, 70))  # words a minute, pitch
BAR = 0.9  # of right answers on the voices that were never heard: of six words chance is 0.17
needs_speech = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(create_manager(points=[], extra=[plugin()]))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """train / val / test, a folder for each word; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "speech"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            made = folder.with_name("speech-unfinished")
            for split, voices in VOICES.items():
                for word in WORDS:
                    place = made / split / word
                    place.mkdir(parents=True)
                    for voice in voices:
                        for speed, pitch in MANNERS:
                            file = place / f"{voice.replace('+', '-')}-{speed}-{pitch}.wav"
                            asked = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(file), word]
                            subprocess.run(["espeak-ng", *asked], check=True, capture_output=True)
            made.rename(folder)
    return folder


def made_once(name: str, tmp_path_factory: pytest.TempPathFactory, worker_id: str, make: Any) -> Bundle:
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return read_bundle(path)


@pytest.fixture(scope="module")
def words(speech: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Bundle:
    """The classifier, fitted."""

    def make(path: Path) -> None:
        training = {"epochs": 25, "batch_size": 32, "learning_rate": 0.003}
        pocketzoo.fit("audio-cnn", path, data=speech, training=training, registry=registry)

    return made_once("words", tmp_path_factory, worker_id, make)


@pytest.fixture(scope="module")
def small(
    words: Bundle, speech: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Bundle:
    """The same in int8."""

    def make(path: Path) -> None:
        pocketzoo.compress(
            words.path, path, data=speech, steps=[Int8Config()], samples=64, keep_slower=True, accept=True,
            registry=registry,
        )  # fmt: skip

    return made_once("words-int8", tmp_path_factory, worker_id, make)


def test_it_touches_nothing_but_the_stable_surface():
    for file in PACKAGE.rglob("*.py"):
        for line in file.read_text("utf8").splitlines():
            if line.strip().startswith(("import ", "from ")):
                package = line.split()[1]
                assert package.split(".")[0] in ("__future__", "pocketzoo_audio", "numpy", "torch", "struct", "pathlib",
                                                 "collections", "dataclasses", "functools", "math", "typing") or (
                    package == "pocketzoo.api"
                ), f"{file.name}: {line}"  # fmt: skip


def test_it_declares_a_processor_and_a_backbone(registry: Registry):
    assert registry.get("processor", "log-mel").modality == "audio"
    spec = registry.get("backbone", "audio-cnn")
    assert (spec.input.rate, spec.input.frames, spec.features.shape) == (16000, 100, ("batch", 64, 8, 13))


def test_listing_imports_nothing_heavy(tmp_path: Path):
    code = (
        "import sys; from pocketzoo.zoo.catalog.registry import list_specs;"
        "assert {e.name for e in list_specs('*', 'processor')} >= {'log-mel', 'image'};"
        "assert not {'numpy', 'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environ(tmp_path))


def environ(folder: Path) -> dict[str, str]:
    """As for a user who has installed the package."""
    path = [str(installed(folder / "site")), str(PACKAGE), str(PACKAGE.parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "POCKETZOO_PLUGINS": "audio"}


@needs_speech
def test_a_folder_of_words_is_a_data_set(speech: Path, registry: Registry):
    data = load_data(speech, registry=registry)
    assert data.labels == tuple(sorted(WORDS))
    counts = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert counts == {name: len(voices) * len(MANNERS) * len(WORDS) for name, voices in VOICES.items()}
    heard = {name: {file.name.rsplit("-", 2)[0] for file in data.split(name).samples} for name in counts}
    assert not heard["test"] & (heard["train"] | heard["val"])


@needs_speech
@pytest.mark.slow
def test_words_of_voices_that_were_never_heard_are_told_apart(words: Bundle, speech: Path, registry: Registry):
    scores = evaluate(words.path, data=speech, registry=registry)
    assert scores["samples"] == len(VOICES["test"]) * len(MANNERS) * len(WORDS)
    assert scores["accuracy"] >= BAR, scores
    described = words.manifest.processor
    assert (described.name, described.config["style"]) == ("log-mel", "whisper")


@needs_speech
@pytest.mark.slow
def test_the_compressed_one_tells_them_apart_as_well(small: Bundle, words: Bundle, speech: Path, registry: Registry):
    scores = evaluate(small.path, data=speech, target="cpu", registry=registry)
    assert scores["graph"] == small.graph("cpu").name
    assert scores["accuracy"] >= BAR - 0.05, scores
    assert small.graph("cpu").stat().st_size < 0.5 * words.graph("").stat().st_size
    assert small.manifest.processor == words.manifest.processor


@needs_speech
@pytest.mark.slow
def test_a_sound_is_predicted_from_its_file_and_by_a_runtime(small: Bundle, speech: Path, registry: Registry, tmp_path):
    file = next((speech / "test" / "seven").iterdir())
    (prediction,) = pocketzoo.predict(small.path, [file], registry=registry)
    assert prediction.file == str(file)
    top = dict(prediction.top)
    assert set(top) <= set(WORDS)
    with pocketzoo.load_runtime(small.path, registry=registry, target="cpu") as runtime:
        outputs = [runtime.predict(way) for way in (file, str(file), [file], file.read_bytes())]
        assert all(np.array_equal(outputs[0], each) for each in outputs)
        assert runtime.classify(file)[0][0][0] == max(top, key=lambda name: top[name])
    graph = pocketzoo.export(small.path, out=tmp_path / "words.onnx", registry=registry)
    assert graph.stat().st_size > 10_000
    packed = pocketzoo.pack(small.path, tmp_path / "packed", registry=registry)
    with pocketzoo.load_runtime(packed.path, registry=registry) as runtime:
        assert np.allclose(runtime.predict(file), outputs[0], atol=1e-4)


@needs_speech
@pytest.mark.slow
def test_the_commands_read_sounds(words: Bundle, speech: Path, tmp_path: Path):
    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "pocketzoo", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ(tmp_path), check=False)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "site")
        return done.stdout

    file = next((speech / "test" / "stop").iterdir())
    assert any(word in run("predict", words.path, file) for word in WORDS)
    scores = json.loads(run("eval", words.path, "--data", speech, "--json"))
    assert scores["accuracy"] >= BAR


@needs_speech
@pytest.mark.slow
def test_a_bundle_whose_plugin_is_missing_names_the_package(words: Bundle, speech: Path, tmp_path: Path):
    file = next((speech / "test" / "stop").iterdir())
    environment = {**environ(tmp_path), "POCKETZOO_PLUGINS": ""}
    command = [sys.executable, "-m", "pocketzoo", "predict", str(words.path), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr
    assert "log-mel" in done.stderr


@pytest.mark.slow
def test_it_passes_the_conformance_suite(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "pocketzoo.testing",
        "--plugin",
        "audio",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environ(tmp_path), check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
