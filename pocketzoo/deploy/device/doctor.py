"""Report which optional packages, runtimes and GPUs work here, and how to install the rest."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pocketzoo.core.errors import message_of
from pocketzoo.zoo.backends.onnxruntime.providers import available


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the examination."""

    name: str
    works: bool
    detail: str  # version, or what is wrong
    fix: str = ""  # what to type for what does not work


# module, distributions that may bring it, extra, what it is for
_PACKAGES = (
    ("torch", ("torch",), "compress", "fit and compress"),
    ("onnx", ("onnx",), "compress", "compress"),
    ("onnxscript", ("onnxscript",), "compress", "export to ONNX"),
    ("safetensors", ("safetensors",), "compress", "weights"),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "edge", "run graphs"),
    ("PIL", ("pillow",), "data", "read images"),
    ("tokenizers", ("tokenizers",), "text", "tokenize text"),
    ("transformers", ("transformers",), "transformers", "models of transformers"),
    ("timm", ("timm",), "timm", "models of timm"),
    ("sklearn", ("scikit-learn",), "demo", "the data set digits"),
    ("tensorrt_rtx", ("tensorrt-rtx-cu13", "tensorrt-rtx"), "tensorrt-rtx", "engines, with or without a GPU"),
    ("tensorrt", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "tensorrt", "engines, on the GPU they run on"),
)


def doctor() -> list[Check]:
    """Check this environment. Everything is started where possible, so that "works" means it was tried."""
    checks = [Check("python", True, platform.python_version())]
    for module, distributions, extra, purpose in _PACKAGES:
        checks.append(_package(module, distributions, extra, purpose))
    checks.append(_runtime())
    checks.append(_builder("tensorrt_rtx", "tensorrt-rtx"))
    checks.append(_gpu())
    return checks


def _package(module: str, distributions: tuple[str, ...], extra: str, purpose: str) -> Check:
    if find_spec(module) is None:
        return Check(module, False, f"not installed (for: {purpose})", f"pip install 'pocketzoo[{extra}]'")
    for name in distributions:
        try:
            return Check(module, True, f"{version(name)} (for: {purpose})")
        except PackageNotFoundError:
            continue
    return Check(module, True, f"unknown version (for: {purpose})")


def _runtime() -> Check:
    if find_spec("onnxruntime") is None:
        return Check("onnxruntime providers", False, "onnxruntime is missing", "pip install 'pocketzoo[edge]'")
    return Check("onnxruntime providers", True, ", ".join(available()))


def _builder(module: str, extra: str) -> Check:
    name = f"{module} builder"
    if find_spec(module) is None:
        return Check(name, False, f"{module} is missing", f"pip install 'pocketzoo[{extra}]'")
    try:
        trt = __import__(module)
        works = trt.Builder(trt.Logger(trt.Logger.ERROR)) is not None
    except Exception as error:  # a broken native library fails in its own ways; that is what is reported
        return Check(
            name,
            False,
            f"{type(error).__name__}: {message_of(error)}",
            f"pip install --force-reinstall 'pocketzoo[{extra}]'",
        )
    return Check(name, works, "starts" if works else "does not start", "" if works else "check the driver: nvidia-smi")


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    fix = "install NVIDIA's driver; engines for RTX can be built without, and run elsewhere"
    if tool is None:
        return Check("NVIDIA GPU", False, "no driver (nvidia-smi is missing)", fix)
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return Check("NVIDIA GPU", False, done.stdout.strip() or "none found", fix)
    return Check("NVIDIA GPU", True, "; ".join(done.stdout.strip().splitlines()))
