from __future__ import annotations

import numpy as np
import pytest
import torch
from feeds import only

from pocketzoo.core.arrays import first
from pocketzoo.core.errors import UnknownNameError, UnsupportedModelError
from pocketzoo.zoo.backends.runtimes import (
    COMPILED,
    CPU,
    ENGINES,
    TORCH,
    TORCH_CUDA,
    check_runtime,
    module_of,
    on_modules,
    open_runner,
    runtimes,
)
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


@pytest.mark.parametrize(
    ("name", "modules", "imported"),
    [
        (CPU, False, "onnxruntime"),
        ("onnxruntime-cuda", False, "onnxruntime"),
        ("tensorrt-rtx", False, "tensorrt_rtx"),
        (TORCH, True, "pocketzoo.zoo.backends.torch_runner"),
    ],
)
def test_a_runtime_runs_modules_or_what_is_made_of_graphs(name, modules, imported):
    assert on_modules(name) is modules
    assert module_of(name) == imported


def test_every_runtime_with_engines_is_called_as_its_target(registry):
    for name, module in ENGINES.items():
        assert registry.get("target", name).engine == module


@pytest.mark.parametrize("there", [["cpu"], ["cpu", "cuda"], ["cpu", "tensorrt", "openvino"]])
def test_a_provider_runs_where_this_onnxruntime_has_it(there, monkeypatch):
    monkeypatch.setattr("pocketzoo.zoo.backends.runtimes.installed_providers", lambda: there)
    known = runtimes()
    for name in ("cuda", "tensorrt", "openvino"):
        wanted = "" if name in there else f"this onnxruntime has no {name} provider"
        assert known[f"{CPU}-{name}"] == wanted
    assert f"{CPU}-cpu" not in known
