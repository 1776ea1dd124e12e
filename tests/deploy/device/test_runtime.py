from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from feeds import only
from foreignimages import FOREIGN
from PIL import Image

import pocketzoo
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError, MissingDependencyError, UnknownNameError
from pocketzoo.deploy.device.fastest_runtime import Choice
from pocketzoo.deploy.device.runtime import Runtime, load_runtime
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import writing
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.image_preprocessing import prepare
from pocketzoo.zoo.data.processors.open_processor import describe_config


@pytest.fixture(scope="module")
def runtime(fitted):
    with load_runtime(fitted.path, threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def ready(fitted, digit_files) -> np.ndarray:
    return np.stack([prepare(file, fitted.manifest.input) for file in digit_files])


@pytest.fixture(scope="module")
def wanted(fitted, ready) -> np.ndarray:
    """What the graph gives for the digits."""
    with OnnxRunner(fitted.graph("")) as runner:
        return only(runner, ready)


def pixels(files: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in files]


# -- what it takes


@pytest.mark.parametrize(
    "given",
    [
        lambda files, x: files,
        lambda files, x: [str(file) for file in files],
        lambda files, x: tuple(files),
        lambda files, x: (file for file in files),
        lambda files, x: [Image.open(file) for file in files],
        lambda files, x: pixels(files),
        lambda files, x: np.stack(pixels(files)),
        lambda files, x: x,
        lambda files, x: list(x),
    ],
    ids=["paths", "names", "tuple", "generator", "Pillow", "list of pixels", "pixels", "array", "list of arrays"],
)
def test_every_form_of_a_batch_gives_what_the_graph_gives(given, runtime, digit_files, ready, wanted):
    np.testing.assert_allclose(runtime.predict(given(digit_files, ready)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [lambda f: f, str, Image.open, lambda f: np.asarray(Image.open(f)), lambda f: np.asarray(Image.open(f))[None]],
    ids=["path", "name", "Pillow", "pixels", "pixels with a batch axis"],
)
def test_one_image_alone_is_a_batch_of_one(given, runtime, digit_files, wanted):
    np.testing.assert_allclose(runtime.predict(given(digit_files[0])), wanted[:1], atol=1e-5)


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_an_image_that_pillow_opened_in_another_format_is_not_decoded(kind, runtime, tmp_path, refused, ghostscript):
    file = tmp_path / "x.png"
    file.write_bytes(FOREIGN[kind]())
    with Image.open(file) as opened, refused(DataError, f"cannot be {opened.format}", hint="PNG, JPEG or WebP"):
        runtime.predict(opened)
    assert not ghostscript.exists()


def test_the_answers_are_torchs(runtime, fitted, digit_files, ready, registry):
    import torch

    from pocketzoo.zoo.hub.weights import read_safetensors
    from pocketzoo.zoo.models.build import build

    module = build(fitted.manifest.model, registry).eval()
    module.load_state_dict(read_safetensors(fitted.file("model.safetensors")))
    with torch.no_grad():
        wanted = module(torch.from_numpy(ready)).numpy()
    np.testing.assert_allclose(runtime.predict(digit_files), wanted, atol=1e-4)
    top = [[int(label) for label, _ in row] for row in runtime.classify(digit_files)]
    assert top == (-wanted).argsort(-1)[:, :5].tolist()


def test_answers_are_written_where_asked(runtime, ready, wanted):
    out = np.full_like(wanted, np.nan)
    assert runtime.predict(ready, out=out) is out
    np.testing.assert_allclose(out, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((10, 9), np.float32),
        np.empty((10, 10), np.float64),
        np.empty((10, 20), np.float32)[:, ::2],
        np.empty(100, np.float32),
        np.empty((10, 10, 1), np.float32),
    ],
)
def test_a_place_for_answers_that_does_not_fit_is_refused(out, runtime, ready):
    with pytest.raises(DataError) as caught:
        runtime.predict(ready, out=out)
    assert caught.value.hint


# -- what it refuses: the message says what is wrong, the hint what is expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda x: x[0], ["(1, 28, 28)", "needs a batch axis"]),
        (lambda x: x[:, 0], ["(10, 28, 28)"]),
        (lambda x: x[:, :, :27], ["(10, 1, 27, 28)"]),
        (lambda x: x.transpose(0, 2, 3, 1), ["(10, 28, 28, 1)"]),
        (lambda x: x[:0], ["empty"]),
        (lambda x: [], ["empty"]),
        (lambda x: x.astype(np.float64), ["float64", "float32"]),
        (lambda x: x.astype(np.int64), ["int64", "float32"]),
        (lambda x: 255 * (x - x.min()) / np.ptp(x), ["from 0 to 255", "from -0.81 to 2.02"]),
        (lambda x: np.where(x == x.max(), np.nan, x), ["non-finite values"]),
        (lambda x: np.where(x == x.max(), np.inf, x).astype(np.float32), ["non-finite values"]),
        (lambda x: [x[0], x[0, :, :3]], ["different shapes"]),
        (lambda x: np.zeros((2, 3, 4, 5, 3), np.uint8), ["(2, 3, 4, 5, 3)"]),
        (lambda x: 3, ["int"]),
        (lambda x: [None], ["NoneType"]),
        (lambda x: b"image", ["bytes"]),
        (lambda x: {"x": x}, ["dict"]),
        (lambda x: [x[0], "a.png"], ["a.png"]),
        (lambda x: "there-is-none.png", ["there-is-none.png"]),
    ],
)
def test_what_cannot_be_read_is_named(given, says, runtime, ready, refused):
    with refused(DataError, *says):
        runtime.predict(given(ready))


