"""Image augmentation on the device through kornia, a batch at a time, and mixup/cutmix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pocketzoo.core.optional import require
from pocketzoo.train.augment.mixed_targets import Wanted
from pocketzoo.train.augment.specification import AugmentSpec, MixSpec
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.modules.inputs import Axes, TensorInputs, rows_of

FILLS = {"border": "border", "reflect": "reflection", "black": "zeros"}  # as kornia says it
DRAWS = ("flip", "rotate", "right", "down", "shear", "zoom", "brightness", "contrast", "saturation", "hue")


def augmented(x: Tensor, augment: AugmentSpec, spec: InputSpec, draws: Tensor) -> Tensor:
    """Normalized images (B, C, H, W), changed by draws (B, len(DRAWS)) from 0 to 1.

    It is done to pixels from 0 to 1, not to what the model reads: "black" is 0 there, and brightness is a factor. The
    normalization is undone before and done again after.
    """
    draw = dict(zip(DRAWS, draws.unbind(1), strict=True))
    low, high = spec.value_range
    mean, std = _statistics(x, spec)
    pixels = to_pixels(x, spec)
    flipped = draw["flip"] < augment.flip
    pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    if augment.moves:
        height, width = pixels.shape[-2:]
        sides = torch.tensor([width, height], dtype=x.dtype, device=x.device)
        pixels = _warped(pixels, _affine(augment, draw, sides), augment.fill)
    pixels = _colored(pixels, augment, draw)
    return (pixels * (high - low) + low - mean) / std


def movement(augment: AugmentSpec, spec: InputSpec, draws: Tensor) -> Tensor:
    """Where ``augmented`` takes what is at (x, y, 1), in fractions of width and height: matrices (B, 3, 3)."""
    height, width = (int(side) for side in spec.size[-2:])
    draw = dict(zip(DRAWS, draws.unbind(1), strict=True))
    matrix = torch.eye(3, device=draws.device).repeat(len(draws), 1, 1)
    flipped = draw["flip"] < augment.flip
    matrix[flipped, 0, 0], matrix[flipped, 0, 2] = -1.0, 1.0
    if not augment.moves:
        return matrix
    # A pixel's center is half a pixel from its corner.
    scale = torch.tensor([[width, 0.0, -0.5], [0.0, height, -0.5], [0.0, 0.0, 1.0]], device=draws.device)
    affine = _affine(augment, draw, torch.tensor([width, height], dtype=draws.dtype, device=draws.device))
    inverse: Tensor = torch.linalg.inv(scale)
    return inverse @ affine @ scale @ matrix


def to_pixels(x: Tensor, spec: InputSpec) -> Tensor:
    """Images (B, C, H, W) as a model reads them as pixels from 0 to 1."""
    low, high = spec.value_range
    mean, std = _statistics(x, spec)
    return (x * std + mean - low) / (high - low)


def _statistics(x: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(v or (fill,), device=x.device).view(-1, 1, 1) for v, fill in ((spec.mean, 0.0), (spec.std, 1.0))
    )
    return mean, std


def moved(x: Tensor, *, angle: Tensor, shift: Tensor, shear: Tensor, zoom: Tensor, fill: str) -> Tensor:
    """Images (B, C, H, W) moved about their center, all in one interpolation: each more would blur.

    They are sheared by degrees (B,), zoomed by a factor (B,), turned clockwise by degrees (B,) and shifted by shares of
    their width and height (B, 2).
    """
    height, width = x.shape[-2:]
    sides = torch.tensor([width, height], dtype=x.dtype, device=x.device)
    return _warped(x, _matrix(sides, angle=angle, shift=shift, shear=shear, zoom=zoom), fill)


def _matrix(sides: Tensor, *, angle: Tensor, shift: Tensor, shear: Tensor, zoom: Tensor) -> Tensor:
    """From where a pixel was to where it is, in pixels: (B, 3, 3)."""
    geometry: Any = require("kornia.geometry.transform", extra="augment")
    matrix: Tensor = geometry.get_affine_matrix2d(
        shift * sides,
        ((sides - 1) / 2).expand(len(angle), 2),
        zoom[:, None].expand(-1, 2),
        angle,
        sx=torch.deg2rad(shear),
        sy=torch.zeros_like(shear),
    )
    return matrix


def _affine(augment: AugmentSpec, draw: dict[str, Tensor], sides: Tensor) -> Tensor:
    return _matrix(
        sides,
        angle=_between(-augment.rotate, augment.rotate, draw["rotate"]),
        shift=torch.stack([_between(-augment.shift, augment.shift, draw[side]) for side in ("right", "down")], 1),
        shear=_between(-augment.shear, augment.shear, draw["shear"]),
        zoom=_between(1 - augment.zoom, 1 + augment.zoom, draw["zoom"]),
    )


def _warped(x: Tensor, matrix: Tensor, fill: str) -> Tensor:
    geometry: Any = require("kornia.geometry.transform", extra="augment")
    out: Tensor = geometry.warp_affine(x, matrix[:, :2], tuple(x.shape[-2:]), padding_mode=FILLS[fill])
    return out


def _colored(pixels: Tensor, augment: AugmentSpec, draw: dict[str, Tensor]) -> Tensor:
    enhance: Any = require("kornia.enhance", extra="augment")
    more = {name: _between(1 - augment.color, 1 + augment.color, draw[name]) for name in DRAWS[6:9]}
    if augment.color:
        pixels = enhance.adjust_brightness_accumulative(pixels, more["brightness"])
        pixels = enhance.adjust_contrast_with_mean_subtraction(pixels, more["contrast"])
    if augment.color and pixels.shape[1] == 3:
        pixels = enhance.adjust_saturation_with_gray_subtraction(pixels, more["saturation"])
    if augment.hue and pixels.shape[1] == 3:
        pixels = enhance.adjust_hue(pixels, 2 * math.pi * _between(-augment.hue, augment.hue, draw["hue"]))
    return pixels


def _between(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def mixed(x: TensorInputs, y: Tensor, mix: MixSpec, axes: Axes | None = None) -> tuple[dict[str, Tensor], Wanted]:
    """Samples each mixed with another of the batch, and the targets of both with the fractions they have.

    mixup takes the weighted mean of every input (Zhang et al. 2018, arXiv:1710.09412); cutmix puts a box of the other
    image into each (Yun et al. 2019, arXiv:1905.04899), whose area is its fraction: all inputs are images of one size.
    A batch has one share. ``axes`` has the axis of each input that counts samples, where it is not the first.
    """
    share = float(torch.distributions.Beta(mix.alpha, mix.alpha).sample())
    where = torch.rand(2).tolist()
    order = torch.randperm(len(y)).to(y.device)
    others = rows_of(x, order, axes)
    if mix.kind == "mixup":
        blended = {name: share * each + (1 - share) * others[name] for name, each in x.items()}
        return blended, [(share, y), (1 - share, y[order])]
    height, width = next(iter(x.values())).shape[-2:]
    rows, columns = (_span(side, math.sqrt(1 - share), at) for side, at in zip((height, width), where, strict=True))
    x = {name: each.clone() for name, each in x.items()}
    for name, each in x.items():
        each[..., rows, columns] = others[name][..., rows, columns]
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return x, [(share, y), (1 - share, y[order])]


def _span(side: int, share: float, at: float) -> slice:
    """``share`` of a side about the point ``at`` (0-1), as far as it lies inside."""
    center, half = at * side, share * side / 2
    return slice(max(round(center - half), 0), min(round(center + half), side))
