"""Modules to graphs: equal outputs at every batch size, or an error and no file."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import ExportError, ExportMismatchError
from pocketzoo.plugins.tinynet.module import TinyNet
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.processor_configs import MappingSpec, TableSpec
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.graphs.files import graph_files
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.build import example
from pocketzoo.zoo.models.export_graph import BATCHES, TOLERANCE, _compare, onnx_from_model

SPEC = InputSpec(shape=("batch", 2, 6, 6), mean=(0.5,) * 2, std=(0.5,) * 2, resize=6, name="pixels")


class Small(nn.Module):
    """A bit of everything that a classifier has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.pool, self.drop, self.fc = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Linear(4, 3)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = nn.functional.hardswish(self.bn(self.conv(x)))
        x = torch.relu(self.depthwise(x)) + x[:, :, 1:-1, 1:-1]
        return self.fc(self.drop(self.pool(x).flatten(1)))


def broken(forward):
    """A module with one weight and this forward."""

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(72, 3)

        def forward(self, x):
            return forward(self, x)

    return Broken()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "deep" / "m.onnx"
    module = Small()
    module.train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    difference = onnx_from_model(module, SPEC, path)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()), "exporting changes no weight"
    return module.eval(), path, difference


@pytest.mark.parametrize("batch", [*BATCHES, 3, 64])
def test_the_graph_computes_what_the_module_does(exported, batch):
    module, path, difference = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(batch, 2, 6, 6, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(session.run(None, {"pixels": x.numpy()})[0], wanted, atol=1e-4 * np.abs(wanted).max())
    assert 0 <= difference <= TOLERANCE


def test_the_graph_is_one_valid_file_with_a_free_batch(exported):
    _, path, _ = exported
    assert [p.name for p in path.parent.iterdir()] == ["m.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (given,), (out,) = model.graph.input, model.graph.output
    assert (given.name, out.name) == ("pixels", "logits")
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert [d.dim_value for d in given.type.tensor_type.shape.dim[1:]] == [2, 6, 6]
    assert {o.domain: o.version for o in model.opset_import}[""] == 20


def test_batch_norm_and_dropout_are_folded(exported):
    ops = [node.op_type for node in onnx.load(exported[1]).graph.node]
    assert "BatchNormalization" not in ops
    assert "Dropout" not in ops
    assert ops.count("Conv") == 2


def test_the_reported_difference_is_the_largest(exported):
    module, path, difference = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in BATCHES:
        x = example(SPEC, batch)
        with torch.no_grad():
            wanted = module(x).numpy()
        given = session.run(None, {"pixels": x.numpy()})[0]
        worst = max(worst, float(np.abs(given - wanted).max() / np.abs(wanted).max()))
    assert difference == pytest.approx(worst, abs=1e-7)


def test_the_exporter_is_quiet_and_leaves_the_logger_alone(tmp_path, capfd):
    logger = logging.getLogger("torch.onnx")
    logger.setLevel(logging.INFO)
    try:
        onnx_from_model(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), SPEC, tmp_path / "m.onnx", opset=18)
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)
    assert capfd.readouterr() == ("", "")
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 18


