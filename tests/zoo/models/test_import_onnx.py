from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rehearsal import rehearse
from told import Told

import pocketzoo
from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import (
    BundleError,
    DataError,
    RecipeError,
    UnknownNameError,
    UnsafeFileError,
    UnsupportedModelError,
)
from pocketzoo.deploy.export import export_request
from pocketzoo.zoo.artifacts.drivers import artifact_of, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.processor import ForeignInputs, ProcessorSpec
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.models.import_onnx import _input_config, open_graph
from pocketzoo.zoo.models.open_model import open_model

IMAGE = ("n", 3, 16, 16)


def constant(name: str, shape: tuple[int, ...], seed: int) -> onnx.TensorProto:
    value = np.random.default_rng(seed).uniform(0.2, 1.0, shape) * np.random.default_rng(seed + 99).choice(
        [-1, 1], shape
    )
    return numpy_helper.from_array(value.astype(np.float32), name)


def network(shape=IMAGE, opset=17, shape_of_rows=(0, -1), extra=(), as_nodes=False, domain="") -> onnx.ModelProto:
    """Convolution, batch norm, Relu, pooling, Reshape, Gemm: as exporters write them that fold nothing."""
    weights = [constant("w", (4, 3, 3, 3), 1), constant("fc", (5, 4), 2), constant("fb", (5,), 3)]
    weights += [constant(name, (4,), i) for i, name in enumerate(("gamma", "beta", "mean"), 4)]
    weights.append(numpy_helper.from_array(np.full(4, 0.7, np.float32), "var"))
    weights.append(numpy_helper.from_array(np.array(shape_of_rows, np.int64), "rows"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"], domain=domain),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "rows"], ["e"]),
        helper.make_node("Gemm", ["e", "fc", "fb"], ["y"], transB=1),
    ]
    if as_nodes:
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in weights] + nodes
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *extra]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 5])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [] if as_nodes else weights)
    domains = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def write(tmp_path, model: onnx.ModelProto, name: str = "theirs.onnx"):
    onnx.save(model, tmp_path / name)
    return tmp_path / name


def run(path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(network(), id="free batch"),
        pytest.param(network(shape=(1, 3, 16, 16)), id="fixed batch"),
        pytest.param(network(shape=(4, 3, 16, 16), shape_of_rows=(4, -1)), id="batch in a Reshape"),
        pytest.param(network(shape=(1, 3, 16, 16), shape_of_rows=(1, 4)), id="batch and channels in a Reshape"),
        pytest.param(network(opset=9), id="old opset"),
        pytest.param(network(as_nodes=True), id="constants as nodes"),
    ],
)
def test_what_others_write_becomes_a_bundle_that_gives_the_same(model, tmp_path):
    path = write(tmp_path, model)
    before = path.read_bytes()
    bundle = open_graph(path)
    assert path.read_bytes() == before
    tidy = onnx.load(bundle.graph(""))
    onnx.checker.check_model(tidy, full_check=True)
    assert "BatchNormalization" not in {n.op_type for n in tidy.graph.node}
    assert tidy.opset_import[0].version >= 13
    spec = bundle.manifest.input
    assert isinstance(spec, InputSpec)
    assert (spec.name, spec.size, spec.mean) == ("x", (3, 16, 16), ())
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 4
    wanted = np.concatenate([run(path, x[i : i + fixed]) for i in range(0, 4, fixed)])
    np.testing.assert_allclose(run(bundle.graph(""), x), wanted, rtol=1e-4, atol=1e-5)
    assert bundle.manifest.model.outputs == 5
    assert [c.layer for c in bundle.manifest.layers["float"]][-1] == "fc"
    assert open_graph(path).path == bundle.path


