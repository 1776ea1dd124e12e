"""Conv1d as Conv2d with a height of 1, which every statistic, saliency and refit is written for; and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from pocketzoo.core.name_patterns import matches

T = TypeVar("T")
INNER = "conv"  # what the convolution is called inside of what stands in its place


class LineConvolution(nn.Module):
    """What a Conv1d computes, (N, C, L) to (N, O, L'), by a Conv2d of kernels (1, k)."""

    def __init__(self, line: nn.Conv1d) -> None:
        super().__init__()
        padding = line.padding if isinstance(line.padding, str) else (0, line.padding[0])
        self.conv = nn.Conv2d(
            line.in_channels,
            line.out_channels,
            (1, line.kernel_size[0]),
            (1, line.stride[0]),
            padding,
            (1, line.dilation[0]),
            line.groups,
            line.bias is not None,
            device=line.weight.device,
            dtype=line.weight.dtype,
        )
        self.conv.weight.data = line.weight.detach().unsqueeze(2)
        if line.bias is not None and self.conv.bias is not None:
            self.conv.bias.data = line.bias.detach()
        self.train(line.training)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x.unsqueeze(-2)).squeeze(-2))

    def line(self) -> nn.Conv1d:
        """The Conv1d again, of as many channels as are left."""
        conv = self.conv
        padding = conv.padding if isinstance(conv.padding, str) else conv.padding[1]
        made = nn.Conv1d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[1],
            conv.stride[1],
            padding,
            conv.dilation[1],
            conv.groups,
            conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        made.weight.data = conv.weight.detach().squeeze(2)
        if conv.bias is not None and made.bias is not None:
            made.bias.data = conv.bias.detach()
        return made.train(self.training)


def with_planes(model: nn.Module, names: Collection[str]) -> nn.Module:
    """The model with these Conv1d as Conv2d, in place; their weights are called ``NAME.conv.weight``."""
    for name in names:
        line = model.get_submodule(name)
        if isinstance(line, nn.Conv1d):
            model = _put(model, name, LineConvolution(line))
    return model


def with_lines(model: nn.Module) -> nn.Module:
    """The model with its Conv1d again, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LineConvolution):
            model = _put(model, name, module.line())
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    if not name:
        return module
    path, _, last = name.rpartition(".")
    setattr(model.get_submodule(path), last, module)
    return model


def inner_names(value: T, names: Collection[str]) -> T:
    """A plan, or a part of one, with what it calls the layers of these names by those that ``with_planes`` gives."""
    pattern = _any_of(names)
    return (
        _renamed(value, lambda text: re.sub(rf"^{pattern}(?=$|\.weight$|\.bias$)", rf"\1.{INNER}", text))
        if names
        else value
    )


def outer_names(value: T, names: Collection[str]) -> T:
    """The reverse of ``inner_names``, in sentences too."""
    pattern = _any_of(names)
    return _renamed(value, lambda text: re.sub(rf"(?<![\w.]){pattern}\.{INNER}(?!\w)", r"\1", text)) if names else value


def inner_patterns(patterns: Sequence[str], known: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Patterns of layers' names as they are after ``with_planes``: a layer that changed is listed by its new name."""
    others = [name for name in known if name not in names]
    listed: list[str] = []
    for pattern in patterns:
        changed = [f"{name}.{INNER}" for name in names if matches(name, [pattern])]
        listed += [*([pattern] if not changed or any(matches(name, [pattern]) for name in others) else []), *changed]
    return tuple(listed)


def _any_of(names: Collection[str]) -> str:
    return f"({'|'.join(re.escape(name) for name in sorted(names, key=len, reverse=True))})"


def _renamed(value: Any, of_text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, Mapping):
        return {_renamed(key, of_text): _renamed(each, of_text) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_renamed(each, of_text) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _renamed(getattr(value, f.name), of_text) for f in fields(value)})
    return value