def test_the_hint_says_what_is_expected(runtime, ready, refused):
    with refused(DataError, "'image'", hint="image files, uint8 pixels (height, width, 3), or float32 of ('batch', 1,"):
        runtime.predict(ready[0])


def test_noise_is_within_range(runtime):
    x = np.random.default_rng(0).normal(size=(64, 1, 28, 28)).astype(np.float32)
    assert runtime.predict(x).shape == (64, 10)


# -- threads, memory, targets


def test_many_threads_get_the_answers_of_one(runtime, ready, wanted):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: runtime.predict(ready[i % 10][None]), range(200)))
    for i, row in enumerate(found):
        np.testing.assert_allclose(row[0], wanted[i % 10], atol=1e-5)


def test_closing_waits_for_what_runs_and_then_refuses(fitted, ready):
    runtime = load_runtime(fitted, threads=1)
    batch, started, shapes = np.concatenate([ready] * 5), threading.Event(), []

    def ask() -> None:
        while True:
            shapes.append(runtime.predict(batch).shape)
            started.set()

    def work() -> None:
        with pytest.raises(ValueError, match="the runtime is closed"):
            ask()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    runtime.close()
    runtime.close()
    thread.join()
    assert set(shapes) == {(50, 10)}


class Held:
    """A runner of onnxruntime whose first answer waits until it is let go, and that notes what runs when it closes."""

    def __init__(self, runner: OnnxRunner) -> None:
        self.runner, self.running, self.first = runner, 0, True
        self.asked, self.let_go, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.running_at_close: list[int] = []

    @property
    def signature(self) -> ModelSignature:
        return self.runner.signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        self.running += 1
        if self.first:
            self.first = False
            self.asked.set()
            self.let_go.wait()
        try:
            return self.runner.infer(inputs, out)
        finally:
            self.running -= 1

    def close(self) -> None:
        self.running_at_close.append(self.running)
        self.runner.close()
        self.closed.set()


def until_closed(runtime: Runtime, batch: np.ndarray) -> None:
    """Ask it again and again: others are answered until it begins to close."""
    while True:
        runtime.predict(batch)


def test_closing_waits_for_an_answer_that_is_on_its_way(fitted, ready, wanted):
    runner = Held(OnnxRunner(fitted.graph(""), threads=1))
    runtime = Runtime(fitted, fitted.graph(""), runner, Choice(way="cpu"))
    with ThreadPoolExecutor(2) as pool:
        try:
            answer = pool.submit(runtime.predict, ready)
            runner.asked.wait()
            closing = pool.submit(runtime.close)
            with pytest.raises(ValueError, match="the runtime is closed"):
                until_closed(runtime, ready[:1])
            assert not runner.closed.wait(0.2)
        finally:
            runner.let_go.set()
        np.testing.assert_allclose(answer.result(), wanted, atol=1e-5)
        closing.result()
    runtime.close()
    assert runner.running_at_close == [0]


def test_an_answer_that_fails_does_not_keep_it_open(fitted, ready):
    runtime = load_runtime(fitted, threads=1)
    with pytest.raises(DataError):
        runtime.predict(ready, out=np.empty(3, np.float32))
    runtime.close()


