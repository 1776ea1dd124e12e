"""What an error does to the output, against the Jacobian written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.pruning import gauss_newton as sensitivity
from pocketzoo.compress.pruning.gauss_newton import (
    SAMPLES,
    output_sensitivity,
    output_weights,
    send_back,
    sensitivities,
    square_root,
)


def test_it_is_the_jacobian_squared(monkeypatch, batches):
    """Linear layers: the error of the first reaches the output through the second's weight alone."""
    monkeypatch.setattr(sensitivity, "DIRECTIONS", 400)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    samples = batches((5,), 16)
    found = output_sensitivity(model, ["0", "1"], samples)
    with torch.no_grad():
        energy = float(model(torch.from_numpy(np.concatenate(samples))).square().sum()) / 16
    weight = model[1].weight.detach().double()
    torch.testing.assert_close(found["0"] * energy, weight.T @ weight, rtol=0.1, atol=0.05)
    torch.testing.assert_close(found["1"] * energy, torch.eye(3, dtype=torch.float64), rtol=0.1, atol=0.1)


def test_an_error_that_a_sample_has_everywhere_is_squared_as_one(monkeypatch, batches):
    """Six positions that the output adds up: apart their errors count six times over, together thirty-six times."""
    monkeypatch.setattr(sensitivity, "DIRECTIONS", 400)

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.layer(x).sum((2, 3)))

    torch.manual_seed(0)
    model, samples = Summed(), batches((3, 2, 3), 6)
    found = sensitivities(model, ["layer"], samples, 6)["layer"]
    torch.testing.assert_close(found.together, 6 * found.each)
    torch.testing.assert_close(found.each, output_sensitivity(model, ["layer"], samples)["layer"])
    with torch.no_grad():
        energy = float(model(torch.from_numpy(np.concatenate(samples))).square().sum()) / 6
    weight = model.last.weight.detach().double()
    torch.testing.assert_close(found.each * energy, 6 * weight.T @ weight, rtol=0.1, atol=0.3)


def test_what_the_output_does_not_depend_on_is_left_out(batches):
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, x):
            self.idle(x)
            return self.used(x)

    assert set(output_sensitivity(Idle(), ["used", "idle"], batches((5,), 4))) == {"used"}


def test_it_leaves_nothing_behind(batches):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2))
    output_sensitivity(model, ["0", "3"], batches((3, 6, 6), 4))
    for parameter in model.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("matrix", [torch.diag(torch.tensor([4.0, 1.0, 0.0])), torch.ones(3, 3)])
def test_a_root_squares_to_the_matrix(matrix):
    R = square_root(matrix.double())
    torch.testing.assert_close(R.T @ R, matrix.double())
    torch.testing.assert_close(square_root(torch.tensor([4.0, 9.0])), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))


def test_of_large_layers_it_is_the_diagonal(monkeypatch, batches):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    given = batches((4,), 6, 3)
    whole = output_sensitivity(model, ["0", "2"], given)
    monkeypatch.setattr("pocketzoo.compress.pruning.gauss_newton.LARGEST", 2)
    found = output_sensitivity(model, ["0", "2"], given)
    torch.testing.assert_close(found["0"], whole["0"].diagonal())
    assert torch.equal(found["2"], whole["2"])


def test_the_first_samples_are_enough(batches):
    model = nn.Sequential(nn.Linear(4, 3))
    given = np.concatenate(batches((4,), 40, 8))
    few, many = (output_sensitivity(model, ["0"], [given[:count]])["0"] for count in (SAMPLES, 40))
    assert torch.equal(few, many)
    assert not torch.equal(few, output_sensitivity(model, ["0"], [given[: SAMPLES - 1]])["0"])


def test_it_is_in_units_of_the_outputs_square():
    """Outputs ten times as large matter a hundred times less for the same error, and depend ten times as much on it."""
    model, larger = (nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)) for _ in range(2))
    larger.load_state_dict(model.state_dict())
    larger[1].weight.data *= 10
    x = [np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)]
    one, other = (output_sensitivity(net, ["0"], x)["0"] for net in (model, larger))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


# -- what is sent back, call by call


