"""Back ends of plugins that fail in every way: each is named in two lines, and the others go on."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import abacus
import pytest

from pocketzoo.core.errors import (
    BundleError,
    ExportError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
)
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.deploy.check.check_model import check
from pocketzoo.deploy.device.doctor import doctor
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.deploy.export import export
from pocketzoo.workflows.bench import bench
from pocketzoo.zoo.backends.available_targets import list_targets
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.open_backend import (
    backend_named,
    backend_of,
    backends,
    check_runtime,
    open_backend,
    runtimes,
    with_facts,
)
from pocketzoo.zoo.backends.tensorrt.facts import NvidiaFacts
from pocketzoo.zoo.catalog.backend import METHODS, RuntimeSpec
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Int8Encoding, TargetSpec

ENCODING = Int8Encoding(activations="uint8", symmetric=False, int32_bias=False, fuses_add=False)


def registry_of(*specs, targets=()):
    """What ships, and one plugin with these back ends and targets."""
    module = ModuleType("acme")

    @hookimpl
    def pocketzoo_backends():
        return list(specs)

    @hookimpl
    def pocketzoo_targets():
        return list(targets)

    module.pocketzoo_backends, module.pocketzoo_targets = pocketzoo_backends, pocketzoo_targets
    return Registry(create_manager(points=[], extra=[module]))


def raises(error):
    def call(*_, **__):
        raise error

    return call


def altered(**methods):
    """An abacus whose methods are others."""
    return type("Altered", (abacus.Abacus,), {name: staticmethod(method) for name, method in methods.items()})


TARGET = abacus.pocketzoo_targets()[0]


def test_a_back_end_that_does_not_open_is_named_and_the_others_go_on(refused, fitted):
    spec = replace(abacus.SPEC, open=raises(OSError("libbeads.so: cannot open shared object file")))
    registry = registry_of(spec, targets=[TARGET])
    with refused(PluginError, "the back end 'abacus' does not open: OSError: libbeads.so", hint="pocketzoo doctor"):
        open_backend(spec)
    with refused(UnknownNameError, "'abacus' does not work here: the back end 'abacus' does not open: OSError"):
        bench([fitted.path], runtimes=["abacus"], registry=registry)
    assert runtimes(registry)["onnxruntime"] == ""
    here = {each.target.name: each for each in list_targets(registry)}
    assert "does not open: OSError" in here["abacus"].why
    assert here["cpu"].runs
    checks = {each.name: each for each in doctor(registry)}
    assert not checks["back end abacus"].works
    assert "OSError: libbeads.so" in checks["back end abacus"].detail
    assert checks["back end onnxruntime"].works
    with load_runtime(fitted, threads=1, registry=registry) as runtime:
        assert runtime.choice.way == "cpu"
    with refused(PluginError, "does not open"):
        export(fitted.path, to="abacus", registry=registry, out="unused")
    with refused(PluginError, "does not open"):
        check(fitted.graph(""), "abacus", registry=registry)


def test_a_script_that_leaves_python_is_a_back_end_that_does_not_open(refused):
    with refused(PluginError, "does not open: SystemExit"):
        open_backend(replace(abacus.SPEC, open=raises(SystemExit(1))))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_missing_is_named(name, refused):
    methods = {each: getattr(abacus.Abacus, each) for each in METHODS if each != name}
    spec = replace(abacus.SPEC, open=type("Less", (), methods))
    with refused(PluginError, f"the back end 'abacus' has no method '{name}'", hint="docs/plugins.md"):
        open_backend(spec)
    assert not {each.name: each for each in doctor(registry_of(spec))}["back end abacus"].works


def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(refused):
    error = ModuleNotFoundError("No module named 'beads'", name="beads")
    spec = replace(abacus.SPEC, open=raises(error), package="acme-beads", module="beads")
    with refused(MissingDependencyError, "'abacus' needs the package 'acme-beads'", hint="pip install acme-beads"):
        open_backend(spec)
    checks = {each.name: each for each in doctor(registry_of(spec))}
    assert checks["back end abacus"].fix == "pip install acme-beads"
    with refused(
        UnknownNameError, "'abacus' does not work here", hint="pip install acme-beads; what does: onnxruntime"
    ):
        check_runtime("abacus", registry_of(spec))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("abacus", "abacus"), "it names the runtime 'abacus' twice"),
        (("abacus", "torch"), "it names the runtime 'torch', which is of the back end 'torch'"),
        (("abacus", "../x"), "its runtime cannot be called '../x'"),
    ],
)
def test_names_of_runtimes_that_cannot_be_leave_a_back_end_out(names, why, refused, fitted):
    registry = registry_of(replace(abacus.SPEC, runtimes=tuple(RuntimeSpec(name=n) for n in names)), targets=[TARGET])
    assert backends(registry).left_out["abacus"].startswith(why)
    assert "torch" in backends(registry).ways
    with refused(PluginError, "the back end 'abacus' cannot be used: it", hint="rename"):
        check_runtime("abacus", registry)
    with refused(PluginError, "cannot be used"):
        backend_named("abacus", registry)
    with refused(PluginError, "cannot be used"):
        load_runtime(fitted, provider="abacus", registry=registry)
    assert {each.name: each for each in doctor(registry)}["back end abacus"].detail.startswith(why)
    assert "cannot be used" in next(each.why for each in list_targets(registry) if each.target.name == "abacus")


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("build", lambda fitted, registry, tmp: export(fitted.path, to="abacus", out=tmp / "x", registry=registry)),
        ("check", lambda fitted, registry, tmp: check(fitted.path / "m.beads", "abacus", registry=registry)),
        ("load", lambda fitted, registry, tmp: load_runtime(fitted, provider="abacus", registry=registry)),
    ],
)
def test_a_method_that_raises_anything_is_an_error_of_its_back_end(method, call, refused, fitted, tmp_path):
    spec = replace(abacus.SPEC, open=altered(**{method: raises(ZeroDivisionError("beads"))}), loads_graphs=True)
    with refused(PluginError, "the back end 'abacus'", "ZeroDivisionError: beads", hint="pocketzoo doctor"):
        call(fitted, registry_of(spec, targets=[TARGET]), tmp_path)


def test_what_does_not_say_whether_it_works_does_not(fitted):
    spec = replace(abacus.SPEC, open=altered(why_not=raises(ValueError("beads")), support=raises(ValueError("beads"))))
    registry = registry_of(spec, targets=[TARGET])
    assert "ValueError: beads" in runtimes(registry)["abacus"]
    assert "ValueError: beads" in next(e.why for e in list_targets(registry) if e.target.name == "abacus")


def test_a_build_that_wrote_nothing_is_said(refused, fitted, tmp_path):
    registry = registry_of(replace(abacus.SPEC, open=altered(build=lambda *_, **__: None)), targets=[TARGET])
    with refused(PluginError, "the back end 'abacus' wrote no"):
        export(fitted.path, to="abacus", out=tmp_path / "x", registry=registry)


def test_a_way_that_fails_as_it_runs_is_skipped(small, small_registry):
    class Broken(abacus.Abacus):
        def load(self, *_, **__):
            raise KeyError("beads")

    import smallnet

    spec = replace(abacus.SPEC, open=Broken, loads_graphs=True)
    module = ModuleType("acme")
    module.pocketzoo_backends = hookimpl(lambda: [spec])
    module.pocketzoo_backends.__name__ = "pocketzoo_backends"
    registry = Registry(create_manager(points=[], extra=[smallnet, module]))
    with load_runtime(small, threads=1, registry=registry) as runtime:
        assert runtime.choice.way == "cpu"
        assert "KeyError" in runtime.choice.left_out["beads"]


# -- targets and their facts


def test_facts_of_another_back_end_are_refused(refused):
    wrong = replace(TARGET, facts=OnnxruntimeFacts())
    with refused(PluginError, "target 'abacus' has OnnxruntimeFacts for the back end 'abacus'", hint="correct facts="):
        backend_of(wrong, registry_of(abacus.SPEC))
    with refused(UnknownNameError, "no back end is called 'abacus'"):
        backend_of(TARGET, registry_of())


def test_a_target_without_a_back_end_is_facts_alone(fitted, tmp_path):
    target = TargetSpec(name="any", summary="whatever reads ONNX", int8=ENCODING)
    registry = registry_of(targets=[target])
    (here,) = [each for each in list_targets(registry) if each.target.name == "any"]
    assert (here.builds, here.runs, here.backend) == (True, False, "")
    assert here.why == "it names no back end"
    report = check(fitted.graph(""), "any", registry=registry)
    assert not report.refused
    assert "names no back end" in report.asked
    out = export(fitted.path, to="onnx", target="any", out=tmp_path / "any.onnx", registry=registry)
    assert out.read_bytes() == fitted.graph("").read_bytes()


@pytest.mark.parametrize(
    ("fields", "backend", "facts"),
    [
        ({"provider": "CoreMLExecutionProvider"}, "onnxruntime", OnnxruntimeFacts(provider="CoreMLExecutionProvider")),
        ({"engine": "tensorrt", "versions": (10,), "capability": "8.7"}, "tensorrt",
         NvidiaFacts(versions=(10,), capability="8.7")),
        ({"engine": "tensorrt_rtx"}, "tensorrt-rtx", NvidiaFacts(module="tensorrt_rtx")),
        ({"engine": "hexa_sdk"}, "", None),
    ],
)  # fmt: skip
def test_fields_of_the_release_before_become_facts_of_their_back_end(fields, backend, facts, registry):
    with pytest.warns(RenamedWarning):
        target = TargetSpec(name="old", summary="s", int8=ENCODING, device="gpu", **fields)
    read = with_facts(target, registry)
    assert (read.backend, read.facts) == (backend, facts)


def test_an_engine_that_no_back_end_knows_is_said(refused, fitted):
    with pytest.warns(RenamedWarning):
        target = TargetSpec(name="hexa", summary="s", int8=ENCODING, device="gpu", engine="hexa_sdk")
    registry = registry_of(targets=[target])
    (here,) = [each for each in list_targets(registry) if each.target.name == "hexa"]
    assert here.why == "no back end here knows engine 'hexa_sdk'"
    with refused(ExportError, "target 'hexa' has no engines"):
        export(fitted.path, to="tensorrt", target="hexa", registry=registry)


def test_an_unknown_runtime_is_refused_with_the_nearest(refused, registry):
    with refused(UnknownNameError, "there is no runtime 'abacuss'", hint="'abacus'"):
        check_runtime("abacuss", registry_of(abacus.SPEC))
    with refused(BundleError, "runs modules"):
        from pocketzoo.zoo.backends.runtimes import open_runner

        open_runner("torch", abacus.Path("x.onnx"), registry=registry)
