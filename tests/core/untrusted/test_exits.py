"""``sys.exit`` in a plugin's code is a broken plugin for whoever called from Python, and the program goes on."""

from __future__ import annotations

import inspect
import sys
import types

import numpy as np
import pytest

import pocketzoo
from pocketzoo.core.errors import PluginError
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.deploy.device.runtime import Runtime
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, InputSpec

# Those that run no code of a plugin: of files, keys and the Hub alone.
RUN_NONE = {"list", "new_plugin", "verify", "sign", "verify_signature"}


def test_every_public_function_survives():
    functions = {name: getattr(pocketzoo, name) for name in pocketzoo.__all__}
    functions = {name: f for name, f in functions.items() if inspect.isfunction(f)}
    bare = {name for name, f in functions.items() if survivor.__code__ is not f.__code__}
    assert bare == RUN_NONE
    from pocketzoo.compress.pipeline.compress_model import compress

    assert all(f.__code__ is survivor.__code__ for f in (compress, Runtime.predict, Runtime.infer, Runtime.answers))


survivor = survives_exit(lambda: None)


def module_of(source: str) -> types.ModuleType:
    """Of a third party, as the trace of an error sees it."""
    module = types.ModuleType("theirs")
    exec("import sys\nfrom torch import nn\n" + source, vars(module))
    return module


ENDS = {
    "build": "def build(): sys.exit(3)",
    "forward": "class Ends(nn.Conv2d):\n    def forward(self, x): sys.exit('bye')\ndef build(): return Ends(1, 4, 1)",
    "argparse": "import argparse\ndef build(): argparse.ArgumentParser().parse_args(['--nothing'])",
}


@pytest.mark.parametrize("way", ENDS)
def test_a_plugin_that_ends_the_program(way, tmp_path, refused):
    spec = BackboneSpec(
        name="ends", summary="x", license="MIT",
        input=InputSpec(shape=("batch", 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8),
        features=FeatureSpec("map", ("batch", 4, 8, 8)), build=module_of(ENDS[way]).build,
    )  # fmt: skip

    plugin = types.ModuleType("ends")
    plugin.pocketzoo_backbones = hookimpl(lambda: [spec], specname="pocketzoo_backbones")
    registry = Registry(create_manager(points=[], extra=[plugin]))
    np.savez(tmp_path / "d.npz", x=np.zeros((20, 8, 8), np.uint8), y=np.arange(20) % 2)
    with refused(PluginError, "ended the program with", "which no plugin may", hint="pocketzoo plugins"):
        pocketzoo.fit("ends", tmp_path / "out", data=tmp_path / "d.npz", epochs=1, registry=registry)
    assert not (tmp_path / "out").exists()


def test_our_own_and_the_caller_may_exit():
    for name in ("pocketzoo.cli.main", "click.core", "__main__"):
        function = eval("lambda: sys.exit(4)", {"sys": sys, "__name__": name})
        with pytest.raises(SystemExit):
            survives_exit(function)()


def test_what_is_no_exit_passes():
    assert survives_exit(lambda x, *, y: x + y)(1, y=2) == 3
    with pytest.raises(KeyError):
        survives_exit(lambda: {}["x"])()
