"""Artifacts of several kinds from import to device: compressed, exported, measured, packed and run, each at its end."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from artifactgraphs import STATES, WIDTH, encoders, listener, random, start
from told import Told

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress, dry_run
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.core.errors import BundleError, ExportError
from pocketzoo.deploy.device.pack import pack
from pocketzoo.deploy.device.runtime import load_runtime
from pocketzoo.deploy.export import export
from pocketzoo.workflows.bench import bench
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import open_artifact
from pocketzoo.zoo.artifacts.pair_encoders import pair_encoders
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.models.import_onnx import open_graph


def divided(samples):
    third = len(samples) // 3
    parts = {"train": samples[:third], "val": samples[third : 2 * third], "test": samples[2 * third :]}
    return Dataset("given", (), {name: Split(part) for name, part in parts.items()}, 0)


SEQUENCES = divided([{"piece": random(6, WIDTH, seed=i)} for i in range(24)])
PAIRS = divided([{"image": random(1, 8, 8, seed=i), "words": random(20, seed=i)} for i in range(24)])


@pytest.fixture
def stateful(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    listener(tmp_path / "listener.onnx")
    return open_graph(tmp_path / "listener.onnx", states=STATES)


@pytest.fixture
def dual(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    encoders(tmp_path)
    return pair_encoders({name: tmp_path / f"{name}.onnx" for name in ("image", "words")}, tmp_path / "pair")


def test_a_state_from_import_to_device(stateful, tmp_path):
    assert stateful.manifest.driver == "stateful"
    assert stateful.manifest.signature.states == STATES
    small = compress(stateful.path, tmp_path / "small", data=SEQUENCES, steps=[Int8Config()], keep_slower=True,
                     targets=("cpu", "tensorrt-rtx"))  # fmt: skip
    report = small.manifest.steps[-1].report
    assert set(report.outputs) == {"score", "stateN"}, "over all calls, and the state after the last"
    assert small.targets() == ("", "cpu", "tensorrt-rtx")
    exported = export(small.path, out=tmp_path / "x.onnx", target="cpu")
    assert exported.read_bytes() == small.graph("cpu").read_bytes()
    packed = pack(small.path, tmp_path / "packed")
    sequences = np.stack([random(6, WIDTH, seed=i) for i in range(3)])
    with (
        load_runtime(packed.path, provider="cpu") as runtime,
        open_artifact(Artifact(graphs={"model": exported}, driver="stateful", states=STATES), start) as runner,
    ):
        predicted = runtime.predict({"piece": sequences})
        np.testing.assert_allclose(predicted, runner.infer({"piece": sequences})["score"], atol=1e-6)
        assert predicted.shape == (3, 6, 1)
    rows = bench([stateful.path, small.path], seconds=0.0, batch_sizes=[1], memory=False)
    assert [row.target for row in rows] == ["", "cpu", "tensorrt-rtx"]
    assert rows[1].sqnr is not None


def test_a_state_is_held_to_a_budget_over_its_calls(stateful, tmp_path):
    plain = compress(stateful.path, tmp_path / "plain", data=SEQUENCES, steps=[Int8Config()], keep_slower=True,
                     targets=("tensorrt-rtx",))  # fmt: skip
    least = plain.manifest.steps[-1].report.sqnr + 1.0
    held = compress(stateful.path, tmp_path / "held", data=SEQUENCES, steps=[Int8Config(min_sqnr=least)],
                    keep_slower=True, targets=("tensorrt-rtx",))  # fmt: skip
    report = held.manifest.steps[-1].report
    assert report.sqnr >= least
    assert report.float_layers


def test_states_that_names_make_evident_are_only_hinted_at(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    listener(tmp_path / "listener.onnx")
    heard = Told()
    bundle = open_graph(tmp_path / "listener.onnx", progress=heard)
    assert bundle.manifest.driver == "single"
    assert any("--state stateN=state" in line for line in heard.said)
    with pytest.raises(BundleError, match="no output 'nowhere'"):
        open_graph(tmp_path / "listener.onnx", states={"nowhere": "state"})
    with pytest.raises(BundleError, match="cannot be the input 'state'"):
        open_graph(tmp_path / "listener.onnx", states={"score": "state"})


def test_two_encoders_from_a_pair_to_a_device(dual, tmp_path):
    assert dual.manifest.driver == "dual"
    small = compress(dual.path, tmp_path / "small", data=PAIRS, steps=[Int8Config()], keep_slower=True,
                     targets=("cpu", "tensorrt-rtx"))  # fmt: skip
    step = small.manifest.steps[-1]
    assert set(step.graphs) == {"image", "words"}
    assert set(step.report.outputs) == {"image", "words", "similarity"}
    for target in ("cpu", "tensorrt-rtx"):
        assert {name: path.name for name, path in small.graphs(target).items()} == {
            name: f"{name}.int8.{target}.onnx" for name in ("image", "words")
        }
    assert step.report.bytes.before == sum(path.stat().st_size for path in dual.graphs("").values())
    heard = Told()
    first = export(small.path, out=tmp_path / "out.onnx", target="cpu", progress=heard)
    assert first == tmp_path / "out.image.onnx"
    for name in ("image", "words"):
        assert (tmp_path / f"out.{name}.onnx").read_bytes() == small.graph("cpu", name).read_bytes()
    other = export(small.path, out=tmp_path / "rtx.onnx", target="tensorrt")  # the encoding of another target
    assert other.read_bytes() == small.graph("tensorrt-rtx", "image").read_bytes()
    packed = pack(small.path, tmp_path / "packed")
    assert set(packed.graphs("cpu")) == {"image", "words"}
    samples = PAIRS.split("test").samples[:2]
    with load_runtime(packed.path, provider="cpu") as runtime:
        embedded = runtime.predict(samples)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=-1), 1.0, atol=1e-5)
    rows = bench([dual.path, small.path], seconds=0.0, batch_sizes=[1], memory=False)
    assert set(rows[1].outputs) == {"image", "words", "similarity"}


def test_both_encoders_are_held_to_one_budget(dual, tmp_path):
    plain = compress(dual.path, tmp_path / "plain", data=PAIRS, steps=[Int8Config()], keep_slower=True,
                     targets=("tensorrt-rtx",))  # fmt: skip
    least = plain.manifest.steps[-1].report.sqnr + 1.0
    held = compress(dual.path, tmp_path / "held", data=PAIRS, steps=[Int8Config(min_sqnr=least)], keep_slower=True,
                    targets=("tensorrt-rtx",))  # fmt: skip
    report = held.manifest.steps[-1].report
    assert report.sqnr >= least
    assert {layer.partition(":")[0] for layer in report.float_layers} <= {"image", "words"}
    assert not [file for file in held.path.iterdir() if "candidate" in file.name]
    (planned,) = dry_run(dual.path, CompressSettings(steps=(Int8Config(),)), data=PAIRS)
    assert set(planned.graphs) == {"image", "words"}


def test_what_is_no_pair_is_refused(dual, tmp_path):
    with pytest.raises(BundleError, match="a pair is of two encoders, and there are 1"):
        pair_encoders({"image": tmp_path / "image.onnx"}, tmp_path / "one")
    with pytest.raises(BundleError, match="both have an input 'words'"):
        pair_encoders({"a": tmp_path / "words.onnx", "b": tmp_path / "words.onnx"}, tmp_path / "same")
    with pytest.raises(BundleError, match="runs several graphs"):
        pair_encoders({"a": dual.path, "b": tmp_path / "words.onnx"}, tmp_path / "nested")
    with pytest.raises(ExportError, match="is for models of one graph"):
        export(dual.path, out=tmp_path / "half.onnx", precision="fp16")
    assert onnx.load(dual.graph("", "words")).graph.input[0].name == "words"
