from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from feeds import only

from pocketzoo.core.arrays import first
from pocketzoo.core.errors import PocketzooError, UnknownNameError, UnsupportedModelError
from pocketzoo.zoo.backends.onnxruntime.backend import provider_of, runtime_of
from pocketzoo.zoo.backends.onnxruntime.providers import PROVIDERS
from pocketzoo.zoo.backends.open_backend import backends
from pocketzoo.zoo.backends.runtimes import (
    COMPILED,
    CPU,
    TORCH,
    TORCH_CUDA,
    check_runtime,
    open_runner,
    runtimes,
    single_thread,
)
from pocketzoo.zoo.bundles.bundle import updating
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.random_samples import random_samples


def test_what_runs_here_runs_here():
    known = runtimes()
    assert known[CPU] == known[TORCH] == known[COMPILED] == ""
    assert (known[TORCH_CUDA] == "") == torch.cuda.is_available()
    for name, why in known.items():
        if not why:
            check_runtime(name)


def test_an_unknown_runtime_is_refused_with_the_nearest(refused):
    with refused(UnknownNameError, "'onnxruntme'", hint="onnxruntime"):
        check_runtime("onnxruntme")


def test_what_the_machine_lacks_is_refused_with_what_it_has(fitted, refused):
    missing = [name for name, why in runtimes().items() if why]
    if not missing:
        pytest.skip("everything runs here")
    for name in missing:
        with refused(UnknownNameError, name, runtimes()[name], hint=CPU):
            open_runner(name, fitted.graph(""), fitted.path)


def test_torch_and_onnxruntime_give_the_same(fitted):
    x = first(random_samples(fitted.manifest.input, 3))
    out = []
    for name in (CPU, TORCH):
        with open_runner(name, fitted.graph(""), fitted.path, threads=1) as runner:
            out.append(only(runner, x))
            given = np.empty_like(out[-1])
            assert only(runner, x, given) is given
            assert np.allclose(given, out[-1], atol=1e-5)
    assert out[0].shape == out[1].shape == (3, fitted.manifest.model.outputs)
    assert np.allclose(*out, rtol=1e-3, atol=1e-4)


def test_torch_has_its_threads_again_afterwards(fitted):
    before = torch.get_num_threads()
    with open_runner(TORCH, fitted.graph(""), fitted.path, threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_graph_from_elsewhere_has_no_module(fitted, tmp_path, refused):
    from pocketzoo.zoo.models.import_onnx import open_graph

    opened = open_graph(fitted.graph(""))
    with refused(UnsupportedModelError, "no module"):
        open_runner(TORCH, opened.graph(""), opened.path)


def test_a_runtime_runs_modules_or_what_is_made_of_graphs(registry):
    known = backends(registry).ways
    assert {name for name, way in known.items() if way.backend.form == "module"} == {TORCH, COMPILED, TORCH_CUDA}
    assert {name for name, way in known.items() if way.backend.builds} == {"tensorrt", "tensorrt-rtx"}
    assert {name for name in known if single_thread(name, registry)} == {CPU, TORCH, COMPILED}


def test_what_is_built_to_run_is_built_for_a_target_of_its_back_end(registry):
    for way in backends(registry).ways.values():
        if way.backend.builds:
            assert registry.get("target", way.runtime.target).backend == way.backend.name


@pytest.mark.parametrize("there", [["cpu"], ["cpu", "cuda"], ["cpu", "tensorrt", "openvino"]])
def test_a_provider_runs_where_this_onnxruntime_has_it(there, monkeypatch, registry):
    monkeypatch.setattr("pocketzoo.zoo.backends.onnxruntime.backend.installed_providers", lambda: there)
    known = runtimes(registry)
    for name in ("cuda", "tensorrt", "openvino"):
        wanted = "" if name in there else f"this onnxruntime has no {name} provider"
        assert known[f"{CPU}-{name}"] == wanted
    assert f"{CPU}-cpu" not in known


def test_every_provider_that_is_known_is_a_runtime_under_its_names(registry):
    ways = {way.runtime.name: way.runtime for way in backends(registry).ways.values()}
    for short, (full, _) in PROVIDERS.items():
        assert ways[runtime_of(short)].aliases == (short, full)
        assert provider_of(runtime_of(short)) == short


def test_what_a_module_is_built_from_is_looked_up_where_the_caller_says(fitted, fitted_copy, registry):
    """A backbone that only the given registry knows."""
    own = ModuleType("own_backbones")
    own.pocketzoo_backbones = hookimpl(lambda: [replace(registry.get("backbone", "tinynet"), name="own-net")])
    with updating(fitted_copy) as draft:
        draft.manifest = replace(draft.manifest, model=replace(draft.manifest.model, backbone="own-net"))
    x = random_samples(fitted.manifest.input, 2)
    with (
        open_runner(TORCH, fitted.graph(""), fitted.path) as ours,
        open_runner(
            TORCH, fitted.graph(""), fitted_copy.path, registry=Registry(create_manager(extra=[own]))
        ) as theirs,
    ):
        assert np.array_equal(first(ours.infer(x)), first(theirs.infer(x)))
    with pytest.raises(PocketzooError, match="own-net"):
        open_runner(TORCH, fitted.graph(""), fitted_copy.path)
