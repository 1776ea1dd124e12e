"""The example plugin in examples/openvino: a real runtime through the hook alone, against onnxruntime's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

pytest.importorskip("openvino", reason="no openvino: make test-openvino")
plugin = pytest.importorskip("pocketzoo_openvino", reason="no plugin: pip install ./examples/openvino")

import pocketzoo  # noqa: E402
from pocketzoo.api import check_conformance  # noqa: E402
from pocketzoo.compress.configs import Int8Config  # noqa: E402
from pocketzoo.core.errors import BundleError, DataError, ExportError  # noqa: E402
from pocketzoo.deploy.check.check_model import check  # noqa: E402
from pocketzoo.zoo.backends.available_targets import list_targets  # noqa: E402
from pocketzoo.zoo.bundles.bundle import read_bundle  # noqa: E402
from pocketzoo.zoo.catalog.engine_options import EngineOptions  # noqa: E402
from pocketzoo.zoo.catalog.plugin_manager import create_manager  # noqa: E402
from pocketzoo.zoo.catalog.registry import Registry  # noqa: E402
from pocketzoo.zoo.data.random_samples import random_samples  # noqa: E402
from pocketzoo.zoo.tasks.agreement import sqnr  # noqa: E402

TARGET = "openvino-cpu"


@pytest.fixture(scope="module")
def registry() -> Registry:
    """What ships with pocketzoo, and this plugin alone, loaded as any plugin is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("POCKETZOO_PLUGINS", raising=False)
        return Registry(create_manager(points=entry_points(group="pocketzoo", name="openvino")))


@pytest.fixture(scope="module")
def bundle(fitted, registry, once):
    """tinynet in int8 for the CPU and for OpenVINO, and exported to OpenVINO."""

    def make(path):
        pocketzoo.compress(
            fitted.path, path, data="digits", steps=[Int8Config()], targets=["cpu", TARGET], samples=64,
            keep_slower=True, registry=registry,
        )  # fmt: skip
        pocketzoo.export(path, to="openvino", registry=registry)

    return read_bundle(once("openvino-int8", make))


def answers(path, registry, x, **choice):
    with pocketzoo.load_runtime(path, threads=1, registry=registry, **choice) as runtime:
        return runtime.predict(x), runtime


