"""Report which optional packages, back ends and GPUs work here, and how to install the rest."""

from __future__ import annotations

import platform
from importlib.util import find_spec

from pocketzoo.core.errors import in_a_line
from pocketzoo.core.optional import version_of_first
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.backends.open_backend import Backends, Way, backends, install, is_installed, version_of, why_not
from pocketzoo.zoo.catalog.backend import BackendSpec, Check
from pocketzoo.zoo.catalog.registry import Registry, default_registry

# module, distributions that may bring it, extra, what it is for
_PACKAGES = (
    ("torch", ("torch",), "compress", "fit and compress"),
    ("onnx", ("onnx",), "compress", "compress"),
    ("onnxscript", ("onnxscript",), "compress", "export to ONNX"),
    ("safetensors", ("safetensors",), "compress", "weights"),
    ("PIL", ("pillow",), "data", "read images"),
    ("tokenizers", ("tokenizers",), "text", "tokenize text"),
    ("transformers", ("transformers",), "transformers", "models of transformers"),
    ("timm", ("timm",), "timm", "models of timm"),
    ("sklearn", ("scikit-learn",), "demo", "the data set digits"),
)


@survives_exit
def doctor(registry: Registry | None = None) -> list[Check]:
    """Check this environment: packages, and each back end with its runtimes.

    Everything is started where possible, so that "works" means it was tried. A back end that fails is a line of its
    own, with the reason.
    """
    checks = [Check("python", True, platform.python_version())]
    for module, distributions, extra, purpose in _PACKAGES:
        checks.append(_package(module, distributions, extra, purpose))
    known = backends(registry or default_registry())
    for spec in known.specs.values():
        checks.append(_backend(spec, known))
        checks += _examined(spec)
    for name, why in known.left_out.items():
        checks.append(Check(f"back end {name}", False, why, "rename its runtime, or uninstall one of the two"))
    return checks


def _package(module: str, distributions: tuple[str, ...], extra: str, purpose: str) -> Check:
    if find_spec(module) is None:
        return Check(module, False, f"not installed (for: {purpose})", f"pip install 'pocketzoo[{extra}]'")
    said = version_of_first(*distributions) or "unknown version"
    return Check(module, True, f"{said} (for: {purpose})")


def _backend(spec: BackendSpec, known: Backends) -> Check:
    """Whether a back end can do anything here, and by which runtimes."""
    name = f"back end {spec.name}"
    if not is_installed(spec):
        return Check(name, False, f"not installed (for: {spec.summary})", install(spec))
    reasons = {runtime.name: why_not(Way(spec, runtime)) for runtime in spec.ways}
    runs = [each for each, (why, _) in reasons.items() if not why]
    lacks = list(dict.fromkeys(why for why, _ in reasons.values() if why))
    does = [f"runs {', '.join(runs)}"] * bool(runs) + ["builds"] * spec.builds
    if not does or (lacks and not runs and not spec.builds):
        fix = next((fix for why, fix in reasons.values() if why and fix), "") or "see docs/deploy.md"
        return Check(name, False, "; ".join(lacks), fix)
    failed = next(((why, fix) for why, fix in reasons.values() if why and fix), None)
    if failed and not runs:  # it does not even open
        return Check(name, False, *failed)
    said = version_of(spec) or "unknown version"
    return Check(name, True, "; ".join([f"{said}: {', '.join(does)}", *lacks]))


def _examined(spec: BackendSpec) -> list[Check]:
    """What a back end finds by itself."""
    if spec.examine is None:
        return []
    try:
        return list(spec.examine())
    except (Exception, SystemExit) as error:  # a plugin's code may fail in any way
        return [Check(f"back end {spec.name}", False, in_a_line(error), install(spec))]
