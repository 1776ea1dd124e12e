from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import metadata, version
from importlib.util import find_spec

import pytest

from pocketzoo.deploy.device import doctor as module
from pocketzoo.deploy.device.doctor import Check, doctor

NAMES = ["python", "torch", "onnx", "onnxscript", "safetensors", "PIL", "tokenizers", "transformers", "timm", "sklearn",
         "back end onnxruntime", "onnxruntime providers", "onnxruntime telemetry",
         "back end tensorrt", "NVIDIA GPU", "back end tensorrt-rtx",
         "tensorrt_rtx builder", "back end torch"]  # fmt: skip


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {c.name: c for c in doctor()}


def test_everything_is_examined_in_order(checks):
    assert list(checks) == NAMES


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("torch", "torch"), ("onnx", "onnx"), ("PIL", "pillow"),
     ("sklearn", "scikit-learn"), ("safetensors", "safetensors"), ("onnxscript", "onnxscript")],
)  # fmt: skip
def test_what_is_installed_works_and_has_its_version(name, distribution, checks):
    assert checks[name].works
    assert checks[name].detail.startswith(version(distribution))
    assert "for:" in checks[name].detail
    assert checks[name].fix == ""


def test_a_back_end_says_what_it_can_do_here(checks):
    assert checks["back end onnxruntime"].detail.startswith(f"{version('onnxruntime')}: runs onnxruntime")
    assert "runs torch, torch-compile" in checks["back end torch"].detail
    if find_spec("tensorrt_rtx"):
        assert "builds" in checks["back end tensorrt-rtx"].detail


def test_python_is_this_one(checks):
    assert checks["python"] == Check("python", True, platform.python_version())


def test_what_does_not_work_has_a_fix_and_what_works_needs_none(checks):
    for check in checks.values():
        assert check.detail
        assert bool(check.fix) != check.works


def test_the_extras_of_the_fixes_exist():
    """A line to type that fails would be worse than none."""
    extras = set(metadata("pocketzoo").get_all("Provides-Extra") or ())
    assert {extra for _, _, extra, _ in module._PACKAGES} <= extras


def test_the_runtimes_providers_are_named(checks):
    assert checks["onnxruntime providers"].works
    assert "CPUExecutionProvider" in checks["onnxruntime providers"].detail


@pytest.mark.engine
def test_the_builder_was_started(checks):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    assert checks["tensorrt_rtx builder"].works
    assert checks["tensorrt_rtx builder"].detail == "starts"


def test_the_gpu_is_what_nvidia_smi_says(checks):
    gpu = checks["NVIDIA GPU"]
    if shutil.which("nvidia-smi") is None:
        assert not gpu.works
        assert "nvidia-smi" in gpu.detail
        assert "driver" in gpu.fix
    else:
        assert gpu.works == (subprocess.run(["nvidia-smi"], capture_output=True, check=False).returncode == 0)


HIDDEN = """
import sys


class Hide:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {hidden!r} else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
from pocketzoo.deploy.device.doctor import doctor

for check in doctor():
    print(check.name, check.works, check.detail, check.fix, sep="|")
"""


@pytest.mark.parametrize(
    ("hidden", "extra"),
    [
        (["torch"], "compress"),
        (["onnxruntime"], "edge"),
        (["PIL"], "data"),
        (["sklearn"], "demo"),
        (["tensorrt_rtx"], "tensorrt-rtx"),
        (["torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "PIL", "sklearn", "tensorrt_rtx"], "compress"),
    ],
)
def test_what_is_missing_is_told_with_the_line_that_installs_it(hidden, extra):
    script = HIDDEN.format(hidden=hidden)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}
    assert list(found) == [name for name in NAMES if name != "onnxruntime telemetry" or "onnxruntime" not in hidden]
    works, detail, fix = found.get(hidden[0]) or found[f"back end {hidden[0].replace('_', '-')}"]
    assert works == "False"
    assert "not installed" in detail
    assert fix == f"pip install 'pocketzoo[{extra}]'"
    if "onnxruntime" in hidden:
        assert found["onnxruntime providers"][0] == "False"
    if "tensorrt_rtx" in hidden:
        assert found["tensorrt_rtx builder"][0] == "False"


def test_examining_imports_nothing_heavy_but_what_it_starts():
    script = "import sys; from pocketzoo.deploy.device.doctor import doctor; doctor(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
