"""Channels that are zero throughout can be removed and nothing changes: an oracle that holds for every architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.pruning.channel_groups import find_channels
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.core.errors import UnsupportedLayerError


class Net(nn.Module):
    """Layers by name, and a function for how they are wired."""

    def __init__(self, wiring: Callable[[Net, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


@dataclass(frozen=True)
class Case:
    """A module and what may be removed of it: layers that lose channels together -> how many channels they have."""

    build: Callable[[], nn.Module]
    groups: Mapping[tuple[str, ...], int]
    shape: tuple[int, ...] = (3, 12, 12)


CASES: dict[str, Case] = {}


def case(groups: Mapping[tuple[str, ...], int], shape: tuple[int, ...] = (3, 12, 12)):
    def add(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        CASES[build.__name__] = Case(build, groups, shape)
        return build

    return add


def conv(i: int, o: int, k: int = 3, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


# -- plain chains


@case({("0",): 8, ("2",): 12})
def chain():
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12), nn.ReLU(), conv(12, 5))


@case({("0",): 8, ("3",): 12})
def chain_with_batch_norm():
    return nn.Sequential(
        conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 12, bias=False), nn.BatchNorm2d(12), conv(12, 5)
    )


@case({("0",): 8})
def norm_before_the_activation_and_without_scale():
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4), nn.BatchNorm2d(4, affine=False))


@case({("0",): 8, ("3",): 6})
def strides_and_dilation():
    return nn.Sequential(
        conv(3, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6, dilation=2), nn.ReLU(), conv(6, 4, 1)
    )


@case({("0",): 8})
def asymmetric_kernels():
    return nn.Sequential(nn.Conv2d(3, 8, (1, 5)), nn.ReLU(), nn.Conv2d(8, 4, (3, 1), padding="same"))


@case({("0",): 10, ("2",): 7}, (20,))
def vectors():
    return nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))


@case({("0",): 10}, (20,))
def vectors_with_batch_norm():
    return nn.Sequential(nn.Linear(20, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))


@case({("0",): 8, ("3",): 6}, (3, 40))
def one_dimension():
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 1)
    )


@case({("0",): 8}, (2, 6, 6, 6))
def three_dimensions():
    return nn.Sequential(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 2, 1))


# -- sums


class Residual(nn.Module):
    def __init__(self, i: int, o: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.a, self.na = conv(i, inner, stride=stride, bias=False), nn.BatchNorm2d(inner)
        self.b, self.nb = conv(inner, o, bias=False), nn.BatchNorm2d(o)
        self.short = nn.Sequential(conv(i, o, 1, stride=stride), nn.BatchNorm2d(o)) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.na(self.a(x)))
        return F.relu(self.nb(self.b(y)) + self.short(x))


@case({("0", "1.b"): 8, ("1.a",): 6})
def residual():
    return nn.Sequential(conv(3, 8), Residual(8, 8, 6), conv(8, 4))


@case({("0",): 8, ("1.a",): 6, ("1.b", "1.short.0"): 12})
def projection_shortcut():
    return nn.Sequential(conv(3, 8), Residual(8, 12, 6, stride=2), conv(12, 4))


@case({("0", "1.b", "2.b", "3.b"): 8, ("1.a",): 6, ("2.a",): 5, ("3.a",): 4})
def long_residual_stream():
    return nn.Sequential(conv(3, 8), Residual(8, 8, 6), Residual(8, 8, 5), Residual(8, 8, 4), conv(8, 4))


@case({("a", "b"): 8})
def difference():
    return Net(lambda m, x: m.out(F.relu(m.a(x)) - m.b(x)), a=conv(3, 8), b=conv(3, 8), out=conv(8, 4))


@case({("a", "b"): 8})
def in_place_sum():
    def wiring(m, x):
        y = m.a(x)
        y += m.b(x)
        y *= 0.5
        return m.out(F.relu_(y))

    return Net(wiring, a=conv(3, 8), b=conv(3, 8), out=conv(8, 4))


@case({("a", "b", "c"): 8})
def three_summands():
    return Net(lambda m, x: m.out(m.a(x) + m.b(x) + m.c(x)), a=conv(3, 8), b=conv(3, 8), c=conv(3, 8), out=conv(8, 4))


# -- depthwise and grouped


@case({("0",): 8, ("4",): 10})
def depthwise():
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8, groups=8), nn.BatchNorm2d(8), conv(8, 10, 1), nn.ReLU(), conv(10, 4, 1)
    )


@case({("0",): 8})
def depthwise_with_multiplier():
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 24, groups=8), nn.BatchNorm2d(24), nn.ReLU(), conv(24, 4, 1))


@case({("0",): 6})
def two_multipliers_in_a_row():
    return nn.Sequential(conv(3, 6), conv(6, 12, groups=6), nn.ReLU(), conv(12, 36, groups=12), conv(36, 4, 1))


@case({("expand",): 12, ("stem", "project"): 6})
def inverted_residual():
    return Net(
        lambda m, x: m.out((y := m.stem(x)) + m.project(F.relu6(m.deep(F.relu6(m.expand(y)))))),
        stem=conv(3, 6),
        expand=conv(6, 12, 1),
        deep=conv(12, 12, groups=12),
        project=conv(12, 6, 1),
        out=conv(6, 4),
    )


@case({("0",): 2, ("4",): 6})
def grouped():
    """A block of a grouped convolution goes whole, with the channels that it reads."""
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12, groups=2), nn.ReLU(), conv(12, 6), nn.ReLU(), conv(6, 4, 1))


@case({("1",): 8}, (4, 12, 12))
def grouped_on_the_input():
    return nn.Sequential(conv(4, 8, groups=2), conv(8, 8), nn.ReLU(), conv(8, 4))


@case({("1",): 8}, (4, 12, 12))
def depthwise_on_the_input():
    return nn.Sequential(conv(4, 8, groups=4), conv(8, 8), nn.ReLU(), conv(8, 4))


@case({("0",): 8}, (3, 40))
def depthwise_in_one_dimension():
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.Conv1d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv1d(8, 2, 1))


# -- joins


@case({("a",): 8, ("b",): 4, ("c",): 4})
def dense():
    def wiring(m, x):
        y = F.relu(m.a(x))
        y = torch.cat([y, F.relu(m.b(y))], 1)
        y = torch.cat([y, F.relu(m.c(y))], 1)
        return m.out(m.norm(y))

    return Net(wiring, a=conv(3, 8), b=conv(8, 4), c=conv(12, 4), norm=nn.BatchNorm2d(16), out=conv(16, 5))


@case({("a", "b", "d"): 12})
def concat_then_sum():
    return Net(
        lambda m, x: m.out(torch.cat([m.a(x), m.b(x)], 1) + m.d(x)),
        a=conv(3, 8),
        b=conv(3, 4),
        d=conv(3, 12),
        out=conv(12, 4),
    )


@case({("a",): 8})
def concat_with_itself():
    return Net(lambda m, x: m.out(torch.cat([y := m.a(x), F.relu(y)], 1)), a=conv(3, 8), out=conv(16, 4))


@case({("a", "b"): 8})
def concat_of_rows():
    return Net(lambda m, x: m.out(torch.cat([m.a(x), m.b(x)], 2)), a=conv(3, 8), b=conv(3, 8), out=conv(8, 4))


@case({("a",): 8})
def concat_from_the_end():
    return Net(
        lambda m, x: m.fc(torch.cat([F.relu(m.a(x)).mean((2, 3)), F.relu(m.a(x)).amax((2, 3))], dim=-1)),
        a=conv(3, 8),
        fc=nn.Linear(16, 4),
    )


@case({})
def concat_with_the_input():
    """The image's own channels are not known, so the other part is kept whole."""
    return Net(lambda m, x: m.out(torch.cat([x, m.a(x)], 1)), a=conv(3, 8), out=conv(11, 4))


