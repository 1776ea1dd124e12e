"""pocketzoo: a plugin-based model zoo and compression toolkit. Public names are resolved on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a decorator that a type checker cannot see would make every plugin's hooks untyped
    from pocketzoo.plugins.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"

# Where each public name lives: importing pocketzoo itself loads nothing heavy. ``compress`` and ``plugins`` are missing
# here because they are folders as well; the folders can be called (see callable_module.py).
_PUBLIC = {
    "hookimpl": ("pocketzoo.plugins.hookspecs", "hookimpl"),
    "Registry": ("pocketzoo.zoo.registry", "Registry"),
    "default_registry": ("pocketzoo.zoo.registry", "default_registry"),
    "list": ("pocketzoo.zoo.registry", "list_specs"),
    "info": ("pocketzoo.zoo.info", "info"),
    "materials": ("pocketzoo.zoo.materials", "materials"),
    "new_plugin": ("pocketzoo.plugins.scaffold", "new_plugin"),
    "open_model": ("pocketzoo.zoo.pretrained", "open_model"),
    "open_graph": ("pocketzoo.zoo.foreign", "open_graph"),
    "load_data": ("pocketzoo.zoo.sources", "load_data"),
    "verify": ("pocketzoo.zoo.bundle", "read_bundle"),
    "sign": ("pocketzoo.zoo.trust", "sign"),
    "verify_signature": ("pocketzoo.zoo.trust", "verify_signature"),
    "search": ("pocketzoo.zoo.search", "search"),
    "pull": ("pocketzoo.zoo.pull", "pull"),
    "lock": ("pocketzoo.zoo.pull", "lock"),
    "update": ("pocketzoo.zoo.pull", "update"),
    "outdated": ("pocketzoo.zoo.pull", "outdated"),
    "push": ("pocketzoo.zoo.push", "push"),
    "Store": ("pocketzoo.zoo.store", "Store"),
    "fit": ("pocketzoo.train.fit", "fit"),
    "fit_agent": ("pocketzoo.train.qlearning", "fit_agent"),
    "play": ("pocketzoo.deploy.play", "play"),
    "eval": ("pocketzoo.deploy.evaluate", "evaluate"),
    "export": ("pocketzoo.deploy.export", "export"),
    "bench": ("pocketzoo.deploy.bench", "bench"),
    "profile": ("pocketzoo.deploy.profile", "profile"),
    "load_runtime": ("pocketzoo.deploy.runtime", "load_runtime"),
    "pack": ("pocketzoo.deploy.pack", "pack"),
    "predict": ("pocketzoo.deploy.predict", "predict"),
    "generate": ("pocketzoo.deploy.generate", "generate"),
    "report": ("pocketzoo.deploy.report", "report"),
    "doctor": ("pocketzoo.deploy.doctor", "doctor"),
    "run": ("pocketzoo.deploy.run", "run"),
    "demo": ("pocketzoo.deploy.demo", "demo"),
}
__all__ = ["__version__", "compress", "plugins", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in ("compress", "plugins"):
        return import_module(f"pocketzoo.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pocketzoo' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
