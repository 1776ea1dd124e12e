from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.samples.batch_norms import batch_norms, mismatch, resembling
from pocketzoo.compress.samples.leaves import leaves

LOW, HIGH = np.full((3, 1, 1), -1, np.float32), np.full((3, 1, 1), 1, np.float32)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(4),
    )  # fmt: skip


@pytest.fixture
def trained():
    """A network whose batch norms saw smooth images of one light alone."""
    net = network()
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        coarse = 0.5 + 0.2 * torch.randn(16, 3, 4, 4, generator=generator)
        net(nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear"))
    return net.eval()


def start(count: int = 16) -> np.ndarray:
    return LOW + (HIGH - LOW) * leaves(count, (3, 16, 16))


def test_images_come_to_be_like_those_that_the_batch_norms_saw(trained):
    names, before = batch_norms(trained), start()
    after = resembling(trained, before, LOW, HIGH, steps=30)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert after.min() >= -1
    assert after.max() <= 1
    with torch.no_grad():
        for rows in (slice(8), slice(8, 16)):
            old, new = (float(mismatch(trained, names, torch.from_numpy(x[rows]))) for x in (before, after))
            assert new < 0.25 * old


def test_it_is_the_same_each_time_and_leaves_the_network_as_it_was(trained):
    trained.train()
    trained[0].weight.requires_grad_(False)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    one, other = (resembling(trained, start(8), LOW, HIGH, steps=2) for _ in range(2))
    assert np.array_equal(one, other)
    assert trained.training
    assert [p.requires_grad for p in trained.parameters()] == [False, *[True] * 7]
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())
    assert all(p.grad is None for p in trained.parameters())


def test_the_mismatch_of_what_the_batch_norms_keep_is_none():
    """Statistics of a batch itself, in a layer that reads what comes in."""
    x = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(3)
    norm.running_mean = x.mean((0, 2, 3))
    norm.running_var = x.var((0, 2, 3), correction=0)
    net = nn.Sequential(norm).eval()
    assert float(mismatch(net, ["0"], x)) == pytest.approx(0, abs=1e-8)
    # A shift by one standard deviation counts one, twice the contrast one as well.
    assert float(mismatch(net, ["0"], x + norm.running_var.sqrt()[:, None, None])) == pytest.approx(1, rel=0.01)
    mean = norm.running_mean[:, None, None]
    assert float(mismatch(net, ["0"], (x - mean) * 2 + mean)) == pytest.approx(1, rel=0.01)


def test_only_those_that_keep_statistics_count():
    net = nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False), nn.Sequential(nn.BatchNorm2d(3)), nn.GroupNorm(1, 3)
    )
    assert batch_norms(net) == ["1.0"]
