"""The metric of a layer: exact where the model is linear, blind to positions that nothing reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketzoo.compress.low_rank import kronecker_factors as kronecker
from pocketzoo.compress.low_rank.kronecker_factors import KroneckerFactors, kronecker_factors, passes
from pocketzoo.compress.pruning import gauss_newton
from pocketzoo.compress.statistics.second_moments import shrunk


class Chain(nn.Module):
    """Two linear layers on sequences; only the first ``read`` positions reach the output."""

    def __init__(self, read: int, detached: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(6, 5), nn.Linear(5, 4, bias=False), nn.Linear(3, 3)
        self.read, self.detached = read, detached

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))[:, : self.read].flatten(1)
        return y.detach() if self.detached else y


def samples(count: int = 48, length: int = 3) -> list[np.ndarray]:
    x = np.random.default_rng(0).normal(size=(count, length, 6)).astype(np.float32)
    return [x[: count // 2], x[count // 2 :]]


def test_gradients_of_a_linear_model_are_its_weights(randomised):
    """Errors of the first layer reach the outputs through the second: G = W2T W2 a position, up to the draw."""
    model = randomised(Chain(3))
    found = kronecker_factors(model, ["first", "second", "idle"], samples(), probes=64)
    weight = model.second.weight.detach().double()
    wanted = 3 * weight.T @ weight
    assert set(found) == {"first", "second"}
    assert torch.linalg.norm(found["first"].outputs - wanted) < 0.1 * torch.linalg.norm(wanted)
    torch.testing.assert_close(found["second"].outputs.diagonal(), torch.full((4,), 3.0, dtype=torch.float64))


def test_positions_that_nothing_reads_do_not_count(randomised):
    model = randomised(Chain(2))
    given = samples()
    effect = kronecker_factors(model, ["first"], given)["first"]
    read = np.concatenate(given)[:, :2].reshape(-1, 6).astype(np.float64)
    assert effect.inputs is not None
    assert effect.inputs.count == len(read)
    np.testing.assert_allclose(effect.inputs.mean.numpy(), read.T @ read / len(read), rtol=1e-5, atol=1e-6)
    assert effect.shape == (3, 6)


def test_a_model_that_hides_its_gradients_is_weighed_by_its_inputs(randomised):
    model = randomised(Chain(2, detached=True))
    effect = kronecker_factors(model, ["first"], samples())["first"]
    metric = effect.metric(model.first)
    assert metric is not None
    assert metric.outputs is None
    assert effect.inputs is not None
    assert effect.inputs.count == 48 * 3


def test_parts_fit_into_memory_and_leave_none_out():
    layers = {str(i): nn.Linear(5000, 2) for i in range(5)}
    parts = list(passes(layers))
    assert [name for part in parts for name in part] == list(layers)
    assert max(map(len, parts)) == 2


@pytest.mark.parametrize(("count", "probes"), [(1, 1), (1, 2), (2, 1), (9, 3), (20, 2)])
def test_effects_are_of_one_sample_however_many_are_drawn(count, probes, randomised):
    """Signs have squares of 1: where a layer gives the output, its diagonal is 1 with nothing left to chance."""
    model = randomised(nn.Sequential(nn.Linear(4, 3)))
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    effect = kronecker_factors(model, ["0"], [x], probes=probes)["0"]
    torch.testing.assert_close(effect.outputs.diagonal(), torch.ones(3, dtype=torch.float64))
    assert effect.calls == -(-count // 8)
    assert [len(live) for live in effect.live] == [8] * (count // 8) + [count % 8] * bool(count % 8)


def test_outputs_that_nothing_depends_on_are_not_forgotten():
    """Each has at least a thousandth of what the one that matters most has."""
    effect = KroneckerFactors(None, torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)))
    assert effect.known_outputs is not None
    wanted = torch.diag(torch.tensor([4.004, 0.004], dtype=torch.float64))
    torch.testing.assert_close(effect.known_outputs, wanted, rtol=0, atol=1e-14)
    assert KroneckerFactors(None, torch.zeros(2, 2)).known_outputs is None
    assert KroneckerFactors(None, torch.full((2, 2), torch.nan)).known_outputs is None
    assert effect.metric(nn.Linear(3, 2)) is None


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_of_the_inputs_counts_where_no_bias_can_take_it(bias, randomised):
    layer = nn.Linear(4, 3, bias=bias)
    x = 5.0 + np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    effect = kronecker_factors(randomised(nn.Sequential(layer)), ["0"], [x])["0"]
    metric = effect.metric(layer)
    assert metric is not None
    wanted = np.cov(x.T, bias=True) if bias else x.T @ x / len(x)
    np.testing.assert_allclose(metric.inputs.numpy(), shrunk(torch.tensor(wanted), 400).numpy(), rtol=1e-3, atol=1e-3)


def test_pruning_estimates_the_same_matrix_relative_to_the_outputs(randomised, monkeypatch):
    monkeypatch.setattr(gauss_newton, "DIRECTIONS", 200)
    model, given = randomised(Chain(3)), samples(16)
    absolute = kronecker_factors(model, ["first", "second"], given, probes=200)
    relative = gauss_newton.output_sensitivity(model, ["first", "second"], given)
    with torch.no_grad():
        energy = float(model(torch.from_numpy(np.concatenate(given))).double().square().sum()) / 16
    for name in ("first", "second"):
        torch.testing.assert_close(relative[name] * energy, absolute[name].outputs, rtol=0.1, atol=0.15)


def test_positions_of_an_image_are_summed_channel_by_channel():
    """Every output of the convolution is one of the model: JT J is the identity at each of its 2 x 3 positions."""
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten())
    x = np.random.default_rng(0).normal(size=(5, 3, 3, 4)).astype(np.float32)
    outputs = kronecker_factors(model, ["0"], [x], probes=400)["0"].outputs
    torch.testing.assert_close(outputs.diagonal(), torch.full((4,), 6.0, dtype=torch.float64))
    torch.testing.assert_close(outputs, 6 * torch.eye(4, dtype=torch.float64), rtol=0, atol=0.5)


def test_what_is_drawn_and_held():
    assert (kronecker.PROBES, kronecker.AT_ONCE, kronecker.LEAST, kronecker.MEMORY) == (2, 8, 1e-3, 512e6)


@pytest.mark.parametrize(
    ("widths", "parts"),
    [
        ([3], ["0"]),
        ([3, 4], ["01"]),
        ([4, 3], ["01"]),
        ([3, 4, 1], ["01", "2"]),
        ([5, 1], ["0", "1"]),
        ([9, 9, 1], ["0", "1", "2"]),
        ([1, 9, 1, 2], ["0", "1", "23"]),
        ([], []),
    ],
)
def test_a_part_is_as_large_as_memory_allows(widths, parts, monkeypatch):
    """Of 25 numbers of 8 bytes; what is larger alone is a part of its own."""
    monkeypatch.setattr(kronecker, "MEMORY", 25 * 8.0)
    layers = {str(i): nn.Linear(width, 2) for i, width in enumerate(widths)}
    assert ["".join(part) for part in passes(layers)] == parts


def test_signs_are_one_and_minus_one():
    signs = kronecker._signs(torch.Size([40, 5]), torch.Generator().manual_seed(0))
    assert set(signs.flatten().tolist()) == {-1, 1}
    assert abs(float(signs.double().mean())) < 0.3


def test_inputs_may_be_left_out_and_the_model_is_not_changed(randomised):
    model = randomised(Chain(2)).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found = kronecker_factors(model, ["first", "second"], samples(), inputs=False)
    assert all(effect.inputs is None for effect in found.values())
    assert [len(effect.live) for effect in found.values()] == [6, 6]
    assert found["second"].live[0].tolist() == [True, True, False] * 8
    assert found["first"].outputs.abs().sum() > 0
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


def test_a_row_counts_if_any_output_or_any_probe_reaches_it():
    call = kronecker.Call.__new__(kronecker.Call)
    gradients = [torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])]
    for name, value in {"name": "a", "input": torch.arange(12.0).view(1, 3, 4), "gradients": gradients}.items():
        object.__setattr__(call, name, value)
    estimates: dict[str, KroneckerFactors] = {}
    kronecker._add(estimates, call, nn.Linear(4, 2), True)
    kronecker._add(estimates, call, nn.Linear(4, 2), True)
    found = estimates["a"]
    assert (found.shape, found.calls) == ((3, 4), 2)
    assert [live.tolist() for live in found.live] == [[True, True, False]] * 2
    assert found.outputs.tolist() == [[8.0, 0.0], [0.0, 2.0]]
    assert found.inputs is not None
    assert found.inputs.count == 4
    np.testing.assert_allclose(found.inputs.mean[0], [8.0, 10.0, 12.0, 14.0])  # of 0 x and 4 x


def test_moments_that_are_not_finite_say_nothing(randomised):
    layer = nn.Linear(4, 3)
    x = np.full((8, 4), 1.0, np.float32)
    x[0, 0] = np.inf
    assert kronecker_factors(randomised(nn.Sequential(layer)), ["0"], [x])["0"].metric(layer) is None


def test_layers_of_one_output_are_as_good_as_others(randomised):
    layers = {"one": nn.Linear(4, 1), "map": nn.Conv2d(4, 1, 1)}
    assert list(passes(layers)) == [["one", "map"]]
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    found = kronecker_factors(randomised(nn.Sequential(layers["one"])), ["0"], [x])["0"]
    assert found.outputs.tolist() == [[1.0]]
    assert found.inputs is not None
    assert found.inputs.count == 8
