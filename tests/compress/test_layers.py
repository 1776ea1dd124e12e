from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.layers import check_skip, first_batch, matches, weighted_layers
from pocketzoo.errors import UnknownNameError

NAMES = ["stem.0", "stage1.0.conv1", "stage1.0.conv2", "head.linear"]


def test_weighted_layers_are_convolutions_and_linear_layers():
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Own(4, 4, 1), nn.Sequential(nn.Linear(4, 2)), nn.ReLU()
    )
    assert list(weighted_layers(model)) == ["0", "2", "3.0"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("stem.0", ["stem.0"]),
        ("stage1.*", ["stage1.0.conv1", "stage1.0.conv2"]),
        ("*.conv?", ["stage1.0.conv1", "stage1.0.conv2"]),
        ("*", NAMES),
        ("[hs]*.[0l]*", ["stem.0", "stage1.0.conv1", "stage1.0.conv2", "head.linear"]),
        ("STEM.0", []),
        ("stem", []),
    ],
)
def test_patterns_are_names_or_globs(pattern, matched, refused):
    assert [n for n in NAMES if matches(n, [pattern])] == matched
    if matched:
        check_skip([pattern], NAMES)
    else:
        with refused(UnknownNameError, f"{pattern!r}"):
            check_skip([pattern], NAMES)


def test_no_patterns_match_nothing():
    check_skip((), NAMES)
    assert not matches("stem.0", ())


@pytest.mark.parametrize(("typo", "near"), [("stem.1", "stem.0"), ("head.liner", "head.linear")])
def test_the_first_wrong_pattern_is_named_with_its_nearest_layer(typo, near, refused):
    with refused(UnknownNameError, repr(typo), hint=repr(near)):
        check_skip(["stem.0", typo, "nonsense"], NAMES)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_samples_are_taken_however_many_there_are(count):
    x = np.arange(count * 12, dtype=np.float32).reshape(count, 3, 4)
    found = first_batch([x, x + 1])
    assert found.shape == (2, 3, 4)
    assert torch.equal(found[0], torch.from_numpy(x[0]))
    assert torch.equal(found[1], torch.from_numpy(x[min(1, count - 1)]))