def test_int8_of_a_file_from_elsewhere_is_measured_against_it(tmp_path, refused):
    x = np.random.default_rng(1).normal(size=(40, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    path = write(tmp_path, network())
    made = compress(path, tmp_path / "out", data=tmp_path / "d.npz", steps=[Int8Config()], targets=("cpu",),
                    keep_slower=True)  # fmt: skip
    assert [row.precision for row in made.manifest.measurements] == ["float32", "float32", "int8"]
    assert made.manifest.measurements[2].sqnr > 25
    assert "model.safetensors" not in made.manifest.files
    assert [s.compressor for s in rehearse(path, data=tmp_path / "d.npz", steps=[Int8Config()])] == ["int8"]
    with refused(UnsupportedModelError, "was imported as an ONNX graph and has no module") as caught:
        compress(path, tmp_path / "no", data=tmp_path / "d.npz", steps=[PruneConfig()])
    assert "int8" in caught.value.hint
    assert not (tmp_path / "no").exists()


def test_images_need_to_be_told_how(tmp_path, images, refused):
    path = write(tmp_path, network())
    with refused(DataError, "how this model preprocesses images is not known") as caught:
        compress(path, tmp_path / "out", data=images, steps=[Int8Config()])
    assert "--mean" in caught.value.hint
    told = open_graph(path, OnnxMetadata(mean=(0.5,), std=(0.25, 0.5, 0.25)))
    spec = told.manifest.input
    assert isinstance(spec, InputSpec)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.25))
    assert told.path != open_graph(path).path
    made = compress(told.path, tmp_path / "out", data=images, steps=[Int8Config()], keep_slower=True)
    assert made.manifest.measurements[2].sqnr > 20


