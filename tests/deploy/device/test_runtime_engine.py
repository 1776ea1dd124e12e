"""Engines as one of the ways to run a bundle. Running one needs a GPU; being refused without one does not."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from feeds import only
from told import Told

import pocketzoo
from pocketzoo.core.errors import BundleError, DataError, MissingDependencyError
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.tensorrt.cuda import Cuda
from pocketzoo.zoo.backends.tensorrt.identify_gpu import find_gpu
from pocketzoo.zoo.data.processors.image_preprocessing import prepare

pytestmark = pytest.mark.engine
needs_gpu = pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU: an engine runs on nothing else")
no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU: nothing is refused")


@pytest.fixture(scope="module")
def built(fitted, tmp_path_factory):
    """``fitted`` with an engine of TensorRT-RTX in it, built here."""
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    path = shutil.copytree(fitted.path, tmp_path_factory.mktemp("built") / "bundle")
    engine = pocketzoo.export(path, to="tensorrt-rtx")
    assert engine.parent == path
    return path


@no_gpu
def test_without_a_gpu_the_driver_is_asked_for():
    with pytest.raises(MissingDependencyError) as caught:
        Cuda()
    assert "no NVIDIA GPU" in caught.value.message
    assert "--provider cpu" in caught.value.hint


@no_gpu
def test_without_a_gpu_an_engine_is_refused_and_the_graph_runs_instead(built, run, digit_files, refused):
    with refused(MissingDependencyError, "no NVIDIA GPU", hint="run the graph"):
        load_runtime(built, provider="engine")
    done = run("predict", built, digit_files[0], "--provider", "engine")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 2)
    heard = Told()
    with load_runtime(built, threads=1, progress=heard) as runtime:
        assert runtime.choice.way == "cpu"
        assert runtime.file.name == "model.onnx"
    assert any("model.onnx runs instead of an engine" in text for text in heard.said)


def test_an_engine_that_is_not_there_or_from_elsewhere_is_not_loaded(built, fitted, tmp_path, monkeypatch, refused):
    with refused(BundleError, "has no engine that was built on this machine", hint="pocketzoo export"):
        load_runtime(fitted, provider="engine")
    with refused(BundleError, "has no engine for tensorrt that", hint="--to tensorrt"):
        load_runtime(built, target="tensorrt", provider="engine")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path))  # another machine
    with refused(BundleError, "has no engine that was built on this machine"):
        load_runtime(built, provider="engine")


@needs_gpu
def test_an_engine_answers_as_the_graph_does(built, fitted, digit_files, refused):
    x = np.stack([prepare(file, fitted.manifest.input) for file in digit_files])
    with OnnxRunner(fitted.graph("")) as runner, load_runtime(built, provider="engine") as runtime:
        wanted = runner.logits(x)
    with OnnxRunner(fitted.graph("")) as runner, load_runtime(built, providers="engine") as runtime:
        wanted = only(runner, x)
        np.testing.assert_allclose(runtime.predict(x), wanted, atol=2e-2)
        out = np.empty_like(wanted)
        assert runtime.predict(x, out=out) is out
        for size in (1, 2, 3, 5, 8, 1):  # more shapes than are kept
            np.testing.assert_allclose(runtime.predict(x[:size]), wanted[:size], atol=2e-2)
        with ThreadPoolExecutor(4) as pool:
            for i, row in enumerate(pool.map(lambda i: runtime.predict(x[i % 10][None]), range(40))):
                np.testing.assert_allclose(row[0], wanted[i % 10], atol=2e-2)
        with refused(DataError, "was built for", hint="smaller batches"):
            runtime.predict(np.repeat(x, 100, axis=0))


@needs_gpu
def test_the_gpus_memory_is_given_back(built):
    cuda = Cuda()
    with load_runtime(built, provider="engine") as runtime:
        runtime.predict(np.zeros((8, 1, 28, 28), np.float32))
        held, _ = cuda.memory()
    assert cuda.memory()[0] > held
