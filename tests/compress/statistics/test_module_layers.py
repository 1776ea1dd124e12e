from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketzoo.compress.statistics.module_layers import first_batch


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_samples_are_taken_however_many_there_are(count):
    x = np.arange(count * 12, dtype=np.float32).reshape(count, 3, 4)
    found = first_batch([x, x + 1])
    assert found.shape == (2, 3, 4)
    assert torch.equal(found[0], torch.from_numpy(x[0]))
    assert torch.equal(found[1], torch.from_numpy(x[min(1, count - 1)]))
