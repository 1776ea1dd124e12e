"""A repository as Triton reads it: its own protobuf parses the files, and the graphs in it run one after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
from feeds import only
from google.protobuf import json_format, text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from PIL import Image
from told import Told

from pocketzoo.core.errors import ExportError, MissingDependencyError
from pocketzoo.deploy.export import export
from pocketzoo.deploy.triton.image_preprocessing_graph import preparation, save_preparation
from pocketzoo.deploy.triton.model_repository import TYPES, Word, model_config, pbtxt, save_repository, triton_model
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.image_preprocessing import prepare


@pytest.fixture(scope="module")
def proto():
    """Triton's own message, which knows every field and type."""
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed").ModelConfig


@pytest.fixture(scope="module")
def parse(proto):
    """A config.pbtxt, read."""
    return lambda path: text_format.Parse(path.read_text("utf8"), proto())


@pytest.fixture(scope="module")
def repository(fitted, tmp_path_factory):
    out = tmp_path_factory.mktemp("triton") / "models"
    return export(fitted.path, to="triton", out=out, engine=EngineOptions(shapes={"batch": (1, 4, 16)}))


def test_every_configuration_parses(repository, fitted, parse):
    name = fitted.manifest.name
    configs = {c.name: c for c in (parse(path) for path in repository.glob("*/config.pbtxt"))}
    assert set(configs) == {name, f"{name}-images", f"{name}-from-images"}
    model = configs[name]
    assert model.backend == "onnxruntime"
    assert model.max_batch_size == 16
    assert list(model.dynamic_batching.preferred_batch_size) == [4, 16]
    assert [(g.count, g.kind) for g in model.instance_group] == [(1, model.instance_group[0].KIND_CPU)]
    assert [w.batch_size for w in model.model_warmup] == [1, 4]
    assert all(list(w.inputs["image"].dims) == [1, 28, 28] for w in model.model_warmup)
    assert list(model.input[0].dims) == [1, 28, 28]
    assert (model.output[0].name, list(model.output[0].dims)) == ("logits", [10])
    assert model.output[0].label_filename == "labels.txt"
    labels = (repository / name / "labels.txt").read_text("utf8").splitlines()
    assert labels == list(fitted.manifest.labels)


def test_the_ensemble_names_what_there_is(repository, fitted, parse):
    name = fitted.manifest.name
    whole = parse(repository / f"{name}-from-images" / "config.pbtxt")
    assert whole.platform == "ensemble"
    first, second = whole.ensemble_scheduling.step
    for step in (first, second):
        inner = parse(repository / step.model_name / "config.pbtxt")
        assert set(step.input_map) == {i.name for i in inner.input}
        assert set(step.output_map) <= {o.name for o in inner.output}
    assert list(first.output_map.values()) == list(second.input_map.values())
    assert set(first.input_map.values()) == {i.name for i in whole.input}
    assert set(second.output_map.values()) == {o.name for o in whole.output}
    assert (repository / whole.name / "1").is_dir()


def test_both_graphs_together_answer_as_the_bundle_does(repository, fitted):
    name = fitted.manifest.name
    pixels = load_data("digits").split("test").samples[:20]
    session = onnxruntime.InferenceSession(repository / f"{name}-images" / "1" / "model.onnx")
    made = session.run(None, {"pixels": pixels[..., None]})[0]
    wanted = np.stack([prepare(p, fitted.manifest.input) for p in pixels])
    assert made.shape == wanted.shape
    with OnnxRunner(repository / name / "1" / "model.onnx") as runner:
        assert (only(runner, made).argmax(-1) == only(runner, wanted).argmax(-1)).mean() >= 0.95


SPECS = {
    "bilinear": InputSpec(shape=("batch", 3, 48, 48), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), resize=56),
    "bicubic": InputSpec(
        shape=("batch", 3, 32, 40), mean=(0.5,) * 3, std=(0.5,) * 3, resize=40, interpolation="bicubic"
    ),
    "stretch": InputSpec(shape=("batch", 1, 20, 30), mean=(0.0,), std=(1.0,), resize=20, stretch=True),
    "larger": InputSpec(shape=("batch", 3, 48, 48), mean=(0.5,) * 3, std=(0.5,) * 3, resize=40),
    "signed": InputSpec(shape=("batch", 3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3, resize=32, value_range=(-1, 1)),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [(70, 90), (120, 64), (20, 21)])
