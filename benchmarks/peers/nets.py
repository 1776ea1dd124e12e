"""The networks of benchmarks/pruning.py, in plain torch: both tools prune the very same module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions and a shortcut, as in ResNet-18."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        whole = stride == 1 and i == o
        self.short = (
            nn.Identity() if whole else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


def resnet(widths: tuple[int, ...] = (16, 32, 64, 128)) -> nn.Module:
    """ResNet-18's plan for images of 28 x 28: two blocks a width."""
    layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    i = widths[0]
    for n, width in enumerate(widths):
        layers += [Block(i, width, 2 if n else 1), Block(width, width, 1)]
        i = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


def vgg(widths: tuple[int, ...] = (24, 48, 96)) -> nn.Module:
    """Two plain convolutions a width, then pooling."""
    layers: list[nn.Module] = []
    i = 1
    for width in widths:
        for inner in (i, width):
            layers += [nn.Conv2d(inner, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        i = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 10))


class Attention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (size // heads) ** -0.5
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape

        def heads(layer: nn.Linear) -> Tensor:
            return layer(x).view(b, t, self.num_heads, -1).transpose(1, 2)  # (B, heads, T, size of one)

        y = F.scaled_dot_product_attention(heads(self.query), heads(self.key), heads(self.value), scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer of a transformer; norms before attention and MLP, as in ViT, or after them, as in BERT."""

    def __init__(self, size: int, heads: int, inner: int, *, first: bool, eps: float) -> None:
        super().__init__()
        self.first = first
        self.attention, self.norm1 = Attention(size, heads), nn.LayerNorm(size, eps)
        self.up, self.down, self.norm2 = nn.Linear(size, inner), nn.Linear(inner, size), nn.LayerNorm(size, eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.attention(self.norm1(x))
            return x + self.down(F.gelu(self.up(self.norm2(x))))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class ViT(nn.Module):
    """A small vision transformer: patches of 4 x 4, the mean of all positions is classified."""

    def __init__(self, size: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, size, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 49, size) * 0.02)
        self.layers = nn.Sequential(*[Layer(size, heads, 4 * size, first=True, eps=1e-6) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(x)).mean(1))


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 for texts of one length: the normalized mean of all positions."""

    def __init__(self, size: int = 384, depth: int = 6, heads: int = 12, words: int = 30522) -> None:
        super().__init__()
        self.words, self.places, self.types = nn.Embedding(words, size), nn.Embedding(512, size), nn.Embedding(2, size)
        self.norm = nn.LayerNorm(size, 1e-12)
        self.layers = nn.Sequential(*[Layer(size, heads, 4 * size, first=False, eps=1e-12) for _ in range(depth)])

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        x = self.words(ids) + self.places(places) + self.types(torch.zeros_like(ids))
        return F.normalize(self.layers(self.norm(x)).mean(1), dim=-1)


NETS: dict[str, Any] = {"resnet": resnet, "vgg": vgg, "vit": ViT, "minilm": MiniLM}


def macs(net: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for one sample."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        weight = layer.get_parameter("weight")
        counts.append(weight.numel() * (out.numel() // len(out) // weight.shape[0]))

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        net(x[:1])
    for hook in hooks:
        hook.remove()
    return sum(counts)


def outputs(net: nn.Module, samples: Tensor) -> Tensor:
    """What a network outputs, in batches."""
    with torch.no_grad():
        return torch.cat([net(x) for x in samples.split(64)])