# -- gates


@case({("body", "excite"): 8, ("squeeze",): 4})
def squeeze_excite():
    return Net(
        lambda m, x: m.out((y := F.relu(m.body(x))) * torch.sigmoid(m.excite(F.relu(m.squeeze(m.pool(y)))))),
        body=conv(3, 8),
        pool=nn.AdaptiveAvgPool2d(1),
        squeeze=conv(8, 4, 1),
        excite=conv(4, 8, 1),
        out=conv(8, 4),
    )


@case({("body", "excite"): 8, ("squeeze",): 4})
def squeeze_excite_with_linear_layers():
    def wiring(m, x):
        y = F.relu(m.body(x))
        s = F.hardsigmoid(m.excite(F.relu(m.squeeze(y.mean((2, 3))))))
        return m.out(y * s.view(s.shape[0], s.shape[1], 1, 1))

    return Net(wiring, body=conv(3, 8), squeeze=nn.Linear(8, 4), excite=nn.Linear(4, 8), out=conv(8, 4))


@case({("body", "excite"): 8})
def gate_unsqueezed():
    return Net(
        lambda m, x: m.out((y := F.relu(m.body(x))) * torch.tanh(m.excite(y.mean((2, 3)))).unsqueeze(-1).unsqueeze(-1)),
        body=conv(3, 8),
        excite=nn.Linear(8, 8),
        out=conv(8, 4),
    )