@pytest.fixture
def images(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(5)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(10):
        pil.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_labels_and_size_are_taken(tmp_path, refused):
    path = write(tmp_path, network(shape=("n", 3, "h", "w")))
    with refused(UnsupportedModelError, "reads images of any size") as caught:
        open_graph(path)
    assert "--size" in caught.value.hint
    labels = ("a", "b", "c", "d", "e")
    bundle = open_graph(path, OnnxMetadata(size=24, labels=labels))
    assert bundle.manifest.input.shape[1:] == (3, 24, 24)
    assert bundle.manifest.labels == labels
    with refused(UnsupportedModelError, "has 5 outputs, but there are 2 labels"):
        open_graph(path, OnnxMetadata(size=24, labels=("a", "b")))


@pytest.mark.parametrize(
    "wrong", [{"mean": (0.5,)}, {"mean": (0.5,), "std": (0.0,)}, {"size": 0}], ids=["no std", "std 0", "size 0"]
)
def test_a_reading_that_cannot_work_is_refused(wrong):
    with pytest.raises(RecipeError):
        OnnxMetadata(**wrong)


def test_channels_that_do_not_fit_are_refused(tmp_path, refused):
    with refused(RecipeError, "2 values for the 3 channels"):
        open_graph(write(tmp_path, network()), OnnxMetadata(mean=(0.5, 0.5), std=(1.0, 1.0)))


def test_weights_in_files_alongside_are_read(tmp_path, refused):
    path = tmp_path / "theirs.onnx"
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    onnx.save(network(), tmp_path / "whole.onnx")
    onnx.save(network(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    bundle = open_graph(path)
    with OnnxRunner(bundle.graph("")) as ours, OnnxRunner(tmp_path / "whole.onnx") as theirs:
        np.testing.assert_allclose(ours.infer({"x": x})["y"], theirs.infer({"x": x})["y"], rtol=1e-5, atol=1e-6)
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[:4] = np.float32(7).tobytes()
    (tmp_path / "w.bin").write_bytes(data)
    assert open_graph(path).path != bundle.path, "other weights are another model"
    (tmp_path / "w.bin").write_bytes(data[:-1])
    with refused(UnsafeFileError, "keeps ", "shorter than it says"):
        open_graph(path)
    (tmp_path / "w.bin").rename(tmp_path / "v.bin")
    with refused(UnsafeFileError, "'w.bin', another file, which is not there", hint="copy it"):
        open_graph(path)
    (tmp_path / "w.bin").symlink_to(tmp_path / "v.bin")
    with refused(UnsafeFileError, "'w.bin', a link"):
        open_graph(path)


def masked() -> onnx.ModelProto:
    return network(extra=[helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"])])


def quantized() -> onnx.ModelProto:
    model = network()
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["y"], ["q", "s", "z"]))
    model.graph.output.append(helper.make_tensor_value_info("q", TensorProto.UINT8, ["n", 5]))
    return model


def quantised_in_a_function() -> onnx.ModelProto:
    model = network(shape=("n", 3, 16, 16), domain="mine")
    body = [helper.make_node("DynamicQuantizeLinear", ["a"], ["q", "s", "z"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["b"])]  # fmt: skip
    model.functions.append(helper.make_function("mine", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    return model


def quantised_in_a_branch() -> onnx.ModelProto:
    model = network()
    body = [helper.make_node("DynamicQuantizeLinear", ["y"], ["q", "s", "z"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["o"])]  # fmt: skip
    branch = helper.make_graph(body, "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])
    model.graph.initializer.append(numpy_helper.from_array(np.bool_(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch))
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5]))
    return model


def counting() -> onnx.ModelProto:
    """The batch of 2 is summed over: it means something inside."""
    model = network(shape=(2, 3, 16, 16))
    model.graph.node.append(helper.make_node("ReduceSum", ["y", "axis"], ["sum"], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["y", "sum"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 5]))
    return model


def with_value(name: str, kind: onnx.TypeProto) -> onnx.ModelProto:
    """One that reads something that is not a tensor, too."""
    return network(extra=[helper.make_value_info(name, kind)])


@pytest.mark.parametrize(
    "make", [quantized, quantised_in_a_function, quantised_in_a_branch], ids=["plain", "in a function", "in a branch"]
)
def test_what_is_quantized_already_is_opened_and_not_quantized_again(make, tmp_path, refused):
    bundle = open_graph(write(tmp_path, make()))
    assert "DynamicQuantizeLinear" in bundle.manifest.provenance["quantized"]
    assert bundle.manifest.files["model.onnx"].precision == "int8"
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 3, 16, 16), np.float32))
    with refused(UnsupportedModelError, "is quantized already: it has D", hint="give the float graph"):
        compress(bundle.path, tmp_path / "out", data=tmp_path / "x.npz", steps=[Int8Config()])


def run_by_samples(bundle, x: np.ndarray) -> dict[str, np.ndarray]:
    with open_artifact(artifact_of(bundle), OnnxRunner) as runner:
        return dict(runner.infer({"x": x}))


def test_a_batch_that_means_something_inside_is_a_sample(tmp_path):
    """Of a batch of two that is fixed, both are one sample: (2, 3, 16, 16)."""
    path = write(tmp_path, counting())
    bundle = open_graph(path)
    assert bundle.manifest.one_by_one
    assert [t.batch for t in bundle.manifest.signature.inputs] == [None]
    x = np.random.default_rng(0).normal(size=(3, 2, 3, 16, 16)).astype(np.float32)
    out = run_by_samples(bundle, x)["z"]
    assert out.shape == (3, 2, 5)
    with OnnxRunner(path) as theirs:
        for row in range(3):
            np.testing.assert_allclose(out[row], theirs.infer({"x": x[row]})["z"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(domain="com.acme"), "needs the operator com.acme.Relu"),
        (network(shape=("n", 16, 16, 3)), "onnxruntime does not run"),
        (with_value("s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))), "reads 's'"),
        (with_value("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, None))), "reads 'o'"),
    ],
    ids=["custom", "broken", "sequence", "optional"],
)
def test_what_cannot_be_worked_on_is_refused_with_what_to_do(model, message, tmp_path):
    with pytest.raises((UnsupportedModelError, UnsafeFileError, BundleError), match=message) as caught:
        open_graph(write(tmp_path, model))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_graph_without_inputs_is_refused_as_what_it_is(tmp_path, refused):
    node = helper.make_node("Relu", ["w"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, (3,))
    weights = [numpy_helper.from_array(np.ones(3, np.float32), "w")]
    path = write(tmp_path, helper.make_model(helper.make_graph([node], "g", [], [output], weights)))
    with refused(UnsupportedModelError, "has no inputs, so that it always gives the same"):
        open_graph(path)


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x00" * 64])
def test_a_file_that_is_no_graph_says_so(content, tmp_path, refused):
    (tmp_path / "x.onnx").write_bytes(content)
    with refused(BundleError, "is not an ONNX graph"):
        open_model(tmp_path / "x.onnx")


def test_token_ids_are_read_as_such(tmp_path, refused):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["a"]), helper.make_node("ReduceMean", ["a", "axes"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 4])],
        [constant("table", (20, 4), 1), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = open_graph(write(tmp_path, model)).manifest.input
    assert isinstance(spec, TextSpec)
    assert (spec.name, spec.pad) == ("ids", 0)
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    fixed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = write(tmp_path, fixed, "fixed.onnx")
    assert open_graph(path).manifest.input == ArraysSpec(
        inputs=(TensorSpec(name="ids", shape=("batch", 8), dtype="int64"),)
    )


# -- what its outputs are


def with_outputs(outputs, nodes=(), constants=()) -> onnx.ModelProto:
    """``network`` with other outputs: (name, type, shape)."""
    model = network()
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(*output) for output in outputs)
    return model


def test_an_output_that_is_a_constant_stays_one(tmp_path):
    anchors = numpy_helper.from_array(np.arange(4, dtype=np.float32), "k")
    node = helper.make_node("Identity", ["k"], ["anchors"])
    outputs = [("y", TensorProto.FLOAT, ["n", 5]), ("anchors", TensorProto.FLOAT, [4])]
    path = write(tmp_path, with_outputs(outputs, [node], [anchors]))
    x = np.random.default_rng(0).normal(size=(40, *IMAGE[1:])).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    bundle = compress(
        path, tmp_path / "out", data=tmp_path / "x.npz", steps=[Int8Config()], samples=8, keep_slower=True
    )
    for graph in bundle.encodings().values():
        onnx.checker.check_model(onnx.load(graph), full_check=True)
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(["anchors"], {"x": x[:3]})[0], np.arange(4))
    assert bundle.manifest.measurements[-1].outputs["anchors"] is None


@pytest.mark.parametrize(
    ("output", "count", "message"),
    [
        (("c", TensorProto.FLOAT, ["n", 4, 16, 16]), 5, "'c', is batch x 4 x 16 x 16, not one row of class scores"),
        (
            ("c", TensorProto.FLOAT, ["n", 4, 16, 16]),
            16,
            "'c', batch x 4 x 16 x 16, has 16 entries, as there are",
        ),
        (("y", TensorProto.FLOAT, ["n", 5]), 4, "has 5 outputs, but there are 4 labels"),
    ],
)
def test_labels_are_for_rows_of_as_many_classes(output, count, message, tmp_path, refused):
    path = write(tmp_path, with_outputs([output]))
    with refused(UnsupportedModelError, message):
        open_graph(path, OnnxMetadata(labels=tuple(map(str, range(count)))))


def test_a_label_that_comes_first_is_an_answer(tmp_path):
    node = helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0)
    outputs = [("label", TensorProto.INT64, ["n"]), ("y", TensorProto.FLOAT, ["n", 5])]
    path = write(tmp_path, with_outputs(outputs, [node]))
    bundle = open_graph(path, OnnxMetadata(labels=tuple("abcde"), mean=(0.0,), std=(1.0,)))
    x = np.random.default_rng(0).normal(size=(40, *IMAGE[1:])).astype(np.float32)
    y = run(bundle.graph(""), x)
    np.savez(tmp_path / "x.npz", x=x, y=np.array(list("abcde"))[y])
    small = compress(
        bundle.path, tmp_path / "out", data=tmp_path / "x.npz", steps=[Int8Config()], samples=8, keep_slower=True
    )
    first, _, last = small.manifest.measurements
    assert (first.accuracy, first.agreement) == (1.0, 1.0)
    assert last.accuracy == last.agreement >= 0.8
    assert set(last.outputs) == {"label", "y"}


def test_a_batch_that_only_one_output_is_made_for_is_a_sample(tmp_path):
    """The second output is made for a batch of two."""
    model = with_outputs([("y", TensorProto.FLOAT, [2, 5]), ("z", TensorProto.FLOAT, [1, 10])])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 10], np.int64), "flat"))
    model.graph.node.append(helper.make_node("Reshape", ["y", "flat"], ["z"]))
    bundle = open_graph(write(tmp_path, model))
    out = run_by_samples(bundle, np.ones((3, 2, 3, 16, 16), np.float32))
    assert {name: x.shape for name, x in out.items()} == {"y": (3, 2, 5), "z": (3, 1, 10)}


