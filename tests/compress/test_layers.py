from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.layers import first_batch, weighted_layers


def test_weighted_layers_are_convolutions_and_linear_layers():
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Own(4, 4, 1), nn.Sequential(nn.Linear(4, 2)), nn.ReLU()
    )
    assert list(weighted_layers(model)) == ["0", "2", "3.0"]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_samples_are_taken_however_many_there_are(count):
    x = np.arange(count * 12, dtype=np.float32).reshape(count, 3, 4)
    found = first_batch([x, x + 1])
    assert found.shape == (2, 3, 4)
    assert torch.equal(found[0], torch.from_numpy(x[0]))
    assert torch.equal(found[1], torch.from_numpy(x[min(1, count - 1)]))