@case({("a", "b"): 8})
def product():
    return Net(lambda m, x: m.out(F.silu(m.a(x)) * m.b(x)), a=conv(3, 8), b=conv(3, 8), out=conv(8, 4))


# -- to vectors


@case({("a",): 8}, (3, 6, 5))
def flatten_into_linear():
    return Net(lambda m, x: m.fc(F.relu(m.a(x)).flatten(1)), a=conv(3, 8), fc=nn.Linear(8 * 30, 4))


@case({("a",): 8, ("hidden",): 9}, (3, 6, 5))
def view_into_linear():
    return Net(
        lambda m, x: m.fc(F.relu(m.hidden(F.relu(m.a(x)).view(x.shape[0], -1)))),
        a=conv(3, 8),
        hidden=nn.Linear(8 * 30, 9),
        fc=nn.Linear(9, 4),
    )


@case({("0",): 8})
def pooled_grid_into_linear():
    return nn.Sequential(conv(3, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))


@case({("a",): 8})
def mean_pooling():
    return Net(lambda m, x: m.fc(F.relu(m.a(x)).mean((-2, -1))), a=conv(3, 8), fc=nn.Linear(8, 4))


@case({("a",): 8})
def mean_keeping_axes():
    return Net(lambda m, x: m.out(F.relu(m.a(x)).mean((2, 3), keepdim=True)), a=conv(3, 8), out=conv(8, 4, 1))


@case({("a",): 8})
def largest_and_sum():
    return Net(lambda m, x: m.fc(F.relu(m.a(x)).amax((2, 3)) + m.a(x).sum((2, 3))), a=conv(3, 8), fc=nn.Linear(8, 4))


@case({("0",): 8})
def global_pool_and_squeeze():
    return Net(
        lambda m, x: m.fc(F.adaptive_avg_pool2d(getattr(m, "0")(x), 1).squeeze(-1).squeeze(-1)),
        **{"0": conv(3, 8)},
        fc=nn.Linear(8, 4),
    )


@case({("a",): 8, ("fc",): 6})
def channels_last_linear():
    return Net(
        lambda m, x: m.out(F.gelu(m.fc(F.relu(m.a(x)).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)),
        a=conv(3, 8),
        fc=nn.Linear(8, 6),
        out=conv(6, 4),
    )


@case({("a",): 8})
def tokens_by_transpose():
    return Net(lambda m, x: m.fc(F.relu(m.a(x)).flatten(2).transpose(1, 2)).mean(1), a=conv(3, 8), fc=nn.Linear(8, 4))


@case({("a", "b"): 8}, (3, 6, 5))
def tokens_averaged_before_the_head():
    """The axis of channels moves up by each axis before it that goes, and stays where axes are kept."""
    return Net(
        lambda m, x: m.fc(F.relu(m.a(x)).flatten(2).transpose(1, 2).mean((1,)) + m.b(x).mean((3,)).amax((2,))),
        a=conv(3, 8),
        b=conv(3, 8),
        fc=nn.Linear(8, 4),
    )


@case({("a", "b"): 8}, (3, 6, 5))
def axes_averaged_before_and_behind_the_channels():
    def wiring(m, x):
        y = F.relu(m.a(x)).permute(2, 0, 1, 3).sum((0, -1))
        z = m.b(x).permute(2, 0, 1, 3).mean((0, 3), keepdim=True).squeeze(3).sum((0,))
        return m.fc(y + z)

    return Net(wiring, a=conv(3, 8), b=conv(3, 8), fc=nn.Linear(8, 4))


# -- pools, padding, resizing


@case({("0",): 8, ("3",): 6})
def pools():
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 6), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(2), conv(6, 4, 1)
    )


@case({("a",): 8})
def padding_and_upsampling():
    return Net(
        lambda m, x: m.out(F.pad(F.interpolate(m.a(x), scale_factor=2), (1, 2, 0, 1))), a=conv(3, 8), out=conv(8, 4)
    )


@case({("a",): 8})
def bilinear_upsampling():
    return Net(lambda m, x: m.out(F.interpolate(m.a(x), scale_factor=2, mode="bilinear")), a=conv(3, 8), out=conv(8, 4))


@case({})
def channels_padded():
    """Padding the channel axis moves the channels of a shortcut (ResNet's option A): not followed."""
    return Net(lambda m, x: m.out(F.pad(m.a(x), (0, 0, 0, 0, 2, 2))), a=conv(3, 8), out=conv(12, 4))


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.ELU(), nn.LeakyReLU(0.1),
    nn.Tanh(), nn.Mish(), nn.CELU(), nn.SELU(), nn.Hardtanh(), nn.Dropout(0.5), nn.Identity(),
]  # fmt: skip


