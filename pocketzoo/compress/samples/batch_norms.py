"""Images that a network's batch norms take for those that it was trained on, made of noise and shapes.

Batch norms keep the mean and the variance of each channel over the training set. Images are changed until what they
give in each is the same (ZeroQ, Cai et al. 2020, arXiv:2001.00281; DeepInversion, Yin et al. 2020, arXiv:1912.08795),
by Adam in the frequencies of an image, where those of large structures go further: few steps make images that are
smooth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.models.layer_hooks import before

TOGETHER = 8  # images of a batch: their statistics are compared together, so that each may be another
STEPS = 8
RATE = 0.01  # of Adam at first, as a fraction of the range of pixels; it falls to nothing along a cosine
BETAS = (0.8, 0.98)
SMOOTH = 0.02  # weight of the total variation
LEAST = 1e-3  # of a channel's variance, as a fraction of the mean of its layer's


def batch_norms(module: nn.Module) -> list[str]:
    """The names of those that keep statistics."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [name for name, m in module.named_modules() if isinstance(m, kinds) and m.running_mean is not None]


def mismatch(module: nn.Module, names: Sequence[str], x: Tensor) -> Tensor:
    """How far the batch norms' inputs for a batch are from what they keep: the mean over layers and channels of

    (m' - m)^2 / v + (s' / s - 1)^2, of means m and standard deviations s.
    """
    found: list[Tensor] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = layer.running_mean, layer.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        own = torch.var_mean(inputs[0], dim=axes, correction=0)
        floor = LEAST * variance.mean() + 1e-12
        scale = variance + floor
        found.append(((own[1] - mean).square() / scale + ((own[0] + floor).sqrt() / scale.sqrt() - 1).square()).mean())

    with before(module, names, note):
        module(x)
    return torch.stack(found).mean()


def resembling(
    module: nn.Module,
    images: npt.NDArray[np.float32],
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
    *,
    steps: int = STEPS,
    progress: Progress = SILENT,
) -> npt.NDArray[np.float32]:
    """Images (N, C, H, W) changed until batch norms take them for their own.

    Values stay in ``low`` to ``high`` (C, 1, 1). Deterministic. The module runs in eval mode, and is left as it was.
    """
    names = batch_norms(module)
    ends = torch.from_numpy(low), torch.from_numpy(high)
    starts = range(0, len(images), TOGETHER)
    with _frozen(module):
        made = [
            _changed(module, names, torch.from_numpy(images[start : start + TOGETHER]), ends, steps)
            for start in progress.track(starts, "making samples", len(starts))
        ]
    return np.concatenate(made)


def _changed(
    module: nn.Module, names: Sequence[str], images: Tensor, ends: tuple[Tensor, Tensor], steps: int
) -> npt.NDArray[np.float32]:
    height, width = images.shape[2:]
    waves = torch.fft.rfft2(images, norm="ortho")
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None] * width)
    fall = 1 / frequency.clamp_min(1.0)
    fall = fall / fall.square().mean().sqrt()
    change = torch.zeros((*waves.shape, 2), requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = float((ends[1] - ends[0]).mean())

    def image() -> Tensor:
        moved = waves + torch.view_as_complex(change) * (fall * size)
        x: Tensor = torch.fft.irfft2(moved, s=(height, width), norm="ortho")
        return x.clamp(*ends)

    for _ in range(steps):
        optimizer.zero_grad()
        x = image()
        rough = (x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()) / size
        loss = mismatch(module, names, x) + SMOOTH * rough
        (change.grad,) = torch.autograd.grad(loss, [change])
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return np.asarray(image().numpy(), np.float32)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Weights need no gradients in here, which saves what they would be made of."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    training = module.training
    module.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        module.train(training)
