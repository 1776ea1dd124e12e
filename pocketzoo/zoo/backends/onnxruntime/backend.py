"""onnxruntime as a back end: it loads graphs as they are, on one of its execution providers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import ExportError, message_of
from pocketzoo.core.optional import require
from pocketzoo.core.telemetry import ONNXRUNTIME, onnxruntime_is_quiet
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.onnxruntime.providers import available, installed_providers, package_of
from pocketzoo.zoo.catalog.backend import Check, Support, TargetFinding, TritonModel

if TYPE_CHECKING:
    from pocketzoo.core.progress import Progress
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.catalog.specs import TargetSpec

NAME = "onnxruntime"  # its own kernels for CPUs; "onnxruntime-cuda", ... are its other providers


class OnnxruntimeBackend:
    """Its providers are its runtimes."""

    def why_not(self, runtime: str) -> str:
        if not _is_installed():
            return "onnxruntime is not installed"
        provider = provider_of(runtime)
        return "" if provider in installed_providers() else f"this onnxruntime has no {provider} provider"

    def support(self, target: TargetSpec, precision: str = "") -> Support:
        there, provider = available() if _is_installed() else [], _facts(target).provider
        if provider in there:
            return Support(builds=True, runs=True)
        package = package_of(provider) or NAME
        why = f"onnxruntime has no {provider}" if there else "onnxruntime is not installed"
        return Support(builds=True, runs=False, why=why, fix=f"pip install {package}")

    def check(self, model: Path, target: TargetSpec, *, options: EngineOptions) -> tuple[str, Sequence[TargetFinding]]:
        from pocketzoo.zoo.backends.onnxruntime.session import open_session

        require("onnxruntime", extra="compress")
        provider = _facts(target).provider
        if provider not in available():
            return f"onnxruntime has no {provider} here, so it was not asked", ()
        try:
            open_session(model, providers=[provider])
        except Exception as error:  # onnxruntime's own types
            what = f"onnxruntime: {' '.join(message_of(error).split())}"
            return "asked onnxruntime", [TargetFinding(level="refused", what=what, todo="see what it names")]
        return "asked onnxruntime", ()

    def build(self, graph: Path, out: Path, target: TargetSpec, *, options: EngineOptions, progress: Progress) -> None:
        raise ExportError("onnxruntime runs graphs as they are", "use --to onnx")

    def load(self, model: Path, *, runtime: str, target: TargetSpec | None = None, threads: int = 0) -> OnnxRunner:
        from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

        first = provider_of(runtime)
        # As onnxruntime's page on TensorRT has it: what that cannot run the same GPU does.
        more = ("cuda",) if first == "tensorrt" and "cuda" in installed_providers() else ()
        return OnnxRunner(model, threads=threads, providers=(first, *more))


def provider_of(runtime: str) -> str:
    """The short name of the provider that a runtime is: "cpu" for the one called as the package."""
    return runtime.removeprefix(f"{NAME}-") if runtime != NAME else "cpu"


def runtime_of(provider: str) -> str:
    """The runtime that a provider is, by its short name."""
    return NAME if provider == "cpu" else f"{NAME}-{provider}"


def triton_model(target: TargetSpec) -> TritonModel:
    """How the Triton server runs graphs for a target."""
    return TritonModel(backend=NAME, file="model.onnx", accelerators=_facts(target).triton_accelerators)


def examine_providers() -> list[Check]:
    """The providers that are there, by onnxruntime's names, and whether it calls home."""
    if not _is_installed():
        missing = "onnxruntime is missing"
        return [Check("onnxruntime providers", False, missing, "pip install 'pocketzoo[edge]'")]
    quiet = onnxruntime_is_quiet()
    detail = "off" if quiet else "on: it may look up a host of its maker, and keeps an id below your home folder"
    fix = "" if quiet else f"set {ONNXRUNTIME}=1, before onnxruntime is imported"
    return [
        Check("onnxruntime providers", True, ", ".join(available())),
        Check("onnxruntime telemetry", quiet, detail, fix),
    ]


def _is_installed() -> bool:
    return find_spec(NAME) is not None


def _facts(target: TargetSpec) -> OnnxruntimeFacts:
    if target.facts is None:
        return OnnxruntimeFacts()
    if not isinstance(target.facts, OnnxruntimeFacts):
        raise ExportError(
            f"the facts of target {target.name!r} are not onnxruntime's but {type(target.facts).__name__}",
            "give OnnxruntimeFacts, or name another back end",
        )
    return target.facts