def test_images_are_prepared_as_pillow_does(name, size):
    """To the last pixel where rows are resized first; where Pillow begins with columns, a pixel is off by one."""
    spec = SPECS[name]
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [127 + 120 * np.sin(rows / (5 + c) + columns / 9) for c in range(3)]
    pixels = np.stack(waves, -1).astype(np.uint8)
    if spec.size[0] == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    session = onnxruntime.InferenceSession(preparation(spec).SerializeToString())
    made = session.run(None, {"pixels": pixels[None]})[0][0]
    wanted = prepare(pixels[..., 0] if spec.size[0] == 1 else pixels, spec)
    step = (spec.value_range[1] - spec.value_range[0]) / 255 / min(spec.std)
    columns_first = size == (120, 64) and name in ("stretch", "larger")
    np.testing.assert_allclose(made, wanted, atol=1.01 * step if columns_first else 1e-5)


@pytest.mark.parametrize("name", ["image", "pixels", "pixels_1", "cut", "zero", "unit", "scale", "add_8", "cast_0"])
def test_names_of_the_preparation_give_way_to_that_of_the_models_input(name):
    spec = replace(SPECS["bicubic"], name=name)
    graph = preparation(spec)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
    given, wanted = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"pixels": pixels})[0]
        for each in (graph, preparation(SPECS["bicubic"]))
    )
    assert np.array_equal(given, wanted)
    assert name == "pixels" or graph.graph.output[0].name == name


def test_the_tensors_of_an_ensemble_have_names_of_their_own(parse, tmp_path, fitted):
    bundle = onnx.load(fitted.graph(""))
    for node in bundle.graph.node:
        node.output[:] = ["pixels" if o == "logits" else o for o in node.output]
    bundle.graph.output[0].name = "pixels"
    onnx.save(bundle, tmp_path / "m.onnx")
    spec = fitted.manifest.input
    request = ExportRequest(name="m", input=spec, modality="image", graph=partial(save_preparation, spec))
    save_repository(tmp_path / "m.onnx", tmp_path / "out", default_registry().get("target", "cpu"), request)
    whole = parse(tmp_path / "out" / "m-from-images" / "config.pbtxt")
    first, second = whole.ensemble_scheduling.step
    assert list(first.input_map.values()) == [whole.input[0].name] == ["pixels"]
    assert dict(second.output_map) == {"pixels": whole.output[0].name}
    assert whole.output[0].name != "pixels"


TEXT = st.text(st.characters(codec="utf8"), min_size=1)
SHAPED = {
    "data_type": st.sampled_from(sorted(TYPES.values())).map(Word),
    "dims": st.lists(st.integers(-1, 9), min_size=1, max_size=4),
}
TENSOR = st.fixed_dictionaries({"name": TEXT, **SHAPED})
STEP = st.fixed_dictionaries({
    "model_name": TEXT,
    "model_version": st.just(-1),
    "input_map": st.dictionaries(TEXT, TEXT, max_size=2),
    "output_map": st.dictionaries(TEXT, TEXT, max_size=2),
})  # fmt: skip
CONFIG = st.fixed_dictionaries({
    "name": TEXT,
    "backend": TEXT,
    "max_batch_size": st.integers(1, 2**31 - 1),
    "input": st.lists(TENSOR, max_size=2),
    "model_warmup": st.lists(st.fixed_dictionaries({
        "name": TEXT,
        "batch_size": st.integers(1, 9),
        "inputs": st.dictionaries(TEXT, st.fixed_dictionaries({**SHAPED, "zero_data": st.just(True)})),
    }), max_size=2),
    "ensemble_scheduling": st.fixed_dictionaries({"step": st.lists(STEP, max_size=2)}),
})  # fmt: skip


@given(CONFIG)
def test_whatever_is_in_a_configuration_is_read_as_it_is(proto, config):
    """Against protobuf's JSON of the same mapping, which quotes by rules of its own."""
    assert text_format.Parse(pbtxt(config), proto()) == json_format.ParseDict(config, proto())


