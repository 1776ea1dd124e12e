"""A plugin's back end, by its hook alone: export, check, bench, load_runtime, doctor, targets, pack and push."""

from __future__ import annotations

import json
import shutil

import abacus
import numpy as np
import pytest
import smallnet

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import BundleError, DataError, ExportError
from pocketzoo.deploy.check.check_model import check
from pocketzoo.zoo.backends.available_targets import list_targets
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.models.push import _whole
from pocketzoo.zoo.tasks.agreement import sqnr


@pytest.fixture(scope="module")
def plugins():
    return Registry(create_manager(points=[], extra=[smallnet, abacus]))


@pytest.fixture(scope="module")
def both(small, plugins, once):
    """smallnet in int8 for the CPU and the abacus, and built for the abacus."""

    def make(path):
        steps, targets = [Int8Config()], ["cpu", "abacus"]
        pocketzoo.compress(
            small.path, path, data="digits", steps=steps, targets=targets, samples=64, keep_slower=True, accept=True,
            registry=plugins,
        )  # fmt: skip
        pocketzoo.export(path, to="abacus", registry=plugins)

    return read_bundle(once("small-abacus", make))


def predicted(bundle, plugins, **choice):
    with pocketzoo.load_runtime(bundle.path, threads=1, registry=plugins, **choice) as runtime:
        return runtime.predict(random_samples(bundle.manifest.input, 16)), runtime


def test_what_it_builds_are_files_of_the_bundle_that_belong_together(both):
    entry = both.manifest.files["model.int8.abacus.beads"]
    assert (entry.target, entry.precision, entry.backend, entry.of) == ("abacus", "int8", "abacus", "")
    weights = both.manifest.files["model.int8.abacus.npz"]
    assert (weights.target, weights.backend, weights.of) == ("abacus", "abacus", "model.int8.abacus.beads")
    assert set(both.built()) == {"model.int8.abacus.beads"}


@pytest.mark.parametrize("name", ["model.int8.abacus.beads", "model.int8.abacus.npz"])
def test_each_of_its_files_is_verified(both, tmp_path, refused, name):
    path = shutil.copytree(both.path, tmp_path / "b")
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)
    with refused(BundleError, f"{name} is damaged"):
        read_bundle(path)
    manifest = json.loads((path / "pocketzoo.json").read_text("utf8"))
    del manifest["files"][name]
    (path / "pocketzoo.json").write_text(json.dumps(manifest), "utf8")
    if name.endswith(".beads"):
        with refused(BundleError, "and not model.int8.abacus.beads, which it is part of"):
            read_bundle(path)


def test_exporting_again_replaces_them(both, tmp_path, plugins):
    path = shutil.copytree(both.path, tmp_path / "b")
    again = pocketzoo.export(path, to="abacus", registry=plugins)
    assert again.name == "model.int8.abacus.beads"
    assert set(read_bundle(path).manifest.files) == set(both.manifest.files)


def test_it_answers_as_onnxruntime_does(both, small, plugins):
    wanted, _ = predicted(both, plugins, provider="cpu")
    for provider in ("abacus", "beads", "engine"):
        answers, runtime = predicted(both, plugins, provider=provider)
        assert sqnr(answers, wanted) > 40, "the same levels, but where a value lies between two of them"
        assert runtime.file.name == "model.int8.abacus.beads"
        assert runtime.choice.way == "engine for abacus"
    runtime = predicted(both, plugins)[1]
    assert set(runtime.choice.milliseconds) == {"cpu", "engine for abacus"}
    assert not runtime.choice.left_out


def test_a_bundle_without_its_form_says_how_to_build_it(small, plugins, refused):
    with refused(BundleError, "has no engine", hint="--to abacus"):
        pocketzoo.load_runtime(small.path, provider="abacus", registry=plugins)
    with refused(DataError, "there is no provider 'abacuss'", hint="'abacus'"):
        pocketzoo.load_runtime(small.path, provider="abacuss", registry=plugins)


def test_several_providers_are_tried_in_order(small, both, plugins):
    names = ["onnxruntime-cuda", "cpu"]
    assert predicted(small, plugins, provider=names)[1].choice.way == "cpu"
    assert predicted(both, plugins, provider=["abacus", "cpu"])[1].choice.way == "engine for abacus"


def test_it_is_measured_alongside_the_others(small, both, plugins):
    rows = pocketzoo.bench(
        [small.path, both.path], data="digits", runtimes=["onnxruntime", "abacus"], batch_sizes=[2], seconds=0,
        registry=plugins,
    )  # fmt: skip
    kinds = {(row.runtime, row.target, row.precision): row for row in rows}
    assert set(kinds) == {
        ("onnxruntime", "", "float32"), ("onnxruntime", "cpu", "int8"), ("onnxruntime", "abacus", "int8"),
        ("abacus", "", "float32"), ("abacus", "abacus", "int8"),
    }  # fmt: skip
    exact = kinds["abacus", "", "float32"]
    assert exact.agreement == 1
    assert exact.sqnr > 100
    assert exact.memory is not None
    assert exact.bytes > 20_000, "the weights lie in the second file"


