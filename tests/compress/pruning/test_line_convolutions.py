"""Conv1d loses channels as the Conv2d that computes the same does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import PrunePlan
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.pruning.line_convolutions import (
    inner_names,
    inner_patterns,
    outer_names,
    with_lines,
    with_planes,
)


class Lines(nn.Module):
    """Strided, dilated, depthwise and padded convolutions of sequences, as Conv1d or as Conv2d."""

    def __init__(self, plane: bool = False) -> None:
        super().__init__()
        self.plane = plane
        self.f = nn.Sequential(
            self.make(3, 16, 5, padding=2), self.norm(16), nn.ReLU(), self.make(16, 16, 3, groups=16), nn.ReLU(),
            self.make(16, 24, 3, stride=2, bias=False), nn.ReLU(), self.make(24, 16, 3, dilation=2, padding="same"),
            nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 5)

    def make(self, *sizes: int, **more) -> nn.Module:
        if not self.plane:
            return nn.Conv1d(*sizes, **more)
        channels, (kernel,) = sizes[:2], sizes[2:]
        more = {k: (1, v) if k in ("stride", "dilation") else v for k, v in more.items()}
        if isinstance(more.get("padding"), int):
            more["padding"] = (0, more["padding"])
        return nn.Conv2d(*channels, (1, kernel), **more)

    def norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if self.plane else nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.f(x.unsqueeze(2) if self.plane else x)
        return self.head(x.flatten(2).mean(2))


def both() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    lines = Lines().eval()
    planes = Lines(plane=True).eval()
    weights = {k: v.unsqueeze(2) if v.ndim == 3 else v for k, v in lines.state_dict().items()}
    planes.load_state_dict(weights)
    return lines, planes


@pytest.mark.parametrize("config", [PruneConfig(ratio=0.4, multiple=1), PruneConfig(macs=0.5, multiple=4)])
def test_the_same_channels_go_and_the_rest_is_refitted_alike(config, batches, free):
    lines, planes = both()
    samples = batches((3, 32), 24)
    plan, reference = (prune.plan(model, config, samples, free) for model in (lines, planes))
    assert plan.axes == reference.axes
    assert plan.axes
    assert plan.left == reference.left == {}
    smaller, expected = (prune.apply(m, p, samples) for m, p in ((lines, plan), (planes, reference)))
    assert [type(m) for m in smaller.f] == [type(m) for m in lines.f]
    x = torch.from_numpy(samples[0])
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), expected(x), rtol=1e-4, atol=1e-5)
    for name, weight in expected.state_dict().items():
        assert smaller.state_dict()[name].numel() == weight.numel()


def test_the_model_that_is_given_stays_as_it_is(batches, free):
    lines, _ = both()
    before = {k: v.clone() for k, v in lines.state_dict().items()}
    samples = batches((3, 32), 16)
    prune.apply(lines, prune.plan(lines, PruneConfig(ratio=0.4), samples, free), samples)
    assert all(torch.equal(v, before[k]) for k, v in lines.state_dict().items())
    assert list(before) == list(lines.state_dict())


def test_skip_and_only_name_layers_as_the_model_does(batches, free):
    lines, _ = both()
    samples = batches((3, 32), 16)
    skipped = prune.plan(lines, PruneConfig(ratio=0.5, multiple=1, skip=("f.5",)), samples, free)
    assert "f.7.bias" in skipped.axes
    assert "f.5.weight" not in skipped.axes or all(axis.dim == 1 for axis in skipped.axes["f.5.weight"])
    alone = prune.plan(lines, PruneConfig(ratio=0.5, multiple=1, only=("f.7",)), samples, free)
    assert set(alone.axes) == {"f.7.weight", "f.7.bias", "head.weight"}


class Watched(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b, self.c = nn.Conv1d(3, 16, 3), nn.Conv1d(16, 16, 1), nn.Conv1d(16, 4, 1)
        if how == "weight norm":
            nn.utils.parametrizations.weight_norm(self.b)
        if how == "hook":
            self.b.register_forward_hook(lambda module, inputs, out: out * 2)
        if how == "shared":
            self.b.weight = nn.Parameter(torch.randn(16, 16, 1))
            self.other = nn.Conv1d(16, 16, 1)
            self.other.weight = self.b.weight
        if how == "reflected":
            self.b = nn.Conv1d(16, 16, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        y = nn.functional.conv1d(x, self.b.weight) if self.how == "read" else self.b(x)
        if self.how == "asked":
            y = y * self.b.out_channels
        if self.how == "shared":
            y = y + self.other(x)
        return self.c(y.relu()).mean(2)


@pytest.mark.parametrize("how", ["weight norm", "hook", "shared", "reflected", "read", "asked"])
def test_what_is_no_plain_one_is_left_alone_by_name(how, batches, free):
    torch.manual_seed(0)
    model, samples = Watched(how).eval(), batches((3, 16), 16)
    plan = prune.plan(model, PruneConfig(ratio=0.5, multiple=1), samples, free)
    assert "b" in plan.left
    made = prune.apply(model, plan, samples)
    assert made.b.weight.shape == model.b.weight.shape
    x = torch.from_numpy(samples[0])
    with torch.no_grad():
        assert torch.isfinite(made(x)).all()


def test_names_are_translated_there_and_back():
    names = ["f.1", "f.10"]
    plan = PrunePlan(
        axes={"f.1.weight": (), "f.10.bias": (), "f.2.weight": ()},
        shifts={"f.10.weight": "f.10.bias"},
        left={"g": "it shares channels with f.1"},
    )
    inner = inner_names(plan, names)
    assert list(inner.axes) == ["f.1.conv.weight", "f.10.conv.bias", "f.2.weight"]
    assert inner.shifts == {"f.10.conv.weight": "f.10.conv.bias"}
    assert outer_names(inner, names) == plan
    said = PrunePlan(left={"f.1.conv": "it shares channels with f.10.conv"})
    assert outer_names(said, names).left == {"f.1": "it shares channels with f.10"}
    assert inner_patterns(("f.1", "f.*", "g"), ["f.1", "f.10", "f.2", "g"], names) == (
        "f.1.conv", "f.*", "f.1.conv", "f.10.conv", "g",
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        nn.Conv1d(4, 6, 3), nn.Conv1d(4, 6, 5, stride=2, padding=3, bias=False), nn.Conv1d(4, 8, 3, groups=4),
        nn.Conv1d(4, 6, 3, dilation=2, padding="same"),
    ],
)  # fmt: skip
def test_a_plane_computes_what_the_line_does(line):
    model, x = nn.Sequential(line), torch.randn(2, 4, 20)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(with_planes(model, ["0"])(x), expected)
        torch.testing.assert_close(with_lines(model)(x), expected)
    assert str(model[0]) == str(line)
