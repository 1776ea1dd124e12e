"""The networks that both tools prune are what they say, and a result becomes a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    import nets

    yield nets
    del sys.modules["nets"]


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_images_get_ten_answers_each(name, nets):
    net = nets.NETS[name]().eval()
    assert nets.outputs(net, torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_texts_get_vectors_of_length_one_that_depend_on_their_words(nets):
    net = nets.MiniLM(size=32, depth=1, heads=4, words=50).eval()
    given = nets.outputs(net, torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4]]))
    torch.testing.assert_close(given.norm(dim=1), torch.ones(3))
    assert not torch.allclose(given[0], given[2])


def test_multiply_accumulates_are_counted_by_layer(nets):
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    assert nets.macs(net, torch.zeros(4, 2, 4, 4)) == 16 * 3 * 2 * 9 + 48 * 5


def test_the_page_shows_what_was_recorded(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import page

    rows = [
        {"name": "float32", "macs": 2_000_000, "accuracy": 0.9, "agreement": 1.0},
        {"name": "pocketzoo", "share": 0.5, "macs": 1_000_000, "accuracy": 0.8765, "agreement": 0.95},
    ]
    text = page._pruning({"steps": 400, "batch": 64, "samples": [512, 2000], "models": {"vit": {"rows": rows}}})
    assert "| vit | pocketzoo | 1.00 (0.50) | 0.8765 | 0.9500 | - |" in text
