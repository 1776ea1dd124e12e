"""The learning-rate finder: steps diverge where theory says, and nothing is left changed."""

from __future__ import annotations

import math

import pytest
import torch
from scoring import R2
from torch import nn

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.learning_rate_finder import RateCurve, find_rate, sweep
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.snapshot import state_of
from pocketzoo.train.sources import SourceBatch
from pocketzoo.train.training_loop import Phase, Trainer, batches
from pocketzoo.zoo.models.backbone_blocks import blocks


class Constant:
    """A source whose every batch is the same."""

    def __init__(self, size: int = 40) -> None:
        self.x = torch.ones(size, 1)
        self.targets = self.x.numpy()

    def __len__(self) -> int:
        return len(self.x)

    axes: dict[str, int] = {}  # noqa: RUF012

    def of(self, parts):
        for part in parts:
            yield SourceBatch({"x": self.x[list(part)]}, self.x[list(part)], {})


def trainer(config: TrainConfig, loss) -> Trainer:
    def count(y: torch.Tensor) -> torch.Tensor:
        return torch.tensor(float(len(y)))

    return Trainer(config, lambda outputs, y: loss(outputs["logits"], y), count, R2, World(), None, SILENT)


@pytest.mark.parametrize("curvature", [0.5, 20.0])
def test_on_a_quadratic_it_ends_where_descent_diverges(curvature):
    """Gradient descent on h/2 w^2 contracts below a rate of 2/h and diverges above it."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 3.0)

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return curvature / 2 * out.square().sum()

    config = TrainConfig(batch_size=8, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    source = Constant()
    curve = sweep(trainer(config, loss), Phase(net, net, (), source, source, 0, 1), 200, 1e-4, 1e3)
    limit = 2 / curvature
    assert limit < curve.rates[-1] < 10 * limit
    assert limit / 100 < curve.suggestion < limit
    assert net.weight.item() == 3.0
    assert not net.training
    # The first loss is h/2 * 9 and each step multiplies w by 1 - rate * h.
    w = 3.0
    for rate, found in zip(curve.rates[:50], curve.losses, strict=False):
        assert found == pytest.approx(curvature / 2 * w * w, rel=1e-4)
        w *= 1 - rate * curvature


def test_rates_are_even_on_a_logarithm_and_the_mean_of_equal_losses_is_that_loss(refused):
    net = nn.Linear(1, 1)
    source = Constant()
    phase = Phase(net, net, (), source, source, 0, 1)
    curve = sweep(trainer(TrainConfig(), lambda out, y: 0 * out.sum() + 7.0 * len(y)), phase, 30, 1e-5, 1.0)
    assert (curve.rates[0], curve.rates[-1], len(curve.rates)) == (1e-5, pytest.approx(1.0), 30)
    steps = [math.log(b / a) for a, b in zip(curve.rates, curve.rates[1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps))
    assert curve.smoothed == pytest.approx((7.0,) * 30)
    with refused(DataError, "falls at no learning rate"):
        _ = curve.suggestion


def test_the_steepest_descent_is_suggested():
    rates = tuple(10.0 ** (i / 10 - 5) for i in range(50))
    smoothed = tuple(1 / (1 + math.exp((math.log10(rate) + 2) * 4)) for rate in rates)  # steepest at 0.01
    assert RateCurve(rates, smoothed, smoothed).suggestion == pytest.approx(0.01)


def test_blocks_that_learn_are_as_they_were():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(x))

    net, source = Net().eval(), Constant()
    before = state_of(net)
    phase = Phase(net, net.head, blocks(net.backbone, source.x[:2]), source, source, 0, 1)
    sweep(trainer(TrainConfig(batch_size=8), nn.MSELoss(reduction="sum")), phase, 20)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_it_finds_a_rate_for_what_fit_would_train(few, registry, own_home, refused):
    common = {"data": few, "steps": 60, "registry": registry}
    one, two = (find_rate("tinynet", batch_size=16, **common) for _ in range(2))
    assert one == two
    assert 1e-4 < one.suggestion < 1.0
    with refused(DataError, "needs training data"):
        find_rate("tinynet", data=None, registry=registry)


@pytest.mark.parametrize(("count", "steepest"), [(30, 12), (100, 40), (12, 3)])
def test_the_first_tenth_and_the_last_five_do_not_count(count, steepest, refused):
    """The steepest fall is where a step is; a steeper one in the first tenth or the last five steps is passed over."""
    rates = tuple(10 ** (-6 + 7 * i / (count - 1)) for i in range(count))

    def curve(*falls: tuple[int, float]) -> RateCurve:
        levels = [10.0 - 1e-4 * i - sum(by for at, by in falls if i >= at) for i in range(count)]
        return RateCurve(rates, tuple(levels), tuple(levels))

    found = curve((steepest, 1.0)).suggestion
    assert found in rates[steepest - 1 : steepest + 1]
    assert curve((steepest, 1.0), (max(count // 10 - 1, 0), 3.0), (count - 4, 3.0)).suggestion == found
    rising = tuple(1.0 + 0.01 * i for i in range(count))
    with refused(DataError, "falls at no learning rate", hint="more steps"):
        _ = RateCurve(rates, rising, rising).suggestion


# -- the sweep, step by step


def sweep_of(losses, *, config=None, steps=None, **more):
    """Of a model that loses what is said at each step, and the last of it from then on."""
    net, source, calls = nn.Linear(1, 1), Constant(), iter([*losses, *[losses[-1]] * 1000])
    phase = Phase(net, net, (), source, source, 0, 1)
    by_step = trainer(config or TrainConfig(batch_size=40), lambda out, y: 0 * out.sum() + next(calls) * len(y))
    return sweep(by_step, phase, **({} if steps is None else {"steps": steps}), **more)


def test_the_mean_forgets_a_tenth_a_step_and_knows_how_young_it_is():
    losses = [4.0, 2.0, 8.0, 1.0, 3.0]
    curve = sweep_of(losses, steps=5)
    assert curve.losses == pytest.approx(losses)
    for step, found in enumerate(curve.smoothed):
        shares = [0.9 ** (step - i) for i in range(step + 1)]
        wanted = sum(s * v for s, v in zip(shares, losses, strict=False)) / sum(shares)
        assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("second", "steps"), [(6.65, 3), (6.75, 1)])  # 4 times the first where it is 6.7
def test_it_ends_at_four_times_the_least(second, steps):
    curve = sweep_of([1.0, second, 1.0], steps=3)
    assert [len(part) for part in (curve.rates, curve.losses, curve.smoothed)] == [steps] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_ends_before_a_loss_that_is_not_finite(bad):
    assert sweep_of([1.0, 1.0, bad], steps=9).losses == (1.0, 1.0)
    assert sweep_of([bad], steps=9) == RateCurve((), (), ())


def test_unless_told_otherwise_a_hundred_steps_go_from_a_millionth_to_ten():
    curve = sweep_of([1.0])
    assert (len(curve.rates), curve.rates[0], curve.rates[-1]) == (100, 1e-6, pytest.approx(10.0))
    assert sweep_of([1.0], steps=1).rates == (1e-6,)
    assert sweep_of([1.0], steps=2, low=1e-3, high=1e-1).rates == pytest.approx((1e-3, 1e-1))
    assert sweep_of([1.0], steps=3, low=1e-3, high=1e-1).rates == pytest.approx((1e-3, 1e-2, 1e-1))


def test_batches_are_those_of_epoch_after_epoch_each_step_with_chance_of_its_own():
    rows, seeds = [], []

    class Noting(Constant):
        def of(self, parts):
            for part in parts:
                rows.append(list(part))
                yield SourceBatch({"x": self.x[list(part)]}, self.x[list(part)], {})

    class Seeded(World):
        def seed(self, number: int) -> None:
            seeds.append(number)

    net, source, config = nn.Linear(1, 1), Noting(), TrainConfig(batch_size=20, seed=3)
    made = Trainer(config, lambda out, y: out["logits"].square().sum(), lambda y: torch.tensor(float(len(y))),
                   R2, Seeded(), None, SILENT)  # fmt: skip
    sweep(made, Phase(net, net, (), source, source, 0, 1), 5, 1e-6, 1e-5)
    wanted = [list(part) for epoch in range(3) for part in batches(40, config, epoch)]
    assert rows == wanted[:5]
    assert seeds == [3 * 1_000_003 + step for step in range(5)]


def test_blocks_sweep_at_their_fraction_of_the_rate():
    """One step of plain descent moves each weight by its rate times a gradient that is the same for all."""
    moves = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Linear(1, 1, bias=False)), nn.Linear(1, 1, bias=False)
            for p in self.parameters():
                nn.init.constant_(p, 1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moves.append((self.backbone[0].weight.item(), self.head.weight.item()))
            return self.head(self.backbone(x))

    net, source = Net(), Constant()
    body = blocks(net.backbone, source.x[:2])
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "backbone_rate": 0.5, "learning_rate": 0.2}
    made = trainer(TrainConfig(batch_size=40, **settings), lambda out, y: out.sum())
    sweep(made, Phase(net, net.head, body, source, source, 0, 1), 2, 0.1, 0.1)
    assert moves[0] == (1.0, 1.0)
    assert moves[1] == pytest.approx((1 - 0.1 * 0.5, 1 - 0.1))


def test_what_fit_is_told_the_finder_takes_too(few, registry, own_home):
    def found(**more):
        return find_rate("tinynet", data=few, steps=3, registry=registry, **more)

    plain = found()
    assert len(plain.rates) == 3
    changes = [
        {"batch_size": 16},
        {"seed": 1},
        {"head": "mlp"},
        {"head_options": {"pool": "max"}},
        {"cut": "stage1"},
        {"input_size": 20},
        {"training": {"label_smoothing": 0.2}},
        {"unfreeze": "last:1", "training": {"backbone_rate": 1e4}},
    ]
    curves = [found(**change).losses for change in changes]
    assert len({plain.losses, *curves}) == len(changes) + 1
    assert found(training={"batch_size": 16, "seed": 1}) == found(batch_size=16, seed=1)


def test_nothing_is_suggested_where_the_fall_is_no_more_than_noise(refused):
    """A fall that is a millionth of the largest loss, over a factor of e in the rate, is none."""
    rates = tuple(math.exp(i) for i in range(20))

    def curve(slope: float) -> RateCurve:
        smoothed = tuple(1.0 - slope * i for i in range(20))
        return RateCurve(rates, smoothed, smoothed)

    assert curve(1.1e-6).suggestion in rates[2:15]
    with refused(DataError, "the loss falls at no learning rate", hint="check the data, or use more steps"):
        _ = curve(0.9e-6).suggestion
    with refused(DataError, "the loss falls at no learning rate"):
        _ = RateCurve(rates[:6], (6.0, 5.0, 4.0, 3.0, 2.0, 1.0), (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)).suggestion
    assert (
        RateCurve(rates[:7], (7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0), (7.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0)).suggestion
        == rates[1]
    )
