"""What a machine can do for a target, told from its GPU, its packages and its providers."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.util import find_spec

import pytest

from pocketzoo.core.errors import ExportError, MissingDependencyError
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.available_targets import list_targets
from pocketzoo.zoo.backends.onnxruntime.backend import OnnxruntimeBackend
from pocketzoo.zoo.backends.tensorrt.backend import NvidiaBackend
from pocketzoo.zoo.backends.tensorrt.build_machine import check_machine, lacks_fp8
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu, find_gpu

TARGETS = {t.name: t for t in pocketzoo_targets()}


def changed(name, **facts):
    """A target with other facts for its back end."""
    return replace(TARGETS[name], facts=replace(TARGETS[name].facts, **facts))


ORIN = Gpu(name="Orin", capability="8.7", memory=8 << 30, driver="12.6")


def test_every_target_is_listed_with_what_to_do(registry):
    found = list_targets(registry)
    assert [each.target.name for each in found] == sorted(TARGETS)
    for each in found:
        assert bool(each.why) == bool(each.fix) == (not each.runs)
        assert each.builds or not each.runs
        assert each.backend == each.target.backend


def test_onnxruntimes_targets_run_where_their_provider_is(monkeypatch):
    module = "pocketzoo.zoo.backends.onnxruntime.backend"
    for name in ("cpu", "cuda", "openvino"):
        target, backend = TARGETS[name], OnnxruntimeBackend()
        provider = target.facts.provider
        monkeypatch.setattr(f"{module}.available", lambda provider=provider: [provider])
        assert backend.support(target).runs
        monkeypatch.setattr(f"{module}.available", lambda: ["OtherProvider"])
        assert f"no {provider}" in backend.support(target).why
        monkeypatch.setattr(f"{module}._is_installed", lambda: False)
        assert "not installed" in backend.support(target).why
        monkeypatch.undo()


def test_a_devices_engines_are_built_on_the_device(refused):
    if platform.machine() == "aarch64":
        pytest.skip("this may be the device")
    with refused(ExportError, "built on the device (aarch64)", hint="copy the bundle there"):
        check_machine(TARGETS["jetson-orin"], None)


def test_another_gpu_than_the_devices_is_refused(refused):
    target = changed("tensorrt-rtx", capability="11.0")
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    check_machine(changed("tensorrt-rtx", capability="8.7"), ORIN)
    with refused(ExportError, "compute capability 11.0, this is Orin (compute capability 8.7)", hint="there"):
        check_machine(target, ORIN)


def test_fp8_wants_a_gpu_that_has_it():
    """Of TensorRT, whose engines are for the GPU they are built on."""
    tensorrt, ada = TARGETS["tensorrt"], replace(ORIN, capability="8.9")
    assert lacks_fp8(tensorrt, ORIN) == "fp8 needs compute capability 8.9, this is Orin (compute capability 8.7)"
    assert lacks_fp8(tensorrt, ada) == lacks_fp8(tensorrt, replace(ORIN, capability="12.0")) == ""
    assert lacks_fp8(tensorrt, None) == ""
    assert lacks_fp8(TARGETS["tensorrt-rtx"], ORIN) == lacks_fp8(TARGETS["cpu"], ORIN) == ""


@pytest.mark.engine
def test_another_version_is_refused(refused):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    target = changed("tensorrt-rtx", versions=(99,))
    with refused(ExportError, "wants tensorrt_rtx 99, installed is ", hint="tensorrt_rtx==99"):
        check_machine(target, None)
    assert not NvidiaBackend("tensorrt_rtx").support(target).builds


@pytest.mark.engine
def test_rtx_builds_without_a_gpu_and_runs_with_one(monkeypatch):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    backend = NvidiaBackend("tensorrt_rtx")
    for gpu in (None, ORIN):
        monkeypatch.setattr("pocketzoo.zoo.backends.tensorrt.backend.find_gpu", lambda gpu=gpu: gpu)
        support = backend.support(TARGETS["tensorrt-rtx"])
        assert (support.builds, support.runs) == (True, gpu is not None)


def test_a_missing_package_is_told_with_the_line_that_installs_it(refused):
    target = changed("tensorrt", module="not_a_module_at_all")
    with refused(MissingDependencyError, "'not_a_module_at_all'", hint="pip install not_a_module_at_all"):
        check_machine(target, ORIN)
    with refused(ExportError, "'cpu' has no engines", hint="--target tensorrt-rtx"):
        check_machine(TARGETS["cpu"], ORIN)


def test_the_gpu_is_what_the_driver_says():
    gpu = find_gpu()
    if gpu is None:
        pytest.skip("this machine has no GPU")
    assert gpu.name
    assert float(gpu.capability) > 5
    assert gpu.memory > 1 << 30