# -- transformers


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))


@case({("block1.fc1",): 24, ("block2.fc1",): 20})
def mixer():
    """Layer norm mixes the residual stream's channels, so it is frozen; hidden units are free."""
    return Net(
        lambda m, x: m.fc(m.norm(m.block2(m.block1(m.patch(x).flatten(2).transpose(1, 2)))).mean(1)),
        patch=nn.Conv2d(3, 8, 4, 4),
        block1=Block(8, 24),
        block2=Block(8, 20),
        norm=nn.LayerNorm(8),
        fc=nn.Linear(8, 4),
    )


@case({("block.fc1",): 16})
def attention():
    return Net(
        lambda m, x: m.fc(m.block(m.attention(m.patch(x).flatten(2).transpose(1, 2))).mean(1)),
        patch=nn.Conv2d(3, 8, 4, 4),
        attention=Attention(8, 2),
        block=Block(8, 16),
        fc=nn.Linear(8, 4),
    )


class SelfAttention(nn.Module):
    """Queries, keys and values of a layer each, written with -1 for the number of heads as transformers does."""

    def __init__(self, width: int, size: int, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj, self.size, self.fused = nn.Linear(width, width), size, fused

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (layer(x).view(b, t, -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-2, -1)) * self.size**-0.5).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(b, t, -1))


def _attending(fused: bool, heads: int = 4) -> nn.Module:
    return Net(
        lambda m, x: m.fc(m.block(m.attention(m.patch(x).flatten(2).transpose(1, 2))).mean(1)),
        patch=nn.Conv2d(3, 12, 4, 4),
        attention=SelfAttention(12, 12 // heads, fused),
        block=Block(12, 16),
        fc=nn.Linear(12, 4),
    )


@case({("attention.q", "attention.k", "attention.v"): 4, ("block.fc1",): 16})
def heads():
    """A head goes from queries, keys and values together."""
    return _attending(fused=True)


@case({("attention.q", "attention.k", "attention.v"): 4, ("block.fc1",): 16})
def heads_in_steps():
    return _attending(fused=False)


@case({("block.fc1",): 16})
def a_single_head():
    return _attending(fused=True, heads=1)


@case({}, (5, 8))
def heads_of_values_that_are_not_followed():
    """Heads that come in another order in one of the three: none may go."""

    def wiring(m, x):
        q, k, v = (layer(x).view(*x.shape[:2], 4, 3).transpose(1, 2) for layer in (m.q, m.k, m.v))
        return m.proj(F.scaled_dot_product_attention(q, k, torch.roll(v, 1, 1)).transpose(1, 2).flatten(2))

    return Net(wiring, q=nn.Linear(8, 12), k=nn.Linear(8, 12), v=nn.Linear(8, 12), proj=nn.Linear(12, 4))


@case({}, (5, 8))
def heads_with_a_bias_for_each():
    """A bias that a head has of its own is no layer's: the heads stay."""

    def wiring(m, x):
        q, k, v = (layer(x).view(*x.shape[:2], 4, 3).transpose(1, 2) for layer in (m.q, m.k, m.v))
        return m.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias).transpose(1, 2).flatten(2))

    return Net(
        wiring, q=nn.Linear(8, 12), k=nn.Linear(8, 12), v=nn.Linear(8, 12), proj=nn.Linear(12, 4),
        bias=nn.Parameter(torch.randn(4, 5, 5)),
    )  # fmt: skip


# -- shared modules


@case({("stem", "twice"): 8})
def shared_twice():
    return Net(
        lambda m, x: m.out(F.relu(m.twice(F.relu(m.twice(m.stem(x)))))),
        stem=conv(3, 8),
        twice=conv(8, 8),
        out=conv(8, 4),
    )


@case({("tower",): 8})
def shared_side_by_side():
    return Net(lambda m, x: m.out(F.relu(m.tower(x)) + F.relu(m.tower(x.flip(-1)))), tower=conv(3, 8), out=conv(8, 4))


@case({("a", "b"): 8})
def shared_norm():
    """One norm behind two convolutions ties them together."""
    return Net(
        lambda m, x: m.out1(m.norm(m.a(x))) + m.out2(m.norm(m.b(x))),
        a=conv(3, 8),
        b=conv(3, 8),
        norm=nn.BatchNorm2d(8),
        out1=conv(8, 4),
        out2=conv(8, 4),
    )


