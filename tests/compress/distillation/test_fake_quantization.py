"""Floats that compute as int8 will: on the grid, with gradients as if nothing were rounded."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pocketzoo import default_registry
from pocketzoo.compress.configs import DistillConfig, Int8Config
from pocketzoo.compress.distillation import distill, fake_quantization
from pocketzoo.compress.distillation.fake_quantization import FakeInt8, rounded, rounded_weight
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.catalog.compressor import Distillation
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.models.export_graph import onnx_from_model

SPEC = InputSpec(shape=("batch", 3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resize=8)


def test_a_weight_has_at_most_255_levels_a_channel() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 9, 9)
    weight[1] *= 1000
    weight[2] = 0
    found = rounded_weight(weight)
    scale = weight.flatten(1).abs().amax(1) / 127
    levels = found[[0, 1, 3]].flatten(1) / scale[[0, 1, 3], None]
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert torch.equal(found[2], weight[2])
    assert (found - weight).flatten(1).abs().amax(1).le(scale / 2 * 1.001).all()
    torch.testing.assert_close(rounded_weight(found), found)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-5.0, 0.0)])
def test_inputs_saturate_and_zero_is_exact(low: float, high: float) -> None:
    x = torch.linspace(-10, 10, 4001)
    found = rounded(x, low, high)
    assert len(found.unique()) <= 256
    step = (high - low) / 255
    inside = (x >= low) & (x <= high)
    assert (found - x)[inside].abs().max() <= step * 1.01
    assert found.min() >= low - step
    assert found.max() <= high + step
    assert rounded(torch.zeros(1), low, high).item() == 0.0


def test_gradients_pass_and_stop_where_values_saturate() -> None:
    x = torch.tensor([-2.0, 0.3, 0.9, 5.0], requires_grad=True)
    rounded(x, -1.0, 1.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    weight = torch.randn(3, 4, requires_grad=True)
    (rounded_weight(weight) * 2).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full((3, 4), 2.0))


class Net(nn.Module):
    """A convolution, a depthwise one and a linear layer; one layer never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.each = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU())
        self.out, self.unused = nn.Linear(8, 5), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.each(self.stem(x)).mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def net(randomised) -> nn.Module:
    return randomised(Net())


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(32, 3, 8, 8)).astype(np.float32) for _ in range(4)]


def test_it_errs_as_the_int8_graph_does(net, samples, tmp_path) -> None:
    """With weights that 8 bits hold exactly the noise is that of activations, and as large."""
    fake = FakeInt8(copy.deepcopy(net))
    fake.observe((torch.from_numpy(x),) for x in samples)
    assert set(fake.ranges) == {"stem.0", "each.0", "out"}
    fake.settle()
    path = tmp_path / "net.onnx"
    onnx_from_model(fake.inner, SPEC, path)
    model = onnx.load(path)
    cpu = default_registry().get("target", "cpu")
    graph = int8.apply(model, int8.plan(model, Int8Config(ranges="mse"), samples), cpu)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.concatenate(samples)
    theirs = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        ours, exact = fake(torch.from_numpy(x)).numpy(), fake.inner(torch.from_numpy(x)).numpy()
    assert 0.3 < np.square(ours - exact).sum() / np.square(theirs - exact).sum() < 3


def test_healing_with_8_bits_comes_nearer_with_8_bits(net, samples, tmp_path) -> None:
    """Weights no grid of 8 bits fits: a channel has one huge weight, and the others vanish beside it."""
    model = copy.deepcopy(net)
    with torch.no_grad():
        model.stem[0].weight[:, 0, 0, 0] += 60
    x = torch.from_numpy(np.concatenate(samples))

    def distance(candidate: nn.Module) -> float:
        fake = FakeInt8(candidate)
        fake.observe([(x,)])
        with torch.no_grad():
            return float((fake(x) - net(x)).square().mean())

    found = {}
    for quantized in (False, True):
        config = DistillConfig(epochs=8, batch_size=16, learning_rate=1e-2, quantized=quantized)
        context = Distillation(net, tmp_path / str(quantized), SILENT)
        found[quantized] = distance(
            distill.distill(model, distill.plan(model, config, samples, None), samples, context)
        )
    assert found[True] < distance(model)
    assert found[True] < found[False]


