from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pocketzoo
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.core.errors import BundleError, UnknownNameError
from pocketzoo.core.files import sha256
from pocketzoo.deploy.device.pack import pack
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST


@pytest.fixture(scope="module", params=["cpu", "tensorrt-rtx", "tensorrt"])
def packed(request, compressed, tmp_path_factory):
    """A bundle that has graphs for the first two targets; the third takes the float graph."""
    return request.param, pack(compressed.path, tmp_path_factory.mktemp("packed") / "device", target=request.param)


def test_it_has_one_graph_and_answers_as_the_whole_bundle_does(packed, compressed, digit_files):
    target, bundle = packed
    graph = compressed.graph(target).name
    assert set(bundle.manifest.files) == {graph, "README.md"}
    assert bundle.file(graph).read_bytes() == compressed.file(graph).read_bytes()
    with load_runtime(bundle, threads=1) as a, load_runtime(compressed, target=target, threads=1) as b:
        np.testing.assert_array_equal(a.predict(digit_files), b.predict(digit_files))


def test_the_facts_stay_and_say_where_it_is_from(packed, compressed):
    _, bundle = packed
    manifest, source = bundle.manifest, compressed.manifest
    assert (manifest.name, manifest.labels, manifest.input) == (source.name, source.labels, source.input)
    assert manifest.metrics == source.metrics
    assert [(s.compressor, s.config, s.report) for s in manifest.steps] == [
        (s.compressor, s.config, s.report) for s in source.steps
    ]
    assert manifest.provenance == {**source.provenance, "packed_from": sha256(compressed.path / MANIFEST)}


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """50 digits."""
    digits = pocketzoo.load_data("digits").split("test")
    path = tmp_path_factory.mktemp("few") / "few.npz"
    np.savez(path, x=np.stack(digits.samples[:50]), y=np.asarray(digits.targets[:50]))
    return path


@pytest.mark.parametrize(("target", "other"), [("cpu", "tensorrt-rtx"), ("tensorrt-rtx", "cpu")])
def test_it_runs_for_its_target_alone(target, other, compressed, tmp_path):
    bundle = pack(compressed.path, tmp_path / "device", target=target)
    with pytest.raises(BundleError, match=r"has no model\.onnx"):
        pocketzoo.export(bundle.path, to="onnx", target=other, out=tmp_path / "m.onnx")
    with pytest.raises(BundleError, match=r"has no model\.onnx"):
        load_runtime(bundle, target=other)


def test_it_cannot_be_made_smaller(fitted, few, tmp_path):
    bundle = pack(fitted.path, tmp_path / "device")
    with pytest.raises(BundleError, match=r"has no model\.safetensors"):
        pocketzoo.compress(bundle.path, tmp_path / "c", data=few, steps=[PruneConfig(ratio=0.3)])


def test_it_can_be_measured_and_evaluated(compressed, few, tmp_path):
    bundle = pack(compressed.path, tmp_path / "device")
    (row,) = pocketzoo.bench([bundle.path], data=few, batch_sizes=[1], seconds=0)
    assert row.precision == "int8"
    whole = pocketzoo.eval(compressed.path, data=few)
    assert whole.keys() >= {"outputs", "differing"}  # against the float graph, which is not packed
    of_all = {name: value for name, value in whole.items() if name not in ("outputs", "differing")}
    assert pocketzoo.eval(bundle.path, data=few) == of_all


def test_a_finished_bundle_is_replaced_only_when_told_so(compressed, fitted_copy, tmp_path, refused, run):
    out = fitted_copy.path
    with refused(BundleError, f"{out} is already a finished bundle", hint="--force"):
        pack(tmp_path / "no model", out)
    done = run("pack", compressed.path, "-o", out)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: {out} is already a finished bundle", "hint:  give another -o, or --force to replace it",
    ]  # fmt: skip
    assert read_bundle(out).manifest == fitted_copy.manifest
    assert "packed_from" in pack(compressed.path, out, force=True).manifest.provenance
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with refused(BundleError, "exists and is not a bundle", hint="-o"):
        pack(compressed.path, tmp_path / "mine", force=True)


def test_a_registered_model_is_packed_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pack("tinynet", "tinynet").manifest.name == "tinynet"


def test_packing_onto_itself_or_for_no_target_is_refused(compressed, fitted_copy, tmp_path, refused):
    with refused(BundleError, "is the bundle to pack", hint="-o"):
        pack(fitted_copy.path, fitted_copy.path, force=True)
    with refused(UnknownNameError, "'cpuu'"):
        pack(compressed.path, tmp_path / "device", target="cpuu")
    assert read_bundle(fitted_copy.path)
    assert not (tmp_path / "device").exists()


def test_the_command(run, compressed, tmp_path):
    out = tmp_path / "device"
    done = run("pack", compressed.path, "-o", out, "--json")
    size = sum(p.stat().st_size for p in out.iterdir())
    assert json.loads(done.stdout) == {"bundle": str(out), "bytes": size}
    assert size < sum(p.stat().st_size for p in compressed.path.iterdir()) / 4
    assert run("pack", compressed.path, "-o", out, "--force").stdout == f"wrote {out} ({size:,} bytes)\n"
    assert run("verify", out).exit_code == 0