NORM = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    ("build", "shared"),
    [
        (shared_twice, {"twice.weight", "twice.bias"}),
        (shared_side_by_side, {"tower.weight", "tower.bias"}),
        (shared_norm, NORM),
        (chain_with_batch_norm, set()),
    ],
)
def test_what_is_used_more_than_once_is_noted(build, shared):
    assert find_channels(build(), (torch.zeros(2, 3, 12, 12),)).shared == shared


# -- what is not understood stays as it is


@case({("c",): 6})
def channels_rolled():
    return Net(lambda m, x: m.out(F.relu(m.c(torch.roll(m.a(x), 1, 1)))), a=conv(3, 8), c=conv(8, 6), out=conv(6, 4))


@case({("c",): 6})
def channels_shuffled():
    return Net(
        lambda m, x: m.out(F.relu(m.c(F.channel_shuffle(m.a(x), 2)))), a=conv(3, 8), c=conv(8, 6), out=conv(6, 4)
    )


@case({})
def channels_split():
    return Net(lambda m, x: m.out(torch.cat(m.a(x).chunk(2, 1)[::-1], 1)), a=conv(3, 8), out=conv(8, 4))


@case({})
def channels_summed_up():
    return Net(lambda m, x: m.out(m.a(x).cumsum(1)), a=conv(3, 8), out=conv(8, 4))


@case({})
def channels_normalized():
    return Net(lambda m, x: m.out(m.a(x).softmax(1)), a=conv(3, 8), out=conv(8, 4))


@case({})
def channels_averaged():
    return Net(lambda m, x: m.out((y := m.a(x)) - y.mean(1, keepdim=True)), a=conv(3, 8), out=conv(8, 4))


@case({})
def group_norm():
    return nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), conv(8, 4))


@case({})
def learnt_scale():
    return Net(
        lambda m, x: m.out(m.a(x) * m.gamma), a=conv(3, 8), gamma=nn.Parameter(torch.ones(8, 1, 1)), out=conv(8, 4)
    )


@case({})
def parametric_relu():
    return nn.Sequential(conv(3, 8), nn.PReLU(8), conv(8, 4))


@case({})
def transposed_convolution():
    return nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2), conv(8, 4))


@case({})
def computed_weight():
    """Weight standardization: the convolution reads no parameter as it is."""
    return Net(
        lambda m, x: m.out(F.conv2d(m.a(x), m.w - m.w.mean((1, 2, 3), keepdim=True))),
        a=conv(3, 8),
        w=nn.Parameter(torch.randn(6, 8, 3, 3)),
        out=conv(6, 4),
    )


@case({("c",): 6})
def products_of_matrices():
    def wiring(m, x):
        y = m.a(x).flatten(2)
        return m.out(F.relu(m.c((y @ y.transpose(1, 2)).unsqueeze(1))))

    return Net(wiring, a=conv(3, 8), c=conv(1, 6), out=conv(6, 4))


@case({})
def einsum():
    return Net(lambda m, x: torch.einsum("bchw,dc->bdhw", m.a(x), m.w), a=conv(3, 8), w=nn.Parameter(torch.randn(4, 8)))


@case({})
def indexed():
    return Net(lambda m, x: m.out(m.a(x)[:, [0, 2, 4]]), a=conv(3, 8), out=conv(3, 4))


@case({})
def reshaped_across_channels():
    return Net(lambda m, x: m.out(m.a(x).reshape(x.shape[0], 4, 24, -1)), a=conv(3, 8), out=conv(4, 4))


# -- the checks


@cache
def traced(name: str) -> tuple[nn.Module, Channels]:
    model = _fill(CASES[name].build())
    return model, find_channels(model, (_input(name, 2),))


def _fill(model: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g) * (1.5 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.7)
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            m.running_mean = torch.randn(m.num_features, generator=g)
            m.running_var = torch.rand(m.num_features, generator=g) + 0.5
    return model.eval()


def _input(name: str, batch: int) -> Tensor:
    return torch.randn(batch, *CASES[name].shape, generator=torch.Generator().manual_seed(batch))


def _check_removal(name, removed, plan_without, silence):
    """Silence, remove, compare; then every axis of every parameter."""
    model, channels = traced(name)
    quiet = copy.deepcopy(model)
    silence(quiet, channels, removed)
    plan = plan_without(channels, removed)
    smaller = prune.apply(quiet, plan)
    for batch in (1, 2, 5):
        x = _input(name, batch)
        with torch.no_grad():
            torch.testing.assert_close(smaller(x), quiet(x), rtol=1e-4, atol=1e-4)
    before, after = quiet.state_dict(), smaller.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        shape = list(tensor.shape)
        for axis in plan.axes.get(key, ()):
            assert shape[axis.dim] == axis.size
            shape[axis.dim] = len(axis.kept)
        assert list(after[key].shape) == shape, key
        if key not in plan.axes:
            assert torch.equal(after[key], tensor), key


