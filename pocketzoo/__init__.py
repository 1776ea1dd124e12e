"""pocketzoo: a plugin-based model zoo and compression toolkit. Public names are resolved on first use."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; tests/test_public.py holds it equal to _PUBLIC
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec

    from pocketzoo.compress.pipeline.compress_model import compress as compress
    from pocketzoo.core.version import __version__ as __version__
    from pocketzoo.deploy.device.doctor import doctor as doctor
    from pocketzoo.deploy.device.pack import pack as pack
    from pocketzoo.deploy.device.runtime import load_runtime as load_runtime
    from pocketzoo.deploy.export import export as export
    from pocketzoo.measure.evaluate import evaluate
    from pocketzoo.measure.profile import profile as profile
    from pocketzoo.reports.report import report as report
    from pocketzoo.train.agents.double_dqn import fit_agent as fit_agent
    from pocketzoo.train.fit import fit as fit
    from pocketzoo.workflows.bench import bench as bench
    from pocketzoo.workflows.demo import demo as demo
    from pocketzoo.workflows.generate import generate as generate
    from pocketzoo.workflows.new_plugin import new_plugin as new_plugin
    from pocketzoo.workflows.play import play as play
    from pocketzoo.workflows.predict import predict as predict
    from pocketzoo.workflows.run import run as run
    from pocketzoo.zoo.artifacts.pair_encoders import pair_encoders as pair_encoders
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.bundles.signing import sign as sign
    from pocketzoo.zoo.bundles.signing import verify_signature as verify_signature
    from pocketzoo.zoo.catalog.compressor import Step as Step
    from pocketzoo.zoo.catalog.hookspecs import hookimpl as hookimpl
    from pocketzoo.zoo.catalog.registry import (
        Registry as Registry,
    )
    from pocketzoo.zoo.catalog.registry import (
        default_registry as default_registry,
    )
    from pocketzoo.zoo.catalog.registry import (
        list_plugins,
        list_specs,
    )
    from pocketzoo.zoo.data.load_data import load_data as load_data
    from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata as OnnxMetadata
    from pocketzoo.zoo.hub.store import Store as Store
    from pocketzoo.zoo.models.import_onnx import open_graph as open_graph
    from pocketzoo.zoo.models.info import info as info
    from pocketzoo.zoo.models.materials import materials as materials
    from pocketzoo.zoo.models.open_model import open_model as open_model
    from pocketzoo.zoo.models.pull import lock as lock
    from pocketzoo.zoo.models.pull import outdated as outdated
    from pocketzoo.zoo.models.pull import pull as pull
    from pocketzoo.zoo.models.pull import update as update
    from pocketzoo.zoo.models.push import push as push
    from pocketzoo.zoo.models.resolver import Resolver as Resolver
    from pocketzoo.zoo.models.search import search as search

    eval = evaluate
    list = list_specs
    open = open_model
    plugins = list_plugins
    verify = read_bundle


# Where each public name lives: importing pocketzoo itself loads nothing heavy. ``compress`` and ``plugins`` are missing
# here because they are folders as well; the folders can be called (see callable_module.py).
_PUBLIC = {
    "__version__": ("pocketzoo.core.version", "__version__"),
    "hookimpl": ("pocketzoo.zoo.catalog.hookspecs", "hookimpl"),
    "Step": ("pocketzoo.zoo.catalog.compressor", "Step"),
    "Registry": ("pocketzoo.zoo.catalog.registry", "Registry"),
    "Resolver": ("pocketzoo.zoo.models.resolver", "Resolver"),
    "default_registry": ("pocketzoo.zoo.catalog.registry", "default_registry"),
    "list": ("pocketzoo.zoo.catalog.registry", "list_specs"),
    "info": ("pocketzoo.zoo.models.info", "info"),
    "materials": ("pocketzoo.zoo.models.materials", "materials"),
    "new_plugin": ("pocketzoo.workflows.new_plugin", "new_plugin"),
    "OnnxMetadata": ("pocketzoo.zoo.graphs.foreign.metadata", "OnnxMetadata"),
    "open": ("pocketzoo.zoo.models.open_model", "open_model"),
    "open_model": ("pocketzoo.zoo.models.open_model", "open_model"),
    "open_graph": ("pocketzoo.zoo.models.import_onnx", "open_graph"),
    "pair_encoders": ("pocketzoo.zoo.artifacts.pair_encoders", "pair_encoders"),
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
__all__ = ["compress", "plugins", *_PUBLIC]  # noqa: PLE0604


if not TYPE_CHECKING:  # to whom any name would be right then

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


def __dir__() -> Iterable[str]:
    return sorted(__all__)
