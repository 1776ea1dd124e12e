from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from feeds import arrays, only
from told import Told

import pocketzoo
from pocketzoo.core.errors import BundleError, ExportError, MissingDependencyError, UnknownNameError
from pocketzoo.deploy.export import export, graph_for
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, updating
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data


@pytest.fixture
def copied(compressed, tmp_path) -> Bundle:
    """A compressed bundle that a test may change."""
    path = tmp_path / "copied"
    shutil.copytree(compressed.path, path)
    return replace(compressed, path=path)


def same_graph(a: Path, b: Path) -> bool:
    one, two = (onnx.load(p).SerializeToString(deterministic=True) for p in (a, b))
    return one == two


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


# -- to a file of one's own


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_a_graph_the_bundle_has_is_given_as_it_is(target, compressed, tmp_path):
    out = tmp_path / "deep" / "er" / "m.onnx"
    assert export(compressed.path, to="onnx", target=target, out=out) == out
    assert out.read_bytes() == compressed.graph(target).read_bytes()
    assert [p.name for p in out.parent.iterdir()] == ["m.onnx"]


def test_a_target_nobody_asked_for_before_is_encoded_from_the_saved_plan(compressed, tmp_path):
    """tensorrt and tensorrt-rtx take the same encoding: the graph is the one that compressing would have written."""
    assert "tensorrt" not in compressed.encodings()
    out = export(compressed.path, to="onnx", target="tensorrt", out=tmp_path / "m.onnx")
    assert same_graph(out, compressed.graph("tensorrt-rtx"))
    assert not same_graph(out, compressed.graph("cpu"))


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_encoding_again_gives_the_graph_of_the_bundle(target, copied, registry, tmp_path):
    """Take a target's graph away; its plan makes the same one again."""
    files = {n: e for n, e in copied.manifest.files.items() if e.target != target}
    without = replace(copied, manifest=replace(copied.manifest, files=files))
    made = graph_for(without, registry.get("target", target), registry, tmp_path)
    assert made.parent == tmp_path
    assert same_graph(made, copied.graph(target))


def test_onnx_is_for_the_cpu_unless_told_otherwise(compressed, tmp_path):
    assert export(compressed.path, out=tmp_path / "m.onnx").read_bytes() == compressed.graph("cpu").read_bytes()


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "tensorrt-rtx"])
def test_a_float_model_is_the_same_for_every_target(target, fitted, tmp_path):
    out = export(fitted.path, to="onnx", target=target, out=tmp_path / "m.onnx")
    assert out.read_bytes() == fitted.graph("").read_bytes()


def test_an_exported_graph_runs(compressed, tmp_path):
    out = export(compressed.path, to="onnx", target="cpu", out=tmp_path / "m.onnx")
    x = next(iter(arrays(Batches(load_data("digits").split("test"), compressed.manifest.input))))[0]
    with OnnxRunner(out) as a, OnnxRunner(compressed.graph("cpu")) as b:
        np.testing.assert_array_equal(only(a, x), only(b, x))


def test_exporting_outside_leaves_the_bundle_alone(copied, tmp_path):
    before = contents(copied.path)
    export(copied.path, to="onnx", target="tensorrt", out=tmp_path / "m.onnx")
    assert contents(copied.path) == before


def test_an_existing_file_is_replaced_whole(fitted, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_text("old")
    export(fitted.path, out=out)
    assert out.read_bytes() == fitted.graph("").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


# -- into the bundle


def test_a_graph_for_another_target_joins_the_bundle(copied, compressed):
    path = export(copied.path, to="onnx", target="tensorrt")
    assert path == copied.path / "model.int8.tensorrt.onnx"
    after = read_bundle(copied.path)
    assert set(after.manifest.files) == {*compressed.manifest.files, path.name}
    entry = after.manifest.files[path.name]
    assert (entry.target, entry.precision) == ("tensorrt", "int8")
    assert after.graph("tensorrt") == path
    for name, before in compressed.manifest.files.items():
        if name != "README.md":
            assert after.manifest.files[name] == before
    kept = replace(after.manifest, files=compressed.manifest.files, created=compressed.manifest.created)
    assert kept == compressed.manifest


def test_texts_show_the_range_of_values_too(language_bundles, tmp_path):
    """They need the tokenizer that traveled with the model."""
    texts = Dataset("texts", (), {"val": Split(["the cat sat", "on the mat"])})
    out, heard = tmp_path / "half.onnx", Told()
    pocketzoo.export(language_bundles["gpt2"], target="cuda", precision="fp16", data=texts, out=out, progress=heard)
    assert out.is_file()
    assert any(said.startswith("fp16: ") for said in heard.said)
    assert (tmp_path / "half.decoder.onnx").is_file()  # the graph that writes goes along, as it is


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_a_graph_that_is_there_stays_the_same(target, copied, compressed):
    path = export(copied.path, to="onnx", target=target)
    assert path.name == f"model.int8.{target}.onnx"
    files = read_bundle(copied.path).manifest.files
    assert {n: e for n, e in files.items() if n != "README.md"} == {
        n: e for n, e in compressed.manifest.files.items() if n != "README.md"
    }


def test_a_float_bundle_keeps_its_float_graph(fitted_copy, fitted):
    path = export(fitted_copy.path)
    assert path == fitted_copy.path / "model.onnx"
    after = read_bundle(fitted_copy.path)
    assert after.manifest.files["model.onnx"] == fitted.manifest.files["model.onnx"]
    assert after.encodings() == {"": path}


@pytest.mark.engine
def test_the_name_of_a_bundle_from_elsewhere_is_no_path(copied, tmp_path, monkeypatch):
    """What is not part of the bundle is called as its manifest says."""
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    with updating(copied) as draft:
        draft.manifest = replace(draft.manifest, name="../evil/model")
    assert export(copied.path, to="triton") == Path("evil-model.triton")
    models = {p.name for p in Path("evil-model.triton").iterdir()}
    assert models == {"evil-model", "evil-model-images", "evil-model-from-images"}
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "copied"}


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_an_engine_joins_the_bundle(kind, copied, fitted_copy):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    bundle = copied if kind == "int8" else fitted_copy
    path = export(bundle.path, to="tensorrt-rtx")
    assert path == bundle.path / f"model.{kind}.tensorrt-rtx.engine"
    after = read_bundle(bundle.path)
    entry = after.manifest.files[path.name]
    assert (entry.target, entry.precision, entry.size) == ("tensorrt-rtx", kind, path.stat().st_size)
    assert after.encodings().keys() == bundle.encodings().keys()  # an engine is no graph
    assert entry.size > 10_000