def test_memory_is_left_out_where_no_other_process_finds_the_plugin(small, monkeypatch):
    from types import ModuleType

    hidden = ModuleType("a_module_that_no_file_has")
    hidden.pocketzoo_backends, hidden.pocketzoo_targets = abacus.pocketzoo_backends, abacus.pocketzoo_targets
    registry = Registry(create_manager(points=[], extra=[smallnet, hidden]))
    (row,) = pocketzoo.bench([small.path], runtimes=["abacus"], batch_sizes=[1], seconds=0, registry=registry)
    assert row.memory is None


def test_it_says_by_operator_what_it_refuses(both, plugins, tmp_path, refused):
    import onnx
    from onnx import helper

    assert check(both.path, "abacus", registry=plugins).findings == ()
    assert check(both.path / "model.int8.abacus.beads", "abacus", registry=plugins).asked == "loaded by abacus"
    with refused(ExportError, "target 'cpu' has no engines"):
        check(both.path / "model.int8.abacus.beads", "cpu", registry=plugins)
    value = [helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in "xy"]
    nodes = [helper.make_node("Own", ["x"], ["a"], "odd", domain="own"), helper.make_node("Sin", ["a"], ["y"], "sine")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:]), opset_imports=opsets, ir_version=10),
        tmp_path / "m.onnx",
    )
    report = check(tmp_path / "m.onnx", "abacus", registry=plugins)
    assert report.asked == "asked abacus"
    assert [(f.what, f.nodes) for f in report.findings if f.level == "refused"] == [
        ("abacus does not know own.Own", ("odd",)),  # which a rule foresaw
        ("abacus has no Sin", ("sine",)),
    ]


def test_it_is_listed_and_examined(plugins):
    here = {each.target.name: each for each in list_targets(plugins)}
    assert (here["abacus"].backend, here["abacus"].builds, here["abacus"].runs) == ("abacus", True, True)
    checks = {each.name: each for each in pocketzoo.doctor(plugins)}
    assert checks["back end abacus"].works
    assert "runs abacus, builds" in checks["back end abacus"].detail
    assert checks["rods"].works


def test_an_option_that_it_does_not_build_by_is_refused(small, plugins, refused, tmp_path):
    with refused(ExportError, "--to abacus has no option 'workspace' to build by", hint="leave out --workspace"):
        pocketzoo.export(small.path, to="abacus", engine=EngineOptions(workspace=8), registry=plugins)
    with refused(ExportError, "Triton does not run what abacus builds"):
        pocketzoo.export(small.path, to="triton", target="abacus", out=tmp_path / "r", registry=plugins)


def test_a_target_of_another_back_end_is_refused(small, plugins, refused):
    with refused(ExportError, "--to tensorrt-rtx does not build for 'abacus'", hint="use --to abacus"):
        pocketzoo.export(small.path, to="tensorrt-rtx", target="abacus", registry=plugins)
    with refused(ExportError, "target 'cpu' has no engines", hint="try --target abacus"):
        pocketzoo.export(small.path, to="abacus", target="cpu", registry=plugins)


def test_it_is_written_outside_a_bundle_under_any_name(small, plugins, tmp_path):
    out = pocketzoo.export(small.path, to="abacus", out=tmp_path / "device.beads", registry=plugins)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.beads", "device.npz"]
    with abacus.AbacusRunner(out) as runner:
        assert runner.infer(random_samples(small.manifest.input, 2))["logits"].shape == (2, 10)


def test_what_is_built_is_neither_packed_nor_uploaded(both, plugins, tmp_path):
    packed = pocketzoo.pack(both.path, tmp_path / "device", target="abacus", registry=plugins)
    assert not packed.built()
    (tmp_path / "up").mkdir()
    _whole(both, both.manifest, tmp_path / "up")
    assert {path.name for path in (tmp_path / "up").iterdir()} == {
        *(name for name in both.manifest.files if ".beads" not in name and ".npz" not in name),
        "pocketzoo.json",
    }


def test_a_device_without_the_plugin_runs_the_graph(both, small_registry):
    with pocketzoo.load_runtime(both.path, threads=1, registry=small_registry) as runtime:
        assert runtime.choice.way == "cpu"
        assert np.isfinite(runtime.predict(random_samples(both.manifest.input, 1))).all()