def test_every_character_is_read_as_it_is(proto):
    text = "".join(chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000) + "\ufeff\U0001f600\U0010ffff"
    assert text_format.Parse(pbtxt({"name": text}), proto()).name == text


@pytest.mark.parametrize("target", sorted(default_registry().entries("target")))
@pytest.mark.parametrize("labels", [(), ("a", 'b "c"\n')])
def test_the_configuration_of_every_target_parses(proto, registry, target, labels, refused):
    """Those too whose engine is built, or whose provider is installed, only elsewhere."""
    inputs = [
        helper.make_tensor_value_info(f'in "{i}"', i, ["batch", "length", 3][: 1 + n]) for n, i in enumerate((1, 7))
    ]
    outputs = [helper.make_tensor_value_info(f"out\\{code}", code, ["batch", 2]) for code in TYPES]
    options = EngineOptions(shapes={"batch": (1, 2, 8), "length": (1, 16, 32)})
    request = ExportRequest(name="m", input=SPECS["bilinear"], labels=labels, options=options)
    spec = registry.get("target", target)
    owner = registry.get("backend", spec.backend)
    if target == "tensorrt-rtx":
        with refused(ExportError, "Triton does not run engines of tensorrt_rtx"):
            triton_model(owner, spec)
        return
    runs = triton_model(owner, spec)
    config = model_config(request, spec, inputs, outputs, runs)
    read = text_format.Parse(pbtxt(config), proto())
    assert read == json_format.ParseDict(config, proto())
    assert [i.name for i in read.input] == [v.name for v in inputs]
    assert [o.name for o in read.output] == [v.name for v in outputs]
    assert read.backend == spec.backend


CPU_TARGET = next(t for t in pocketzoo_targets() if t.name == "cpu")


def test_text_is_escaped():
    assert pbtxt({"name": 'a "b"\n\\', "flag": True, "dims": [1, -1]}) == (
        'name: "a \\"b\\"\\n\\\\"\nflag: true\ndims: 1\ndims: -1'
    )


def test_a_model_of_numbers_gets_no_ensemble(fitted, registry, tmp_path):
    spec = InputSpec(shape=("batch", 28), mean=(), std=(), resize=0, name="image")
    request, heard = ExportRequest(name="m", input=spec), Told()
    save_repository(fitted.graph(""), tmp_path / "r", registry.get("target", "cpu"), request, progress=heard)
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["m"]
    assert heard.said[0].startswith("no ensemble")