def _leaving_some(channels: Channels, removed: set[int]) -> set[int]:
    """Fewer of them, so that no axis is left empty: a layer may produce only a part of its group."""
    for ids in channels.axes.values():
        if removed.issuperset(ids.tolist()):
            removed = removed - {int(ids[0])}
    return removed


@pytest.mark.parametrize("name", CASES)
def test_groups_are_the_ones_a_reader_of_the_module_finds(name):
    _, channels = traced(name)
    found = {tuple(sorted(w.removesuffix(".weight") for w in g.layers)): len(g.channels) for g in channels.groups}
    assert found == {tuple(sorted(k)): v for k, v in CASES[name].groups.items()}


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.groups])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_removing_silent_channels_changes_nothing(name, share, plan_without, silence):
    """Of every group at once: one channel, half of them, all but one."""
    _, channels = traced(name)
    generator = np.random.default_rng(int(share * 100))
    removed: set[int] = set()
    for group in channels.groups:
        count = min(max(1, round(share * len(group.channels))), len(group.channels) - 1)
        removed.update(generator.choice(group.channels, count, replace=False).tolist())
    _check_removal(name, _leaving_some(channels, removed), plan_without, silence)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.groups])
def test_every_single_channel_can_go(name, plan_without, silence):
    _, channels = traced(name)
    for group in channels.groups:
        for channel in group.channels.tolist():
            _check_removal(name, {channel}, plan_without, silence)


@given(data=st.data(), name=st.sampled_from(["long_residual_stream", "dense", "inverted_residual", "squeeze_excite"]))
def test_removing_any_choice_of_silent_channels_changes_nothing(data, name, plan_without, silence):
    _, channels = traced(name)
    removed: set[int] = set()
    for group in channels.groups:
        members = group.channels.tolist()
        removed |= data.draw(st.sets(st.sampled_from(members), max_size=len(members) - 1))
    _check_removal(name, removed, plan_without, silence)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda m: type(m).__name__)
def test_an_activation_that_keeps_zero_lets_channels_through(activation, plan_without, silence):
    model = _fill(nn.Sequential(conv(3, 8), copy.deepcopy(activation), conv(8, 4)))
    x = torch.randn(2, 3, 8, 8)
    channels = find_channels(model, (x,))
    assert [g.layers for g in channels.groups] == [("0.weight",)]
    removed = channels.groups[0].channels[::2].tolist()
    silence(model, channels, removed)
    smaller = prune.apply(model, plan_without(channels, removed))
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), model(x), rtol=1e-4, atol=1e-4)
    assert smaller.get_submodule("2").in_channels == 4


@pytest.mark.parametrize("name", CASES)
def test_axes_are_as_long_as_the_parameters(name):
    model, channels = traced(name)
    state = model.state_dict()
    for (key, dim), ids in channels.axes.items():
        assert len(ids) == state[key].shape[dim] or state[key].shape[dim] % len(ids) == 0, (key, dim)
        if "fc" not in key and "hidden" not in key:
            assert len(ids) == state[key].shape[dim], (key, dim)


@pytest.mark.parametrize("name", CASES)
def test_no_channel_is_in_two_groups(name):
    _, channels = traced(name)
    everything = [c for g in channels.groups for c in g.channels.tolist()]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("name", CASES)
def test_tracing_reads_only(name):
    model = _fill(CASES[name].build())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    find_channels(model, (_input(name, 2),))
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert before.keys() == after.keys()


@pytest.mark.parametrize("name", ["chain", "residual", "dense", "mixer", "flatten_into_linear", "vectors"])
def test_outputs_keep_all_their_channels(name):
    """Whatever is removed, the model's own outputs stay."""
    model, channels = traced(name)
    removable = {c for g in channels.groups for c in g.channels.tolist()}
    with torch.no_grad():
        width = model(_input(name, 2)).shape[1]
    last = [k for k, v in model.named_parameters() if v.ndim > 1][-1]
    assert model.get_parameter(last).shape[0] == width
    assert not removable.intersection(channels.axes[last, 0].tolist())


def test_every_output_of_several_is_kept():
    net = Net(lambda m, x: (y := F.relu(m.a(x)), m.b(y), F.relu(m.c(y))), a=conv(3, 8), b=conv(8, 6), c=conv(8, 5))
    assert find_channels(net, (torch.randn(2, 3, 8, 8),)).groups == ()


