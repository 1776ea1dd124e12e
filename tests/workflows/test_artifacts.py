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
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.data.processors.open_processor import processor_of
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


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["dual", "stateful"])
def test_each_graph_is_exported_in_another_precision(kind, precision, request, tmp_path):
    """fp16 is held against float32 where the artifact ends: what a state adds up, counts."""
    bundle, heard = request.getfixturevalue(kind), Told()
    data = PAIRS if kind == "dual" else SEQUENCES
    first = export(bundle.path, out=tmp_path / "half.onnx", precision=precision, target="tensorrt-rtx", data=data,
                   progress=heard)  # fmt: skip
    names = ["image", "words"] if kind == "dual" else ["model"]
    files = [tmp_path / ("half.onnx" if name == "model" else f"half.{name}.onnx") for name in names]
    assert first == files[0]
    low = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    for name, file in zip(names, files, strict=True):
        model = onnx.load(file)
        assert low in {tensor.data_type for tensor in model.graph.initializer}
        assert file.stat().st_size < bundle.graph("", name).stat().st_size
    if precision == "bf16":  # for which onnxruntime's CPU kernels are missing
        return
    (together,) = [line for line in heard.said if "together" in line]
    states = STATES if kind == "stateful" else {}
    artifacts = [Artifact(graphs=graphs, driver=kind, states=states)
                 for graphs in (bundle.graphs(""), dict(zip(names, files, strict=True)))]  # fmt: skip
    samples = [processor_of(bundle)([sample]) for sample in data.split("val").samples]
    outputs = []
    for artifact in artifacts:
        with open_artifact(artifact, start) as runner:
            outputs.append([runner.infer(sample) for sample in samples])
    worst = min(
        10 * np.log10(sum(np.sum(b[name] ** 2) for b in outputs[0])
                      / sum(np.sum((a[name] - b[name]) ** 2) for a, b in zip(outputs[1], outputs[0], strict=True)))
        for name in outputs[0][0]
    )  # fmt: skip
    assert abs(worst - float(together.split()[2])) < 3, "similarities of a batch are among others than one by one"


def test_a_precision_that_adds_up_in_a_state_is_refused(stateful, tmp_path):
    """Each call alone is near enough to float32."""
    export(stateful.path, out=tmp_path / "half.onnx", precision="fp16", target="tensorrt-rtx", data=SEQUENCES)
    with pytest.MonkeyPatch.context() as patch:
        heard = Told()
        patch.setattr("pocketzoo.deploy.export_precision.LEAST", 1000.0)
        with pytest.raises(ExportError, match="in fp16 the outputs differ from float32"):
            export(stateful.path, out=tmp_path / "other.onnx", precision="fp16", target="tensorrt-rtx",
                   data=SEQUENCES, progress=heard)  # fmt: skip
    assert any("together" in line for line in heard.said)
    assert not (tmp_path / "other.onnx").exists()


def test_engines_and_commands_are_of_every_graph(dual, tmp_path):
    folder = export(
        dual.path, to="trtexec", out=tmp_path / "commands", engine=EngineOptions(shapes={"batch": (1, 2, 4)})
    )
    for name, shape in (("image", "pixels:4x1x8x8"), ("words", "words:4x20")):
        assert f"--maxShapes={shape}" in (folder / name / "build.sh").read_text("utf8")
        assert (folder / name / "model.onnx").read_bytes() == dual.graph("", name).read_bytes()
    with pytest.raises(ExportError, match="no graph has a dynamic axis 'length'"):
        export(dual.path, to="trtexec", out=tmp_path / "x", engine=EngineOptions(shapes={"length": (1, 2, 4)}))
    assert not (tmp_path / "x").exists()


def test_a_repository_has_a_model_for_each_encoder(dual, tmp_path):
    folder = export(dual.path, to="triton", out=tmp_path / "repository")
    assert sorted(path.name for path in folder.iterdir()) == ["pair-image", "pair-words"]
    for name in ("image", "words"):
        place = folder / f"pair-{name}"
        assert f'name: "pair-{name}"' in (place / "config.pbtxt").read_text("utf8")
        assert (place / "1" / "model.onnx").read_bytes() == dual.graph("", name).read_bytes()
        assert not (place / "labels.txt").exists()


def test_what_is_no_pair_is_refused(dual, tmp_path):
    with pytest.raises(BundleError, match="a pair is of two encoders, and there are 1"):
        pair_encoders({"image": tmp_path / "image.onnx"}, tmp_path / "one")
    with pytest.raises(BundleError, match="both have an input 'words'"):
        pair_encoders({"a": tmp_path / "words.onnx", "b": tmp_path / "words.onnx"}, tmp_path / "same")
    with pytest.raises(BundleError, match="runs several graphs"):
        pair_encoders({"a": dual.path, "b": tmp_path / "words.onnx"}, tmp_path / "nested")
    assert onnx.load(dual.graph("", "words")).graph.input[0].name == "words"