@pytest.mark.parametrize(
    ("node", "output"),
    [
        (helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0]), ("z", TensorProto.FLOAT, [5, "n"])),
        (helper.make_node("Log", ["c"], ["z"]), ("z", TensorProto.FLOAT, ["n", 4, 16, 16])),
    ],
    ids=["batch second", "minus infinity and no number"],
)
def test_outputs_may_have_the_batch_elsewhere_or_values_that_are_no_numbers(node, output, tmp_path):
    outputs = [("y", TensorProto.FLOAT, ["n", 5]), output]
    bundle = open_graph(write(tmp_path, with_outputs(outputs, [node])))
    assert [o.name for o in onnx.load(bundle.graph("")).graph.output] == ["y", "z"]


def test_where_an_output_mixes_the_samples_of_a_batch_each_is_run_by_itself(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["y"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["t", "y"], ["gram"]),
    ]
    outputs = [("y", TensorProto.FLOAT, ["n", 5]), ("gram", TensorProto.FLOAT, [5, 5])]
    path, said = write(tmp_path, with_outputs(outputs, nodes)), Told()
    bundle = open_graph(path, progress=said)
    assert "the output 'gram' is not of one sample each: it depends on the others" in " ".join(said.said)
    signature = bundle.manifest.signature
    assert [(t.shape, t.batch) for t in signature.inputs] == [(("n", 3, 16, 16), 0)]
    assert [(t.shape, t.batch) for t in signature.outputs] == [(("n", 5), 0), ((5, 5), None)]
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    out = run_by_samples(bundle, x)
    assert {name: value.shape for name, value in out.items()} == {"y": (4, 5), "gram": (4, 5, 5)}
    with OnnxRunner(path) as theirs:
        for row in range(4):
            alone = theirs.infer({"x": x[row : row + 1]})
            np.testing.assert_allclose(out["y"][row], alone["y"][0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(out["gram"][row], alone["gram"], rtol=1e-4, atol=1e-5)


def passing(shape: tuple[object, ...], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """What comes in, flattened to a row for each sample."""
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("Flatten", ["f"], ["y"])]
    values = [helper.make_tensor_value_info("x", kind, shape)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], None])
    graph = helper.make_graph(nodes, "g", values, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("shape", "reading", "wanted"),
    [
        (("n", 3, 8, 6), {}, {"shape": ("batch", 3, 8, 6), "resize": 6}),
        (("n", 1, 8, 10), {"mean": (0.5,), "std": (0.2,)}, {"mean": (0.5,), "std": (0.2,), "resize": 8}),
        (("n", 3, "h", "w"), {"size": 7}, {"shape": ("batch", 3, 7, 7), "resize": 7}),
        (("n", 3, 5, "w"), {"size": 7}, {"shape": ("batch", 3, 5, 7), "resize": 5}),
        (("n", 3, 8, 8), {"value_range": (-1.0, 1.0)}, {"value_range": (-1.0, 1.0), "mean": (), "std": ()}),
        (("n", 3, 8, 8), {"mean": (0.5,), "std": (1.0, 2.0, 3.0)}, {"mean": (0.5,) * 3, "std": (1.0, 2.0, 3.0)}),
        (("n", 2, 8, 8), {}, {"inputs": (TensorSpec(name="x", shape=("batch", 2, 8, 8)),)}),
        (("n", 9), {}, {"width": 9, "mean": (), "std": ()}),
        (("n", 4, 9), {"size": 3}, {"inputs": (TensorSpec(name="x", shape=("batch", 4, 9)),)}),
    ],
)
def test_what_a_graph_reads_is_described(shape, reading, wanted, tmp_path):
    spec = open_graph(write(tmp_path, passing(shape)), OnnxMetadata(**reading)).manifest.input
    assert {name: getattr(spec, name) for name in wanted} == wanted
    assert getattr(spec, "name", "x") == "x"