def test_what_triton_does_not_run_is_refused_and_nothing_is_left(fitted, tmp_path, refused):
    with refused(ExportError, "does not run engines of tensorrt_rtx", hint="--target cuda"):
        export(fitted.path, to="triton", target="tensorrt-rtx", out=tmp_path / "r")
    if find_spec("tensorrt") is None:
        with refused(MissingDependencyError, "'tensorrt'"):
            export(fitted.path, to="triton", target="tensorrt-10", out=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine").write_text("mine")
    with refused(ExportError, "r exists", hint="remove it"):
        export(fitted.path, to="triton", out=tmp_path / "r")
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine"]


@pytest.mark.parametrize(("target", "says"), [("cuda", "KIND_GPU"), ("openvino", 'name: "openvino"')])
def test_other_targets_of_onnxruntime(fitted, parse, tmp_path, target, says):
    path = export(fitted.path, to="triton", target=target, out=tmp_path / "r") / fitted.manifest.name / "config.pbtxt"
    assert says in path.read_text("utf8")
    assert parse(path).backend == "onnxruntime"


@pytest.mark.parametrize("shared", ["input", "output", "turned"])
def test_a_tensor_without_samples_in_front_is_stated_whole(shared):
    """Triton would put its batch before every tensor, those that have none too."""
    value = helper.make_tensor_value_info
    inputs = [value("x", onnx.TensorProto.FLOAT, ["batch", 4]), value("ids", onnx.TensorProto.INT16, ["batch"])]
    outputs = [value("y", onnx.TensorProto.FLOAT, ["batch", 2])]
    if shared == "input":
        inputs.append(value("scale", onnx.TensorProto.FLOAT, [4]))
    elif shared == "output":
        outputs.append(value("anchors", onnx.TensorProto.INT64, [9, 4]))
    else:
        outputs.append(value("turned", onnx.TensorProto.FLOAT, [2, "batch"]))
    request = ExportRequest(name="m", input=SPECS["bilinear"])
    config = model_config(request, replace(CPU_TARGET), inputs, outputs)
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    dims = {t["name"]: (t["data_type"], t["dims"]) for side in ("input", "output") for t in config[side]}
    assert dims["x"] == ("TYPE_FP32", [-1, 4])
    assert dims["ids"] == ("TYPE_INT16", [-1])
    assert dims["y"] == ("TYPE_FP32", [-1, 2])
    more = {"input": ("TYPE_FP32", [4]), "output": ("TYPE_INT64", [9, 4]), "turned": ("TYPE_FP32", [2, -1])}
    assert dims[{"input": "scale", "output": "anchors", "turned": "turned"}[shared]] == more[shared]


value = helper.make_tensor_value_info
FLOAT = onnx.TensorProto.FLOAT


def read(proto, config):
    parsed = text_format.Parse(pbtxt(config), proto())
    assert parsed == json_format.ParseDict(config, proto())
    return parsed


def test_one_number_for_each_sample_is_reshaped(proto):
    """Triton takes no tensor without dims: its clients see [batch, 1], and the model gets and gives [batch]."""
    inputs, outputs = [value("x", FLOAT, ["batch"])], [value("y", FLOAT, ["batch", 2]), value("z", FLOAT, ["batch"])]
    config = read(proto, model_config(ExportRequest(name="m", input=SPECS["bilinear"]), CPU_TARGET, inputs, outputs))
    (x,), (y, z) = config.input, config.output
    for tensor in (x, z):
        assert (list(tensor.dims), tensor.HasField("reshape"), list(tensor.reshape.shape)) == ([1], True, [])
    assert (list(y.dims), y.HasField("reshape")) == ([2], False)
    assert list(config.model_warmup[0].inputs["x"].dims) == [1], "what a client sends"
    whole = [value("x", FLOAT, ["batch", 4]), value("rate", FLOAT, [])]
    config = read(
        proto, model_config(ExportRequest(name="m", input=SPECS["bilinear"]), CPU_TARGET, whole, [outputs[0]])
    )
    assert config.max_batch_size == 0
    assert config.input[1].HasField("reshape")


@pytest.mark.parametrize("first", [True, False])
def test_triton_keeps_the_states_of_sequences(proto, first):
    """In batches where samples are counted first everywhere, else one sequence by one."""
    shape = ["batch", 2, 8] if first else [2, "batch", 8]
    inputs = [value("x", FLOAT, ["batch", "n"]), value("h", FLOAT, shape), value("rate", onnx.TensorProto.INT64, [])]
    inputs = inputs[:2] if first else inputs
    outputs = [value("hn", FLOAT, shape), value("y", FLOAT, ["batch", 1])]
    options = EngineOptions(shapes={"batch": (1, 2, 6)})
    request = ExportRequest(name="m", input=SPECS["bilinear"], states={"hn": "h"}, options=options)
    config = read(proto, model_config(request, CPU_TARGET, inputs, outputs))
    (state,) = config.sequence_batching.state
    assert (state.input_name, state.output_name, state.data_type) == ("h", "hn", config.input[0].data_type)
    (begin,) = state.initial_state
    assert begin.zero_data
    assert list(begin.dims) == list(state.dims) == ([2, 8] if first else [2, 1, 8])
    assert config.max_batch_size == (6 if first else 0)
    assert [list(tensor.dims) for tensor in config.input] == ([[-1]] if first else [[1, -1], [1]])
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("y", [1] if first else [1, 1])]
    assert not config.HasField("dynamic_batching")
    assert not config.model_warmup


def test_a_state_of_no_known_size_is_refused(refused):
    inputs, outputs = (
        [value("x", FLOAT, ["batch", 4]), value("h", FLOAT, ["batch", "past"])],
        [value("hn", FLOAT, None)],
    )
    request = ExportRequest(name="m", input=SPECS["bilinear"], states={"hn": "h"})
    with refused(ExportError, "the state 'h' is batch x past", hint="fixed axes"):
        model_config(request, CPU_TARGET, inputs, outputs)