def test_a_tap_in_the_middle_is_kept():
    net = Net(lambda m, x: {"tap": (y := m.a(x)), "out": m.c(F.relu(m.b(y)))}, a=conv(3, 8), b=conv(8, 6), c=conv(6, 5))
    assert [g.layers for g in find_channels(net, (torch.randn(2, 3, 8, 8),)).groups] == [("b.weight",)]


def test_the_image_keeps_its_channels():
    channels = find_channels(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4)), (torch.randn(2, 3, 8, 8),))
    assert ("0.weight", 1) not in channels.axes


@pytest.mark.parametrize("shape", [(8, 6, 5), (8, 1, 1), (8, 2, 2)])
def test_flattening_repeats_a_channel_for_every_position(shape):
    c, h, w = shape
    net = Net(lambda m, x: m.fc(m.a(x).flatten(1)), a=nn.Conv2d(3, c, 1), fc=nn.Linear(c * h * w, 4))
    channels = find_channels(net, (torch.randn(2, 3, h, w),))
    assert channels.axes["fc.weight", 1].tolist() == np.repeat(channels.axes["a.weight", 0], h * w).tolist()


def test_a_multiplier_repeats_a_channel_for_each_of_its_outputs():
    _, channels = traced("depthwise_with_multiplier")
    first = channels.axes["0.weight", 0]
    assert channels.axes["2.weight", 0].tolist() == np.repeat(first, 3).tolist()
    assert channels.axes["5.weight", 1].tolist() == np.repeat(first, 3).tolist()


def test_a_concatenation_keeps_the_order_of_its_parts():
    _, channels = traced("dense")
    parts = [channels.axes[f"{n}.weight", 0] for n in "abc"]
    assert channels.axes["out.weight", 1].tolist() == np.concatenate(parts).tolist()
    assert channels.axes["norm.running_var", 0].tolist() == np.concatenate(parts).tolist()


def test_a_sum_ties_channels_by_their_place():
    _, channels = traced("residual")
    assert channels.axes["0.weight", 0].tolist() == channels.axes["1.b.weight", 0].tolist()
    assert channels.axes["2.weight", 1].tolist() == channels.axes["0.weight", 0].tolist()


def test_the_size_of_the_batch_is_no_channel():
    """Two samples and two channels: the axes must not be mixed up."""
    net = Net(lambda m, x: m.fc(F.relu(m.b(F.relu(m.a(x)))).flatten(1)), a=conv(2, 2), b=conv(2, 2), fc=nn.Linear(8, 2))
    channels = find_channels(net, (torch.randn(2, 2, 2, 2),))
    assert {g.layers for g in channels.groups} == {("a.weight",), ("b.weight",)}
    assert channels.axes["fc.weight", 1].tolist() == np.repeat(channels.axes["b.weight", 0], 4).tolist()


def test_a_hard_coded_size_is_followed_and_then_refused(refused, plan_without):
    """``view(-1, 128)`` traces, but no smaller model can run it: an error that says so, no traceback."""
    net = _fill(Net(lambda m, x: m.fc(F.relu(m.a(x)).view(-1, 8 * 16)), a=conv(3, 8), fc=nn.Linear(8 * 16, 4)))
    x = np.random.default_rng(0).normal(size=(4, 3, 4, 4)).astype(np.float32)
    channels = find_channels(net, (torch.from_numpy(x),))
    plan = plan_without(channels, channels.groups[0].channels[:3])
    with refused(UnsupportedLayerError, "relies on a size", hint="skip"):
        prune.apply(net, plan, [x])


def test_a_model_that_cannot_be_traced_is_refused(refused):
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with refused(UnsupportedLayerError, "cannot trace", hint="low-rank"):
        find_channels(Branches(), (torch.randn(2, 3, 4, 4),))


def test_a_model_whose_code_fails_is_refused_with_its_reason(refused):
    with refused(UnsupportedLayerError, "cannot trace"):
        find_channels(nn.Sequential(conv(3, 8), conv(9, 4)), (torch.randn(2, 3, 8, 8),))


def test_two_traces_agree():
    first, second = (find_channels(_fill(CASES["dense"].build()), (_input("dense", 2),)) for _ in range(2))
    assert {k: v.tolist() for k, v in first.axes.items()} == {k: v.tolist() for k, v in second.axes.items()}
    assert [g.layers for g in first.groups] == [g.layers for g in second.groups]