MEMORY = """
import gc, sys
import numpy as np
from pocketzoo.deploy.device.fastest_runtime import Choice
from pocketzoo.deploy.device.runtime import Runtime, load_runtime

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

x = np.zeros((1, 64), np.float32)
with load_runtime(sys.argv[2], threads=1) as runtime:  # what the libraries keep for themselves comes first
    runtime.predict(x)
before = resident()
with load_runtime(sys.argv[1], threads=1) as runtime:
    runtime.predict(x)
    held = resident()
print(before, held, resident())
"""


def weighty(path: Path, width: int) -> Path:
    """A bundle of x W V, with ``width`` columns in W."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    parts = {"W": np.ones((64, width), np.float32), "V": np.ones((width, 2), np.float32)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("MatMul", ["h", "V"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in parts.items()],
    )
    with writing(path) as draft:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, draft.mark("model.onnx", precision="float32"))
        draft.manifest = Manifest(
            name="weighty",
            model=ModelRef(backbone="onnx:g", head="", outputs=2),
            processor=describe_config(InputSpec(shape=("batch", 64), mean=(), std=(), resize=0, name="x")),
            labels=(),
            license="MIT",
            parameters=66 * width,
            macs=66 * width,
        )
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_given_back(tmp_path):
    big, small = weighty(tmp_path / "big", 200_000), weighty(tmp_path / "small", 8)  # 53 MB of weights
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, big, small], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    before, held, after = map(float, done.stdout.split())
    assert held - before > 50
    assert after - before < 10


@pytest.mark.parametrize("target", [None, "cpu", "tensorrt-rtx", "tensorrt"])
def test_the_target_picks_the_graph(target, compressed, digit_files):
    with (
        load_runtime(compressed, target=target, threads=1) as runtime,
        OnnxRunner(compressed.graph(target or "cpu")) as runner,
    ):
        assert runtime.file == compressed.graph(target or "cpu")
        x = np.stack([prepare(file, compressed.manifest.input) for file in digit_files])
        np.testing.assert_allclose(runtime.predict(digit_files), only(runner, x), atol=1e-5)


def test_an_unknown_target_is_refused(fitted, refused):
    with refused(UnknownNameError, "'cpuu'", hint="cpu"):
        load_runtime(fitted, target="cpuu")


@pytest.mark.parametrize(("provider", "package"), [("cuda", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino")])
def test_a_provider_that_is_not_here_names_its_package_and_what_runs(provider, package, fitted, refused):
    import onnxruntime

    names = {"cuda": "CUDAExecutionProvider", "openvino": "OpenVINOExecutionProvider"}
    if names[provider] in onnxruntime.get_available_providers():
        pytest.skip(f"{provider} is here")
    with refused(MissingDependencyError, names[provider], hint=f"pip install {package}; without it runs: cpu"):
        load_runtime(fitted, provider=provider)


@pytest.mark.parametrize("providers", ["gpu", ["cpu", "cudda"], []])
def test_providers_that_do_not_exist(providers, fitted, refused):
    with refused(DataError, "provider"):
        load_runtime(fitted, provider=providers)


def test_a_damaged_bundle_does_not_answer(fitted_copy, refused):
    graph = fitted_copy.graph("")
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with refused(BundleError, "model.onnx", "sha256 differs", hint="restore"):
        load_runtime(fitted_copy.path)


def test_it_is_one_of_the_words_of_the_package(compressed, digit_files):
    with pocketzoo.load_runtime(str(compressed.path), threads=1) as runtime:
        assert [row[0][0] for row in runtime.classify(digit_files[:3], top=1)] == [
            p.top[0][0] for p in pocketzoo.predict(compressed.path, digit_files[:3])
        ]
        assert str(runtime.choice) == runtime.choice.way == "cpu"


def test_classes_are_asked_of_a_model_that_has_some(tmp_path, refused):
    with load_runtime(weighty(tmp_path / "b", 8), threads=1) as runtime:
        with refused(DataError, "weighty has no task", hint="--labels"):
            runtime.classify(np.zeros((1, 64), np.float32))
        with refused(DataError, "input 'x' is (64,)", "('batch', 64)", hint="float32"):
            runtime.predict(np.zeros(64, np.float32))
        assert runtime.predict(np.ones((3, 64), np.float32)).tolist() == [[512.0, 512.0]] * 3