@pytest.mark.parametrize(
    ("shape", "kind", "dtype"),
    [
        (("n", "c", 8, 8), TensorProto.FLOAT, "float32"),
        (("n", "c"), TensorProto.FLOAT, "float32"),
        (("n", 12), TensorProto.INT64, "int64"),
        (("n", 4), TensorProto.UINT8, "uint8"),
        (("n",), TensorProto.BOOL, "bool"),
        (("n", "t", 5), TensorProto.DOUBLE, "float64"),
    ],
)
def test_what_is_no_image_and_no_text_is_an_array_as_it_is(shape, kind, dtype, tmp_path):
    bundle = open_graph(write(tmp_path, passing(shape, kind)))
    wanted = TensorSpec(name="x", shape=("batch", *shape[1:]), dtype=dtype)
    assert bundle.manifest.input == ArraysSpec(inputs=(wanted,))
    assert bundle.manifest.signature.inputs == (wanted,)


@pytest.mark.parametrize(
    ("shape", "kind", "message", "hint"),
    [
        (("n", 3, "h", 8), TensorProto.FLOAT, "reads images of any size", "--size"),
    ],
)
def test_what_cannot_be_described_is_refused(shape, kind, message, hint, tmp_path, refused):
    with refused(UnsupportedModelError, message, hint=hint):
        open_graph(write(tmp_path, passing(shape, kind)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mean": (0.5,)}, "mean and std"),
        ({"std": (0.5,)}, "mean and std"),
        ({"mean": (0.5, 0.5), "std": (1.0, 0.0)}, "with std above 0"),
        ({"mean": (0.5,), "std": (-1.0,)}, "with std above 0"),
        ({"size": 0}, "size cannot be 0"),
        ({"size": -1}, "size cannot be -1"),
    ],
)
def test_why_a_reading_cannot_work_is_said(wrong, message, refused):
    with refused(RecipeError, message):
        OnnxMetadata(**wrong)
    assert OnnxMetadata(size=1).size == 1
    assert OnnxMetadata() == OnnxMetadata(mean=(), std=(), value_range=(0.0, 1.0), size=None, labels=(), tokenizer=None)