def test_it_is_registered_through_its_entry_point_and_imports_nothing_heavy(registry):
    (found,) = [p for p in registry.plugins() if p.name == "openvino"]
    assert found.reason == ""
    assert found.origin.startswith("pocketzoo-openvino ")
    assert registry.entry("backend", "openvino").plugin == registry.entry("target", TARGET).plugin == "openvino"
    code = """
import sys
from pocketzoo.zoo.catalog.registry import default_registry
default_registry().get("backend", "openvino"), default_registry().get("target", "openvino-cpu")
print(sorted({"openvino", "numpy", "onnx", "torch"} & set(sys.modules)))
"""
    environ = {**os.environ, "POCKETZOO_PLUGINS": "openvino"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_two_files_are_one_artifact_of_the_bundle(bundle):
    files = bundle.manifest.files
    main, weights = f"model.int8.{TARGET}.xml", f"model.int8.{TARGET}.bin"
    assert (files[main].backend, files[main].of, files[main].precision) == ("openvino", "", "int8")
    assert (files[weights].backend, files[weights].of) == ("openvino", main)
    assert list(bundle.built()) == [main]


def test_float_answers_are_onnxruntimes(fitted, registry, tmp_path):
    x = random_samples(fitted.manifest.input, 32)
    wanted, _ = answers(fitted.path, registry, x, provider="cpu")
    found, runtime = answers(fitted.path, registry, x, provider="openvino")  # it reads the graph as it is
    assert runtime.file.suffix == ".onnx"
    assert sqnr(found, wanted) > 100
    out = pocketzoo.export(fitted.path, to="openvino", out=tmp_path / "m.xml", registry=registry)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    with plugin._open().load(out, runtime="openvino", threads=1) as runner:
        assert sqnr(runner.infer(x)["logits"], wanted) > 100


def test_int8_answers_agree_with_onnxruntimes_on_the_same_graph(bundle, registry):
    """Of the int8 graph for this target; both are as far from the float graph."""
    x = random_samples(bundle.manifest.input, 64)
    exact, _ = answers(bundle.path, registry, x, provider="cpu", target="tensorrt")  # which has none of its own: float
    theirs, _ = answers(bundle.path, registry, x, provider="cpu", target=TARGET)
    ours, runtime = answers(bundle.path, registry, x, provider="openvino")
    assert runtime.file.name == f"model.int8.{TARGET}.xml"
    assert sqnr(ours, theirs) > 30
    assert abs(sqnr(ours, exact) - sqnr(theirs, exact)) < 2


def test_it_runs_in_int8_kernels(bundle):
    """The encoding is one that OpenVINO has kernels for: it computes in integers, not in floats between Q/DQ nodes."""
    from pocketzoo_openvino.runner import OpenVinoRunner

    with OpenVinoRunner(bundle.path / f"model.int8.{TARGET}.xml", "CPU", 1) as runner:
        ran = [
            (node.get_rt_info()["layerType"].value, node.get_rt_info()["runtimePrecision"].value)
            for node in runner.compiled.get_runtime_model().get_ops()
        ]
    layers = [precision for kind, precision in ran if kind in ("Convolution", "FullyConnected", "MatMul")]
    assert len(layers) > 5
    assert sum(precision in ("u8", "i8") for precision in layers) >= len(layers) - 1


def test_bench_measures_it_alongside_onnxruntime(fitted, bundle, registry):
    rows = pocketzoo.bench(
        [fitted.path, bundle.path], data="digits", runtimes=["onnxruntime", "openvino"], batch_sizes=[1], seconds=0,
        registry=registry,
    )  # fmt: skip
    ran = {(row.runtime, row.target): row for row in rows}
    assert set(ran) == {
        ("onnxruntime", ""), ("onnxruntime", "cpu"), ("onnxruntime", TARGET), ("openvino", ""), ("openvino", TARGET)
    }  # fmt: skip
    assert ran["openvino", ""].agreement == 1
    assert abs(ran["openvino", TARGET].accuracy - ran["onnxruntime", TARGET].accuracy) < 0.01
    assert ran["openvino", TARGET].memory is not None
    assert ran["openvino", TARGET].bytes > (bundle.path / f"model.int8.{TARGET}.bin").stat().st_size


def test_check_says_by_operator_what_its_reader_refuses(bundle, registry, tmp_path):
    import onnx
    from onnx import helper

    assert not check(bundle.path, TARGET, registry=registry).refused
    assert check(bundle.path / f"model.int8.{TARGET}.xml", TARGET, registry=registry).asked.startswith("asked OpenVINO")
    value = [helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in "xy"]
    nodes = [helper.make_node("Det", ["x"], ["a"], "odd"), helper.make_node("Relu", ["a"], ["y"], "fine")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    report = check(path, TARGET, registry=registry)
    assert [(f.what, f.nodes) for f in report.findings if f.level == "refused"] == [
        ("OpenVINO does not read Det", ("odd",))
    ]


def test_lengths_are_bounded_where_that_is_asked_for(fitted, registry, tmp_path, refused):
    options = EngineOptions(shapes={"batch": (1, 2, 4)})
    out = pocketzoo.export(fitted.path, to="openvino", out=tmp_path / "m.xml", engine=options, registry=registry)
    with plugin._open().load(out, runtime="openvino", threads=1) as runner:
        assert runner.infer(random_samples(fitted.manifest.input, 4))["logits"].shape == (4, 10)
        with refused(DataError, "input 'image' is (5, 1, 28, 28), the model expects"):
            runner.infer(random_samples(fitted.manifest.input, 5))
    with refused(ExportError, "no dynamic axis 'bacth'", hint="'batch'"):
        wrong = EngineOptions(shapes={"bacth": (1, 1, 1)})
        pocketzoo.export(fitted.path, to="openvino", out=tmp_path / "n.xml", engine=wrong, registry=registry)
    with refused(ExportError, "no option 'dla'"):
        pocketzoo.export(fitted.path, to="openvino", engine=EngineOptions(dla=0), registry=registry)


def test_what_is_no_model_is_an_error_of_the_family(tmp_path, refused):
    (tmp_path / "m.xml").write_text("no model")
    with refused(BundleError, "OpenVINO does not load m.xml"):
        plugin._open().load(tmp_path / "m.xml", runtime="openvino")


def test_inputs_that_do_not_fit_are_named(fitted, refused):
    with plugin._open().load(fitted.graph(""), runtime="openvino", threads=1) as runner:
        x = random_samples(fitted.manifest.input, 2)["image"]
        assert runner.signature.inputs[0].shape == ("batch", 1, 28, 28)
        out = np.empty((2, 10), np.float32)
        assert runner.infer({"image": x}, {"logits": out})["logits"] is out
        with refused(DataError, "the inputs are picture", hint="give image"):
            runner.infer({"picture": x})
        with refused(DataError, "is float64, the model expects float32"):
            runner.infer({"image": x.astype(np.float64)})


def test_it_is_listed_and_examined(registry):
    here = {each.target.name: each for each in list_targets(registry)}
    assert (here[TARGET].backend, here[TARGET].builds, here[TARGET].runs) == ("openvino", True, True)
    assert here["openvino"].backend == "onnxruntime", "the target that is onnxruntime's provider stays what it was"
    checks = {each.name: each for each in pocketzoo.doctor(registry)}
    assert checks["back end openvino"].works
    assert "CPU" in checks["OpenVINO devices"].detail


def test_triton_runs_it_by_its_openvino_back_end(fitted, registry, tmp_path):
    out = pocketzoo.export(fitted.path, to="triton", target=TARGET, out=tmp_path / "r", registry=registry)
    name = fitted.manifest.name
    assert {path.name for path in (out / name / "1").iterdir()} == {"model.xml", "model.bin"}
    assert 'backend: "openvino"' in (out / name / "config.pbtxt").read_text("utf8")


@pytest.mark.slow
def test_it_passes_the_conformance_suite(monkeypatch):
    monkeypatch.delenv("POCKETZOO_PLUGINS", raising=False)
    check_conformance("openvino")