def ones(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    return torch.ones(shape)


class Two(nn.Module):
    """One layer that runs twice, one that is not read, one in place behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.idle = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, x):
        self.idle(x)
        return self.b(self.a(self.a(x).relu_()).relu_())


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


def test_every_call_comes_with_what_it_read_and_what_came_back():
    torch.manual_seed(0)
    model = frozen(Two())
    batches = [torch.randn(4, 3), torch.randn(2, 3)]
    found = list(send_back(model, ["a", "b", "idle"], [(batch,) for batch in batches], 3, ones))
    assert len(found) == 2
    for batch, ((given,), outputs, calls) in zip(batches, found, strict=True):
        (out,) = outputs.values()
        assert given is batch
        assert not out.requires_grad
        torch.testing.assert_close(out, model(batch))
        assert [call.name for call in calls] == ["idle", "a", "a", "b"]
        first = model.a(batch)
        torch.testing.assert_close(calls[1].input, batch)
        torch.testing.assert_close(calls[2].input, first.relu())
        second = model.a(first.relu())
        torch.testing.assert_close(calls[3].input, second.relu())
        assert [len(call.gradients) for call in calls] == [0, 3, 3, 3]
        at_b = torch.ones(len(batch), 2)
        at_a = (at_b @ model.b.weight) * (second > 0)
        for i, wanted in ((3, at_b), (2, at_a), (1, (at_a @ model.a.weight) * (first > 0))):
            for gradient in calls[i].gradients:
                torch.testing.assert_close(gradient, wanted)
        assert not any(call.input.requires_grad for call in calls)


def test_where_no_layer_runs_or_nothing_comes_back_there_is_nothing():
    model = frozen(Two())
    assert list(send_back(model, [], [(torch.randn(2, 3),)], 2, ones)) == []

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x).detach()

    ((_, outputs, calls),) = send_back(frozen(Detached()), ["a"], [(torch.randn(2, 3),)], 2, ones)
    assert outputs["logits"].shape == (2, 2)
    assert [(call.name, call.gradients) for call in calls] == [("a", [])]
    assert output_sensitivity(Detached(), ["a"], [np.ones((2, 3), np.float32)]) == {}


def test_the_directions_are_the_same_each_time_and_differ_among_each_other():
    drawn = []

    def draw(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
        drawn.append(torch.randn(shape, generator=generator))
        return drawn[-1]

    model = frozen(Two())
    for _ in range(2):
        list(send_back(model, ["b"], [(torch.randn(4, 3),), (torch.randn(4, 3),)], 2, draw))
    assert len(drawn) == 8
    for one, other in zip(drawn[:4], drawn[4:], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], torch.randn((4, 2), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("half", [False, True])
def test_directions_are_of_the_outputs_type(half):
    model = frozen(nn.Sequential(nn.Linear(3, 2)))
    model = model.half() if half else model
    x = torch.randn(2, 3).to(model[0].weight.dtype)
    ((_, _, calls),) = send_back(model, ["0"], [(x,)], 1, ones)
    assert calls[0].gradients[0].dtype == x.dtype


@pytest.mark.parametrize(
    ("layer", "shape", "rows"),
    [
        (nn.Linear(3, 4), (2, 4), (2, 4)),
        (nn.Linear(3, 4), (2, 5, 4), (10, 4)),
        (nn.Conv1d(3, 4, 1), (2, 4, 5), (10, 4)),
        (nn.Conv2d(3, 4, 1), (2, 4, 5, 6), (60, 4)),
        (nn.Conv3d(3, 4, 1), (2, 4, 5, 6, 3), (180, 4)),
    ],
)
def test_gradients_are_rows_of_positions(layer, shape, rows):
    gradient = torch.arange(float(np.prod(shape))).view(shape)
    found = sensitivity._rows(layer, gradient)
    assert found.shape == rows
    channels = gradient if isinstance(layer, nn.Linear) else gradient.movedim(1, -1)
    assert torch.equal(found, channels.reshape(rows))


def test_what_comes_back_is_summed_over_positions_and_divided_by_the_energy(monkeypatch):
    """Two chunks of two samples, two directions of ones: all written out."""
    monkeypatch.setattr(sensitivity, "_normal", ones)
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    found = output_sensitivity(model, ["0"], [x])["0"]
    energy = float(model(torch.from_numpy(x)).detach().double().square().sum())
    # 12 positions, each of whose gradients are ones, for each of two directions.
    torch.testing.assert_close(found, torch.full((2, 2), 2 * 12 / (2 * energy), dtype=torch.float64))


def test_outputs_that_are_all_zero_divide_by_next_to_nothing(monkeypatch):
    monkeypatch.setattr(sensitivity, "_normal", ones)
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.data.zero_()
    model[0].bias.data.zero_()
    found = output_sensitivity(model, ["0"], [np.ones((1, 3), np.float32)])["0"]
    assert found.tolist() == [[pytest.approx(2e30)] * 2] * 2


def test_samples_are_sent_back_two_at_a_time_thirty_two_at_most_each_twice(monkeypatch):
    asked = []

    def sending(model, names, batches, directions, draw, weights):
        asked.append(([len(b) for (b,) in batches], directions, draw, [p.requires_grad for p in model.parameters()]))
        return iter(())

    monkeypatch.setattr(sensitivity, "send_back", sending)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    assert output_sensitivity(model, ["0"], [np.ones((9, 3), np.float32)] * 5) == {}
    assert asked == [([2, 2, 2, 2, 1] * 3 + [2, 2, 1], 2, sensitivity._normal, [False] * 4)]
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]
    assert sensitivity.LARGEST == 2048


def test_parameters_are_trained_again_whatever_happens():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        output_sensitivity(model, ["0"], [np.ones((2, 3), np.float32)])
    assert all(p.requires_grad for p in model.parameters())
    assert not model[0]._forward_hooks


@pytest.mark.parametrize(("largest", "shape"), [(2, (3,)), (3, (3, 3)), (4, (3, 3))])
def test_a_layer_as_large_as_the_limit_keeps_its_matrix(largest, shape, monkeypatch):
    monkeypatch.setattr(sensitivity, "LARGEST", largest)
    found = output_sensitivity(nn.Sequential(nn.Linear(2, 3)), ["0"], [np.ones((4, 2), np.float32)])
    assert found["0"].shape == shape


def test_a_root_of_what_is_nearly_a_matrix_leaves_out_what_is_negative():
    root = square_root(torch.diag(torch.tensor([4.0, -1e-9])))
    torch.testing.assert_close(root.T @ root, torch.diag(torch.tensor([4.0, 0.0])))
    assert square_root(torch.tensor([4.0, -1.0])).tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_outer_products_are_summed_in_double_precision():
    found = sensitivity.outer(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
    assert found.tolist() == [[10.0, -1.0], [-1.0, 5.0]]
    assert found.dtype == torch.float64


class Twice(nn.Module):
    """Two outputs of one layer, the second as many times as large, and a third without a gradient."""

    def __init__(self, times: float, only: str = "") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.layer, self.times, self.only = nn.Linear(4, 3), times, only
        self.one, self.other = (torch.randn(2, 3, generator=generator) for _ in range(2))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, x):
        h = self.layer(x)
        outputs = {"a": h @ self.one.T, "b": self.times * (h @ self.other.T), "best": h.argmax(1)}
        return {self.only: outputs[self.only]} if self.only else outputs


@pytest.mark.parametrize("times", [1.0, 1e3, 1e-3])
def test_of_several_outputs_the_matrix_is_the_mean_of_theirs_however_large_they_are(times, monkeypatch):
    """With unit directions in turn, J is known whole: JT J of each output over its mean square, halved and added."""
    monkeypatch.setattr(sensitivity, "SAMPLES", 64)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model = Twice(times).eval()
    with torch.no_grad():
        h = model.layer(torch.from_numpy(x)).double()
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for matrix in (model.one.double(), model.other.double()):
        expected += len(x) * matrix.T @ matrix / float((h @ matrix.T).square().sum()) / 2
    monkeypatch.setattr(sensitivity, "DIRECTIONS", 400)  # the estimate's error falls with their root
    found = output_sensitivity(model, ["layer"], [x])["layer"]
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * float(expected.diagonal().max()))


def test_one_output_needs_no_weight_and_of_several_the_mean_squares_are_one():
    batches = [(torch.randn(5, 4),), (torch.randn(3, 4),)]
    assert output_weights(Twice(1.0, "a"), batches) == {}
    model = Twice(7.0)
    weights = output_weights(model, batches)
    assert list(weights) == ["a", "b"]
    with torch.no_grad():
        for name, weight in weights.items():
            total = sum(float((weight * model(*batch)[name]).double().square().sum()) for batch in batches)
            assert total == pytest.approx(1.0, rel=1e-5)