def test_of_a_text_without_a_tokenizer_little_is_known(tmp_path):
    spec = open_graph(write(tmp_path, passing(("n", "t"), TensorProto.INT64))).manifest.input
    assert spec == TextSpec(vocabulary=0, pad=0, max_length=512, name="x")


# -- several inputs and outputs


def linked(
    inputs: dict[str, tuple[int, tuple[object, ...]]], nodes: list[onnx.NodeProto], outputs: dict[str, int], **constants
) -> onnx.ModelProto:
    """A graph: input -> type and shape; output -> type. Shapes of outputs are not stated."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def axes(tensors: tuple[TensorSpec, ...]) -> dict[str, int | None]:
    return {tensor.name: tensor.batch for tensor in tensors}


@pytest.mark.parametrize("first", ["n", "batch_size", "anything"])
def test_the_batch_axis_of_each_tensor_is_found_whatever_it_is_called(first, tmp_path):
    """Samples lie along the second axis of one input and of one output; one input and one output have none."""
    model = linked(
        {"x": (FLOAT, (first, 3)), "turned": (FLOAT, (4, first)), "scale": (FLOAT, (4,))},
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Transpose", ["turned"], ["b"], perm=[1, 0]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Mul", ["c", "scale"], ["y"]),
            helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0]),
            helper.make_node("ReduceSum", ["scale"], ["total"], keepdims=1),
        ],
        {"y": FLOAT, "z": FLOAT, "total": FLOAT},
        w=WEIGHT,
    )
    signature = open_graph(write(tmp_path, model)).manifest.signature
    assert axes(signature.inputs) == {"x": 0, "turned": 1, "scale": None}
    assert axes(signature.outputs) == {"y": 0, "z": 1, "total": None}


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_rows_that_are_one_sample_together_are_no_batch(rows, tmp_path):
    """So many rows are put together inside: a batch is what may have any number of them."""
    model = linked(
        {"x": (FLOAT, (rows, 4, 3))},
        [
            helper.make_node("Reshape", ["x", "shape"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["y"]),
        ],
        {"y": FLOAT},
        shape=np.array([-1, rows, 4, 3]),
        w=WEIGHT,
    )
    bundle = open_graph(write(tmp_path, model))
    assert axes(bundle.manifest.signature.inputs) == {"x": None}
    assert bundle.manifest.one_by_one


@pytest.mark.parametrize("shape", [("n", 3), (2, 3), (1, 3), (None, 3)])
@pytest.mark.parametrize("other", ["m", 2, 1, None])
def test_an_input_that_all_samples_share_is_told_from_one_of_each(shape, other, tmp_path):
    """The second is a table of rows, of which the one nearest to each sample counts."""
    model = linked(
        {"x": (FLOAT, shape), "rows": (FLOAT, (other, 3))},
        [
            helper.make_node("Transpose", ["rows"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["all"]),
            helper.make_node("ReduceMax", ["all", "last"], ["y"], keepdims=1),
        ],
        {"y": FLOAT},
        last=np.array([1]),
    )
    bundle = open_graph(write(tmp_path, model))
    assert axes(bundle.manifest.signature.inputs)["x"] == 0
    assert axes(bundle.manifest.signature.inputs)["rows"] is None
    count = other if isinstance(other, int) else 7
    x, table = (np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in (5, count))
    with OnnxRunner(bundle.graph("")) as runner:
        np.testing.assert_allclose(
            runner.infer({"x": x, "rows": table})["y"], (x @ table.T).max(1, keepdims=True), rtol=1e-5
        )


def test_token_ids_come_with_their_mask_and_types(tmp_path):
    names = ("attention_mask", "input_ids", "token_type_ids")
    model = linked(
        dict.fromkeys(names, (INT64, ("batch", "length"))),
        [
            helper.make_node("Gather", ["table", "input_ids"], ["e"]),
            helper.make_node("Add", ["attention_mask", "token_type_ids"], ["m"]),
            helper.make_node("Cast", ["m"], ["f"], to=FLOAT),
            helper.make_node("Unsqueeze", ["f", "last"], ["u"]),
            helper.make_node("Mul", ["e", "u"], ["y"]),
        ],
        {"y": FLOAT},
        table=np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32),
        last=np.array([2]),
    )
    spec = open_graph(write(tmp_path, model)).manifest.input
    assert isinstance(spec, TextSpec)
    assert (spec.name, spec.mask, spec.types) == ("input_ids", "attention_mask", "token_type_ids")


def test_an_image_among_several_inputs_is_prepared_where_it_is_known_how(tmp_path):
    model = linked(
        {"image": (FLOAT, ("n", 3, 4, 4)), "table": (FLOAT, ("n", 3))},
        [
            helper.make_node("ReduceMean", ["image", "axes"], ["m"], keepdims=0),
            helper.make_node("Add", ["m", "table"], ["y"]),
        ],
        {"y": FLOAT},
        axes=np.array([2, 3]),
    )
    path = write(tmp_path, model)
    assert isinstance(open_graph(path).manifest.input, ArraysSpec)
    spec = open_graph(path, OnnxMetadata(mean=(0.5,), std=(0.25,))).manifest.input
    assert isinstance(spec, MappingSpec)
    assert list(spec.fields) == ["image", "table"]


def test_inputs_that_two_processors_could_make_are_arrays_unless_one_is_named(tmp_path, refused):
    plugin = ModuleType("acme")

    @pocketzoo.hookimpl
    def pocketzoo_processors():
        own = AcmeSamples(rate=8000)
        return [
            ProcessorSpec(
                name="acme-sound", summary="s", modality="audio", reads="sounds", config=AcmeSamples,
                open=lambda config, files: None, feeds=lambda asked: own if len(asked.inputs[0].shape) == 2 else None,
            )
        ]  # fmt: skip

    plugin.pocketzoo_processors = pocketzoo_processors
    registry = Registry(create_manager(points=[], extra=[plugin]))
    rows = ForeignInputs(inputs=(TensorSpec(name="x", shape=("batch", 4)),), source="m.onnx")
    heard = Told()
    assert _input_config(rows, {}, "", registry, heard) == ArraysSpec(inputs=rows.inputs)
    assert heard.said == ["acme-sound and table could make its inputs: read as arrays, unless --processor says which"]
    assert _input_config(rows, {}, "acme-sound", registry, heard) == AcmeSamples(rate=8000)
    assert _input_config(rows, {}, "table", registry, heard) == TableSpec(width=4, name="x")
    assert _input_config(rows, {}, "arrays", registry, heard) == ArraysSpec(inputs=rows.inputs)
    with refused(RecipeError, "the processor 'image' does not make the inputs of m.onnx", hint="--processor arrays"):
        _input_config(rows, {}, "image", registry, heard)
    with refused(UnknownNameError, "'tabel'", hint="table"):
        _input_config(rows, {}, "tabel", registry, heard)
    ids = ForeignInputs(inputs=(TensorSpec(name="x", shape=("batch", 4), dtype="int64"),))
    assert _input_config(ids, {}, "", registry, heard) == AcmeSamples(rate=8000), "it alone says that it makes them"


def test_an_image_graph_may_be_said_to_read_arrays(tmp_path):
    path = write(tmp_path, passing(("n", 3, "h", "w")))
    spec = open_graph(path, OnnxMetadata(processor="arrays")).manifest.input
    assert spec == ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", 3, "h", "w")),))


@dataclass(frozen=True)
class AcmeSamples:
    rate: int = 8000


def test_types_that_nothing_here_makes_are_refused_by_name(tmp_path, refused):
    model = linked(
        {"x": (FLOAT, ("n", 3)), "words": (TensorProto.STRING, ("n",))},
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["words"], ["z"])],
        {"y": FLOAT, "z": TensorProto.STRING},
    )
    with refused(UnsupportedModelError, "reads str as its input 'words'", hint="float32"):
        open_graph(write(tmp_path, model))


def test_whole_numbers_that_index_a_small_table_are_found_by_trying(tmp_path):
    """Two rows: all numbers but 0 and 1 are out of bounds."""
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    model = linked({"i": (INT64, ("n",))}, nodes, {"y": FLOAT}, table=WEIGHT[:2])
    signature = open_graph(write(tmp_path, model)).manifest.signature
    assert isinstance(signature, ModelSignature)
    assert axes(signature.outputs) == {"y": 0}


@pytest.mark.parametrize(
    ("samples", "least"), [("samples", 4), ("samples", 100), ("samples", 3000), (None, 100)], ids=str
)
def test_a_graph_that_needs_long_axes_is_given_them(samples, least, tmp_path):
    """Mirrored padding takes less than there is, so that 4 to 3000 samples are too few."""
    nodes = [
        helper.make_node("Pad", ["x", "by"], ["padded"], mode="reflect"),
        helper.make_node("ReduceMean", ["padded", "last"], ["y"], keepdims=1),
    ]
    by = np.array([0, least, 0, 0])
    model = linked({"x": (FLOAT, ("n", samples))}, nodes, {"y": FLOAT}, by=by, last=np.array([1]))
    bundle = open_graph(write(tmp_path, model))
    assert axes(bundle.manifest.signature.inputs) == {"x": 0}
    x = np.random.default_rng(0).normal(size=(5, least + 7)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (least, 0)], mode="reflect")
    with OnnxRunner(bundle.graph("")) as runner:
        np.testing.assert_allclose(runner.infer({"x": x})["y"], padded.mean(1, keepdims=True), atol=1e-6)
        noise = random_samples(bundle.manifest.input, 2)  # what it is measured on without data
        assert noise["x"].shape[1] > least
        assert runner.infer(noise)["y"].shape == (2, 1)
    lengths = {samples or "x_1": noise["x"].shape[1]} if least > 8 else {}
    assert bundle.manifest.input.lengths == lengths
    usual = {samples or "x_1": (noise["x"].shape[1],) * 3}
    assert export_request(bundle, EngineOptions()).options.usual == usual


@pytest.mark.parametrize("length", [256, 2048])
def test_a_graph_that_takes_one_length_alone_is_given_it(length, tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = linked({"x": (FLOAT, ("n", "samples"))}, nodes, {"y": FLOAT}, shape=np.array([0, length]))
    assert axes(open_graph(write(tmp_path, model)).manifest.signature.outputs) == {"y": 0}


def test_axes_without_names_are_put_together_by_trying(tmp_path):
    """Samples lie along the first axis of one input and the second of the other, and no axis says so."""
    model = linked(
        {"x": (FLOAT, (None, 4)), "state": (FLOAT, (2, None, 4))},
        [helper.make_node("Add", ["state", "x"], ["next"]), helper.make_node("ReduceMax", ["next", "first"], ["y"])],
        {"y": FLOAT, "next": FLOAT},
        first=np.array([0]),
    )
    signature = open_graph(write(tmp_path, model)).manifest.signature
    assert axes(signature.inputs) == {"x": 0, "state": 1}
    assert axes(signature.outputs) == {"y": 1, "next": 1}
