"""pocketzoo: a plugin-based model zoo and compression toolkit. Public names are resolved on first use."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    # A decorator that a type checker cannot see would make every plugin's hooks untyped.
    from pocketzoo.zoo.catalog.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"

# Where each public name lives: importing pocketzoo itself loads nothing heavy. ``compress`` and ``plugins`` are missing
# here because they are folders as well; the folders can be called (see callable_module.py).
_PUBLIC = {
    "hookimpl": ("pocketzoo.zoo.catalog.hookspecs", "hookimpl"),
    "Registry": ("pocketzoo.zoo.catalog.registry", "Registry"),
    "default_registry": ("pocketzoo.zoo.catalog.registry", "default_registry"),
    "list": ("pocketzoo.zoo.catalog.registry", "list_specs"),
    "info": ("pocketzoo.zoo.models.info", "info"),
    "materials": ("pocketzoo.zoo.models.materials", "materials"),
    "new_plugin": ("pocketzoo.workflows.new_plugin", "new_plugin"),
    "open_model": ("pocketzoo.zoo.models.open_model", "open_model"),
    "open_graph": ("pocketzoo.zoo.models.import_onnx", "open_graph"),
    "load_data": ("pocketzoo.zoo.data.load_data", "load_data"),
    "verify": ("pocketzoo.zoo.bundles.bundle", "read_bundle"),
    "sign": ("pocketzoo.zoo.bundles.signing", "sign"),
    "verify_signature": ("pocketzoo.zoo.bundles.signing", "verify_signature"),
    "search": ("pocketzoo.zoo.models.search", "search"),
    "pull": ("pocketzoo.zoo.models.pull", "pull"),
    "lock": ("pocketzoo.zoo.models.pull", "lock"),
    "update": ("pocketzoo.zoo.models.pull", "update"),
    "outdated": ("pocketzoo.zoo.models.pull", "outdated"),
    "push": ("pocketzoo.zoo.models.push", "push"),
    "Store": ("pocketzoo.zoo.hub.store", "Store"),
    "fit": ("pocketzoo.train.fit", "fit"),
    "fit_agent": ("pocketzoo.train.agents.double_dqn", "fit_agent"),
    "play": ("pocketzoo.workflows.play", "play"),
    "eval": ("pocketzoo.measure.evaluate", "evaluate"),
    "export": ("pocketzoo.deploy.export", "export"),
    "bench": ("pocketzoo.workflows.bench", "bench"),
    "profile": ("pocketzoo.measure.profile", "profile"),
    "load_runtime": ("pocketzoo.deploy.device.runtime", "load_runtime"),
    "pack": ("pocketzoo.deploy.device.pack", "pack"),
    "predict": ("pocketzoo.workflows.predict", "predict"),
    "generate": ("pocketzoo.workflows.generate", "generate"),
    "report": ("pocketzoo.reports.report", "report"),
    "doctor": ("pocketzoo.deploy.device.doctor", "doctor"),
    "run": ("pocketzoo.workflows.run", "run"),
    "demo": ("pocketzoo.workflows.demo", "demo"),
}
__all__ = ["__version__", "compress", "plugins", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in ("compress", "plugins"):
        return import_module(f"pocketzoo.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pocketzoo' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


class _MovedModules:
    """What the import system asks last: where a module of an older release is now (core/moved.py)."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith("pocketzoo."):
            return None
        from pocketzoo.core.moved import find_spec

        return find_spec(name)


sys.meta_path.append(_MovedModules)


def __dir__() -> list[str]:
    return sorted(__all__)