def test_what_cannot_be_traced_is_said_in_two_lines():
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, torch.zeros(3, 7))

    with pytest.raises(UnsupportedLayerError) as caught:
        find_channels(Fails(), (torch.randn(2, 3),))
    first, hint = str(caught.value).split("\n")
    assert first.startswith("cannot trace this model: ")
    assert len(first) > len("cannot trace this model: ") + 3
    assert hint == "leave out prune; low-rank and int8 need no trace"
    assert caught.value.__cause__ is not None


def test_a_parameter_of_several_names_goes_by_its_first():
    net = Net(lambda m, x: m.out(F.relu(m.again(F.relu(m.first(x))))), first=conv(3, 3), out=conv(3, 2))
    net.again = net.first
    channels = find_channels(net.eval(), (torch.zeros(2, 3, 6, 6),))
    assert {name for name, _ in channels.axes} == {"first.weight", "first.bias", "out.weight", "out.bias"}
    assert channels.shared == {"first.weight", "first.bias"}
    norm = Net(lambda m, x: m.out(m.again(m.norm(m.a(x)))), a=conv(3, 8), norm=nn.BatchNorm2d(8), out=conv(8, 2))
    norm.again = norm.norm
    found = find_channels(norm.eval(), (torch.zeros(2, 3, 6, 6),))
    assert {name.partition(".")[0] for name, _ in found.axes} == {"a", "norm", "out"}
    assert {f"norm.{name}" for name in ("running_mean", "running_var")} <= found.shared


def test_hooks_that_write_attributes_are_traced_without_a_warning():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(conv(3, 8))
    channels = find_channels(nn.Sequential(layer, nn.ReLU(), conv(8, 4)).eval(), (torch.zeros(2, 3, 6, 6),))
    assert channels.groups == ()


def test_a_group_is_of_single_rows_unless_it_says_more():
    assert Group(("a",), np.arange(2)).width == 1
    assert Channels({}, (), {}, frozenset()).shortcuts == {}


GATES = {  # shapes of what is not followed, each one number for all channels
    "one channel": lambda x: x[:, :1],
    "no axis of channels": lambda x: x.sum((0, 1)),
    "no axis at all": lambda x: x.sum(),
    "one number": lambda x: x.sum((0, 1, 2, 3), keepdim=True),
}


@pytest.mark.parametrize("gate", [*GATES, "a number for each channel"])
@pytest.mark.parametrize("first", [False, True])
def test_what_is_the_same_for_all_channels_lets_them_go(gate, first):
    """However many axes it has, and on whichever side it stands."""
    scale = GATES.get(gate, lambda x: x.repeat(1, 3, 1, 1)[:, :8])
    net = Net(
        lambda m, x: m.out(F.relu(scale(x) * m.a(x) if first else m.a(x) * scale(x))), a=conv(3, 8), out=conv(8, 4)
    )
    groups = [(group.layers, len(group.channels)) for group in find_channels(net, (torch.randn(2, 3, 8, 8),)).groups]
    assert groups == ([(("a.weight",), 8)] if gate in GATES else [])


@pytest.mark.parametrize(
    ("reader", "layer", "shape"),
    [
        (nn.LayerNorm(6), nn.Linear(6, 6), (2, 5, 6)),
        (nn.LayerNorm((5, 6)), nn.Linear(6, 6), (2, 5, 6)),
        (nn.Linear(6, 6), nn.Linear(6, 6), (2, 5, 6)),
        (nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), (2, 6, 5, 5)),
        (nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1), (2, 6, 5, 5)),
    ],
    ids=["layer norm", "layer norm of two axes", "linear", "batch norm", "convolution"],
)
@pytest.mark.parametrize("dropped", [False, True])
def test_a_shortcut_is_what_a_module_before_reads_too(reader, layer, shape, dropped):
    def wiring(m, x):
        y = m.layer(F.relu(m.reader(x)))
        return x + (F.dropout(y, training=False) if dropped else y)

    net = Net(wiring, reader=reader, layer=layer).eval()
    assert find_channels(net, (torch.randn(*shape),)).shortcuts == {"layer.weight": Shortcut(reader="reader")}


def test_a_shortcut_names_the_norm_that_is_between_and_needs_a_reader_with_a_weight():
    net = Net(
        lambda m, x: x + m.norm(m.layer(F.relu(m.reader(x)))),
        reader=conv(6, 6), layer=conv(6, 6), norm=nn.BatchNorm2d(6),
    ).eval()  # fmt: skip
    x = torch.randn(2, 6, 5, 5)
    assert find_channels(net, (x,)).shortcuts == {"layer.weight": Shortcut(reader="reader", norm="norm")}
    net.reader = nn.LayerNorm(5, elementwise_affine=False)
    assert find_channels(net, (x,)).shortcuts == {}
