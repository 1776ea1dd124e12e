"""A step: the loss of mixed targets is that of soft labels."""

from __future__ import annotations

import math

import pytest
import torch
from told import Told
from torch import nn
from torch.nn import functional as F

from pocketzoo.core.errors import TrainingError
from pocketzoo.train.augment.mixed_targets import sum_of
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.optimizer_step import MicroBatchStep, OptimizerStep
from pocketzoo.train.settings import TrainConfig


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])], ids=["alike", "weighted"])
def test_shares_of_losses_are_the_loss_of_soft_labels(smoothing, weight):
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(7, 3, generator=generator)
    one, two = torch.randint(3, (2, 7), generator=generator)
    soft = 0.3 * F.one_hot(one, 3) + 0.7 * F.one_hot(two, 3)
    common = {"weight": weight, "label_smoothing": smoothing, "reduction": "sum"}
    wanted = F.cross_entropy(out, soft, **common)
    given = sum_of([(0.3, one), (0.7, two)], lambda y: F.cross_entropy(out, y, **common))
    assert torch.allclose(given, wanted, atol=1e-5)


def test_mixed_numbers_have_the_gradient_of_their_mean():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 7, 2, generator=generator)
    out = torch.randn(7, 2, generator=generator, requires_grad=True)
    sum_of([(0.3, one), (0.7, two)], lambda y: F.mse_loss(out, y, reduction="sum")).backward()
    assert torch.allclose(out.grad, 2 * (out.detach() - (0.3 * one + 0.7 * two)), atol=1e-5)


# -- any loss


def test_a_step_is_on_the_sum_of_its_losses_and_in_place_of_earlier_gradients():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, step = torch.optim.SGD([weight], lr=0.5), OptimizerStep()
    for _ in range(2):
        before = weight.detach().clone()
        assert step(optimizer, (part for part in (weight.sum(), weight[0]))) == float(before.sum() + before[0])
        assert torch.equal(weight.detach(), before - 0.5 * torch.tensor([2.0, 1.0]))


def test_gradients_may_be_taken_scaled_and_the_loss_is_not():
    weight = nn.Parameter(torch.tensor([3.0]))
    step = OptimizerStep()
    assert step.gradients(torch.optim.SGD([weight]), [weight.square().sum()], 0.25) == 9.0
    assert weight.grad.tolist() == [1.5]
    assert weight.tolist() == [3.0]


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_changes_nothing_unless_told_to(loss):
    weight = nn.Parameter(torch.tensor([3.0]))
    optimizer, step = torch.optim.SGD([weight], lr=0.5), OptimizerStep()
    assert not math.isfinite(step(optimizer, [weight.sum() * loss]))
    assert weight.tolist() == [3.0]
    step.update(optimizer)
    assert not torch.isfinite(weight).any()


# -- memory


class Narrow(nn.Linear):
    """A layer that has memory for so many samples at once."""

    def __init__(self, room: int, words: str = "DefaultCPUAllocator: not enough memory") -> None:
        super().__init__(3, 2)
        self.room, self.words, self.seen = room, words, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise RuntimeError(self.words)
        return super().forward(x)


def stepper(world: World | None = None, told: Told | None = None, **settings) -> MicroBatchStep:
    config = TrainConfig(**{"batch_size": 8, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, **settings})

    def summed(out: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(out["logits"], y, reduction="sum")

    return MicroBatchStep(config, summed, lambda y: torch.tensor(float(len(y))), world or World(), told or Told())


def stepped(room: int, step: MicroBatchStep, count: int = 8) -> tuple[Narrow, tuple[float, float]]:
    torch.manual_seed(0)
    layer = Narrow(room)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 3, generator=generator), torch.randint(2, (count,), generator=generator)
    return layer, step(layer, torch.optim.SGD(layer.parameters(), lr=0.5), {"x": x}, [(1.0, y)])


@pytest.mark.parametrize(
    ("room", "tried"), [(8, [8]), (7, [8, 4, 4]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2, *[1] * 8])]
)
def test_a_batch_that_memory_is_short_for_goes_through_in_halves(room, tried):
    """The step is the same, and the next one begins with what fitted."""
    whole, wanted = stepped(8, stepper())
    told = Told()
    step = stepper(told=told)
    halved, found = stepped(room, step)
    assert halved.seen == tried
    assert found == pytest.approx(wanted)
    torch.testing.assert_close(halved.weight, whole.weight)
    assert step.at_once == tried[-1]
    assert [line.split(":")[0] for line in told.said] == ["out of memory"] * len([n for n in tried if n > room])
    again, _ = stepped(room, step)
    assert set(again.seen) == {tried[-1]}


def test_a_batch_smaller_than_asked_for_is_halved_from_its_own_size():
    layer, _ = stepped(3, stepper(batch_size=64), count=6)
    assert layer.seen == [6, 3, 3]


def test_where_not_even_one_sample_fits_it_is_said(refused):
    with refused(TrainingError, "out of memory for a single sample", hint="smaller backbone"):
        stepped(0, stepper())


@pytest.mark.parametrize("words", ["mat1 and mat2 shapes cannot be multiplied", "the code is wrong"])
def test_other_errors_are_no_lack_of_memory(words):
    layer = Narrow(0, words)
    with pytest.raises(RuntimeError, match=words):
        stepper()(layer, torch.optim.SGD(layer.parameters()), {"x": torch.zeros(8, 3)}, [(1.0, torch.zeros(8).long())])
    assert layer.seen == [8]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_losses_are_scaled_where_half_precision_underflows_and_cuda_can(precision):
    """Nowhere else: a scaler that is on would warn without CUDA, and warnings are errors here."""
    assert not stepper(precision=precision).optimizer_step.scaler.is_enabled()


def test_a_step_whose_loss_is_not_finite_is_not_taken():
    torch.manual_seed(0)
    layer = Narrow(8)
    before = layer.weight.detach().clone()
    loss, weight = stepper()(
        layer,
        torch.optim.SGD(layer.parameters(), lr=0.5),
        {"x": torch.full((8, 3), torch.inf)},
        [(1.0, torch.zeros(8).long())],
    )
    assert not math.isfinite(loss)
    assert weight == 8.0
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("clip", [0.01, 1e6, None])
def test_gradients_are_clipped_to_their_norm_together(clip):
    plain, _ = stepped(8, stepper())
    torch.manual_seed(0)
    start = Narrow(8)
    clipped, _ = stepped(8, stepper(clip=clip))

    def moved(layer: Narrow) -> torch.Tensor:
        return torch.cat(
            [(a - b).detach().flatten() for a, b in zip(layer.parameters(), start.parameters(), strict=True)]
        )

    size = float(moved(plain).norm())
    assert float(moved(clipped).norm()) == pytest.approx(size if clip in (1e6, None) else 0.5 * clip, rel=1e-3)
    torch.testing.assert_close(moved(clipped) / moved(clipped).norm(), moved(plain) / size)