# -- to the level


def test_weights_are_rounded_in_levels_of_their_channel() -> None:
    weight = torch.tensor([[127.0, 1.4, -0.6, 0.4], [0.0, 0.0, 0.0, 0.0], [-12.7, 0.26, 0.04, 12.7]])
    wanted = torch.tensor([[127.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-12.7, 0.3, 0.0, 12.7]])
    for shape in ((3, 4), (3, 4, 1), (3, 2, 2), (3, 1, 2, 2)):
        torch.testing.assert_close(rounded_weight(weight.view(shape)), wanted.view(shape))


@pytest.mark.parametrize(
    ("low", "high", "values", "wanted"),
    [
        (0.0, 255.0, [-3.0, 0.4, 0.6, 254.7, 255.0, 300.0], [0.0, 0.0, 1.0, 255.0, 255.0, 255.0]),
        (-255.0, 0.0, [-300.0, -254.8, -0.6, 0.4, 5.0], [-255.0, -255.0, -1.0, 0.0, 0.0]),
        (-100.0, 155.0, [-101.0, -100.4, 0.2, 154.6, 156.0], [-100.0, -100.0, 0.0, 155.0, 155.0]),
        (-100.4, 154.6, [-101.0, 154.9, 157.0], [-100.0, 155.0, 155.0]),
        (-51.0, 76.5, [-60.0, 0.3, -0.2, 80.0], [-51.0, 0.5, 0.0, 76.5]),
    ],
)
def test_inputs_are_rounded_in_256_levels_of_which_one_is_zero(low, high, values, wanted) -> None:
    torch.testing.assert_close(rounded(torch.tensor(values), low, high), torch.tensor(wanted))


def test_a_layer_computes_with_rounded_inputs_and_weights_and_keeps_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    fake = FakeInt8(model)
    x = torch.tensor([[255.0, 0.4], [100.2, 7.6]])
    with torch.no_grad():
        assert torch.equal(fake(x), model(x))  # nothing is known of ranges yet
    fake.ranges = {"0": (0.0, 255.0)}
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        hidden = torch.tensor([[255.0, 0.0], [100.0, 8.0]]) @ rounded_weight(before).T + model[0].bias
        torch.testing.assert_close(fake(x), model[2](hidden.relu()))
    assert torch.equal(model[0].weight, before)
    fake.settle()
    torch.testing.assert_close(model[0].weight, rounded_weight(before))
    assert not torch.equal(model[0].weight, before)


def test_ranges_are_those_that_calibration_finds_and_hold_zero() -> None:
    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.dead, self.idle = (nn.Linear(2, 2) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x * 0)
            return self.b(self.a(x).relu())

    model = Some()
    fake = FakeInt8(model)
    batches = [torch.tensor([[-1.0, 0.5]]), torch.tensor([[0.25, 2.0]])]
    fake.observe((batch,) for batch in batches)
    assert set(fake.ranges) == {"a", "b"}
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.numpy())
    wanted = histogram.range(Int8Config(ranges="mse"))
    assert fake.ranges["a"] == (wanted.low, wanted.high)
    assert fake.ranges["b"][0] == 0.0
    assert not any(m._forward_pre_hooks for m in model.modules())
    fake.observe([(torch.tensor([[-8.0, 8.0]]),)])
    assert fake.ranges["a"][1] > 4.0  # of what was seen last, and no more


def test_gradients_arrive_at_the_weights_of_what_is_run() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    fake = FakeInt8(model)
    fake.ranges = {"0": (0.0, 255.0)}
    fake(torch.tensor([[3.4, 300.0]])).sum().backward()
    torch.testing.assert_close(model[0].weight.grad, torch.tensor([[3.0, 255.0]] * 2))


def test_levels_are_127_of_a_weight_and_255_of_an_input() -> None:
    assert (fake_quantization.WEIGHT_LEVELS, fake_quantization.INPUT_LEVELS) == (127, 255)