@pytest.mark.engine
def test_an_engine_goes_to_a_file_of_ones_own(compressed, tmp_path):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    out = export(compressed.path, to="tensorrt-rtx", out=tmp_path / "m.engine")
    assert out.stat().st_size > 10_000
    assert [p.name for p in tmp_path.iterdir()] == ["m.engine"]


@pytest.mark.engine
def test_an_engine_for_the_cpu_is_refused_and_nothing_is_left(copied, refused):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    before = contents(copied.path)
    with refused(ExportError, "'cpu' has no engines", hint="--target tensorrt-rtx"):
        export(copied.path, to="tensorrt-rtx", target="cpu")
    assert contents(copied.path) == before
    assert sorted(p.name for p in copied.path.parent.iterdir()) == ["copied"]


# -- a registered model


def test_a_registered_model_is_exported_into_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = export("tinynet")
    assert path == Path("tinynet.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["tinynet.onnx"]
    onnx.checker.check_model(onnx.load(path), full_check=True)


# -- mistakes


@pytest.mark.parametrize(
    ("changes", "kind", "message", "hint"),
    [
        ({"to": "onyx"}, UnknownNameError, "no exporter is called 'onyx'", "'onnx'"),
        ({"to": "tensorrt_rtx"}, UnknownNameError, "no exporter is called 'tensorrt_rtx'", "'tensorrt-rtx'"),
        ({"to": "torch"}, UnknownNameError, "the back end 'torch' builds nothing", "leave out --to"),
        ({"target": "gpu"}, UnknownNameError, "no target is called 'gpu'", "cpu"),
        ({"model": "/nowhere/b"}, BundleError, "no bundle at /nowhere/b", "fit"),
        ({"model": "tinynte"}, UnknownNameError, "'tinynte'", "'tinynet'"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(changes, kind, message, hint, fitted, tmp_path, refused):
    given = {"model": fitted.path, "out": tmp_path / "m.onnx", **changes}
    with refused(kind, message, hint=hint):
        export(given.pop("model"), **given)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_to_write(fitted, tmp_path, refused):
    with refused(ExportError, f"{tmp_path} is a folder", hint="file name"):
        export(fitted.path, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_inside_a_bundle_is_refused(fitted_copy, refused):
    """It would make the bundle one that its manifest does not describe."""
    before = contents(fitted_copy.path)
    with refused(ExportError, "inside a bundle", hint="leave out -o"):
        export(fitted_copy.path, out=fitted_copy.path / "mine.onnx")
    assert contents(fitted_copy.path) == before


def test_a_missing_runtime_is_named_with_its_extra(compressed, tmp_path, refused):
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tensorrt is installed here")
    with refused(MissingDependencyError, "'tensorrt'", hint="pip install 'pocketzoo[tensorrt]'"):
        export(compressed.path, to="tensorrt", out=tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_builds_where_it_is(compressed, tmp_path):
    pytest.importorskip("tensorrt", reason="TensorRT is not installed; it builds on a GPU only")
    out = export(compressed.path, to="tensorrt", out=tmp_path / "m.engine")
    assert out.stat().st_size > 10_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(fitted, tmp_path, refused):
    from pocketzoo.core.errors import StorageError

    tmp_path.chmod(0o500)
    with refused(StorageError, str(tmp_path), hint="-o"):
        export(fitted.path, out=tmp_path / "m.onnx")


def test_the_public_name_is_the_same_function(fitted, tmp_path):
    assert pocketzoo.export is export