def test_a_large_module_has_its_weights_alongside_its_graph(tmp_path, monkeypatch, refused):
    module, path = nn.Sequential(nn.Flatten(), nn.Linear(72, 30)).eval(), tmp_path / "m.onnx"
    monkeypatch.setattr(graph_files, "LARGEST", 4_000)
    assert onnx_from_model(module, SPEC, path) <= TOLERANCE
    assert weight_files(path) == [tmp_path / "m.onnx.data"]
    stored = {tuple(t.dims): numpy_helper.to_array(t) for t in load_graph(path).graph.initializer}
    assert np.array_equal(stored[30, 72], module[1].weight.detach().numpy())
    module[1].weight.data.fill_(float("nan"))
    with refused(ExportMismatchError):
        onnx_from_model(module, SPEC, tmp_path / "bad.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_a_mismatch(tmp_path, refused, fill):
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    nn.init.constant_(module[1].weight, fill)
    with refused(ExportMismatchError, "nan", hint="NaN"):
        onnx_from_model(module, SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class Cancelling(nn.Module):
    """The small difference of two large numbers, which are one number computed in two orders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(72, 3), nn.Linear(72, 3)
        with torch.no_grad():
            self.one.weight.mul_(1e4)
            self.two.weight.copy_(self.one.weight.flip(1))
            self.two.bias.copy_(self.one.bias)

    def forward(self, x):
        x = x.flatten(1)
        return self.one(x) - self.two(x.flip(1)) + x[:, :3]


def test_a_module_that_is_itself_uncertain_is_no_mismatch(tmp_path):
    """torch gives noise in 32 bits, and so may the graph; a graph that is off by much more is refused as ever."""
    module = Cancelling().eval()
    assert onnx_from_model(module, SPEC, tmp_path / "m.onnx") > TOLERANCE
    with torch.no_grad():
        module.one.weight.mul_(1e-4)
        module.two.weight.mul_(1e-4)
    assert onnx_from_model(module, SPEC, tmp_path / "n.onnx") <= TOLERANCE * 10


def test_a_module_with_chance_inside_is_a_mismatch(tmp_path, refused):
    module = broken(lambda self, x: self.fc(x.flatten(1)) + torch.rand(3))
    with refused(ExportMismatchError, "off by", hint="randomness"):
        onnx_from_model(module, SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.fc(x.reshape(2, -1)),
        lambda self, x: self.fc(x.flatten(1)) * torch.ones(2, 1),
        lambda self, x: self.fc(x.flatten(1)) if x.shape[0] == 2 else self.fc(x.flatten(1)) + 1,
        lambda self, x: self.fc(x.flatten(1)) + float(x.shape[0]),
        lambda self, x: self.fc(x.flatten(1))[:2],
    ],
    ids=["reshape", "broadcast", "branch", "number", "slice"],
)
def test_a_module_that_depends_on_the_batch_is_refused_or_right(tmp_path, forward):
    """torch may refuse it, the comparison may catch it, or the graph may be right at every size: never wrong."""
    module, path = broken(forward), tmp_path / "m.onnx"
    try:
        onnx_from_model(module, SPEC, path)
    except ExportError as error:
        problem = error
        assert list(tmp_path.iterdir()) == []
    else:
        problem = None
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for batch in (1, 2, 3, 5, 8):
            x = example(SPEC, batch)
            with torch.no_grad():
                wanted = module(x).numpy()
            np.testing.assert_allclose(session.run(None, {"pixels": x.numpy()})[0], wanted, atol=1e-4)
    assert path.exists() == (problem is None)


def test_a_module_that_cannot_be_exported_says_why(tmp_path, refused):
    module = broken(lambda self, x: self.fc(x.flatten(1)) if x.sum() > 0 else x)
    (tmp_path / "m.onnx").write_bytes(b"old")
    with refused(ExportError, "torch cannot export this model: ", "data-dependent") as caught:
        onnx_from_model(module, SPEC, tmp_path / "m.onnx")
    assert "\x1b" not in caught.value.message, "colors are for terminals"
    assert (tmp_path / "m.onnx").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_module_that_raises_says_why(tmp_path, refused):
    def forward(self, x):
        raise RuntimeError("no such luck")

    with refused(ExportError, "torch cannot export this model: ", "no such luck"):
        onnx_from_model(broken(forward), SPEC, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "forward",
    [lambda self, x: (self.fc(x.flatten(1)), x), lambda self, x: {"a": self.fc(x.flatten(1)), "b": [x]}],
    ids=["tuple", "dict of lists"],
)
def test_outputs_without_names_are_an_export_error(tmp_path, refused, forward):
    with refused(ExportError, "the model", hint="names"):
        onnx_from_model(broken(forward), SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_input_of_another_shape_is_an_export_error(tmp_path, refused):
    with refused(ExportError, "torch cannot export"):
        onnx_from_model(TinyNet(), SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_opset_20_holds_for_the_model_that_ships(fitted):
    model = onnx.load(fitted.graph())
    assert {o.domain: o.version for o in model.opset_import}[""] == 20
    onnx.checker.check_model(model, full_check=True)
    ops = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in ops


def test_torch_gathers_its_translations_once(exported, tmp_path, monkeypatch):
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    own = vars(ONNXRegistry)["from_torchlib"]
    monkeypatch.setattr(ONNXRegistry, "_register", None)  # to gather them anew would fail
    onnx_from_model(Small().eval(), SPEC, tmp_path / "again.onnx")
    assert vars(ONNXRegistry)["from_torchlib"] is own


class Standardised(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        return F.conv2d(x, w - w.mean((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)


class Flat(nn.Module):
    """What is computed of sequences is a MatMul: the weight is turned as well."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(2)).mean(1)


norm = nn.utils.parametrizations.weight_norm
COMPUTED = {
    "weight norm": (lambda: nn.Sequential(norm(nn.Conv2d(8, 128, 3)), nn.Flatten(), nn.Linear(128 * 36, 3)), "0"),
    "standardized": (lambda: nn.Sequential(Standardised(8, 128, 3), nn.Flatten(), nn.Linear(128 * 36, 3)), "0"),
    "transposed": (lambda: nn.Sequential(norm(nn.ConvTranspose2d(8, 128, 3)), nn.Flatten()), "0"),
    "vectors": (lambda: nn.Sequential(nn.Flatten(), norm(nn.Linear(512, 64))), "1"),
    "sequences": (lambda: Flat(norm(nn.Linear(64, 400))), "layer"),
    "a sum of two": (lambda: Flat(nn.utils.parametrizations.spectral_norm(nn.Linear(64, 400))), "layer"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_weight_that_follows_from_constants_is_one_and_called_as_the_layer_does(name, tmp_path):
    make, layer = COMPUTED[name]
    torch.manual_seed(0)
    spec = InputSpec(shape=("batch", 8, 8, 8), mean=(0.0,) * 8, std=(1.0,) * 8, resize=8)
    module = make().eval()
    assert onnx_from_model(module, spec, tmp_path / "m.onnx") <= TOLERANCE
    graph = onnx.load(tmp_path / "m.onnx").graph
    stored = {t.name: t for t in graph.initializer}
    assert f"{layer}.weight" in {n.input[1] for n in graph.node if len(n.input) > 1}
    found = np.sort(numpy_helper.to_array(stored[f"{layer}.weight"]).ravel())
    with torch.no_grad():
        own = module.get_submodule(layer).weight
        own = own - own.mean((1, 2, 3), keepdim=True) if name == "standardized" else own
    np.testing.assert_allclose(found, np.sort(own.detach().numpy().ravel()), atol=1e-6)
    assert not [name for name in stored if "parametrizations" in name]


def test_a_weight_that_is_read_turned_too_is_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.into = nn.Linear(512, 512)

        def forward(self, x):
            return F.linear(self.into(x.flatten(1)).relu(), self.into.weight.t())

    spec = InputSpec(shape=("batch", 8, 8, 8), mean=(0.0,) * 8, std=(1.0,) * 8, resize=8)
    onnx_from_model(Tied().eval(), spec, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 1.5 * 4 * 512 * 512


def test_a_graph_of_another_shape_is_a_mismatch_that_names_both(tmp_path, refused):
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(72, outputs)) for outputs in (3, 2)]
    onnx_from_model(modules[0], SPEC, tmp_path / "m.onnx")
    size = BATCHES[0]
    shapes = f"at batch {size} the graph outputs ({size}, 3), torch ({size}, 2)"
    with refused(ExportMismatchError, shapes, hint="a view or reshape in the model fixes the batch size"):
        _compare(modules[1], as_processor(SPEC), tmp_path / "m.onnx")


class Two(nn.Module):
    """Two inputs, and outputs of two types."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.picture, self.row, self.wrong = nn.Linear(72, 4), nn.Linear(3, 4), wrong

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Tensor]:
        hidden = self.picture(image.flatten(1)) * self.row(table)
        return {"sum": hidden.sum(1, keepdim=True) + self.wrong, "best": hidden.argmax(1)}


PAIR = MappingSpec(fields={"image": SPEC, "table": TableSpec(width=3, name="table")})


def test_inputs_and_outputs_have_the_names_of_the_processor_and_of_the_module(tmp_path):
    torch.manual_seed(0)
    module, path = Two().eval(), tmp_path / "m.onnx"
    assert onnx_from_model(module, PAIR, path) <= 1e-5
    assert signature_of(path) == ModelSignature(
        inputs=as_processor(PAIR).inputs,
        outputs=(
            TensorSpec(name="sum", shape=("batch", 1)),
            TensorSpec(name="best", shape=("batch",), dtype="int64"),
        ),
    )
    generator = np.random.default_rng(0)
    for count in (1, 3, 17):
        feed = {
            SPEC.name: generator.normal(size=(count, *SPEC.shape[1:])).astype(np.float32),
            "table": generator.normal(size=(count, 3)).astype(np.float32),
        }
        with OnnxRunner(path) as runner, torch.no_grad():
            outputs = runner.infer(feed)
            expected = module(*map(torch.from_numpy, feed.values()))
        np.testing.assert_allclose(outputs["sum"], expected["sum"], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(outputs["best"], expected["best"])


def test_the_worst_output_decides_and_is_named(tmp_path, refused):
    """The graph of one module is held against another, of which one output is off."""
    torch.manual_seed(0)
    module, path = Two().eval(), tmp_path / "m.onnx"
    onnx_from_model(module, PAIR, path)
    other = Two(wrong=5.0).eval()
    other.load_state_dict(module.state_dict())
    with refused(ExportMismatchError, "the graph is off by", "in 'sum'"):
        _compare(other, as_processor(PAIR), path)
    with torch.no_grad():
        module.row.weight.mul_(-1)  # the best becomes the worst
        module.row.bias.mul_(-1)
    module.forward = lambda image, table: {
        **Two.forward(module, image, table),
        "sum": -Two.forward(module, image, table)["sum"],
    }
    with refused(ExportMismatchError, "in 'best'"):
        _compare(module, as_processor(PAIR), path)
