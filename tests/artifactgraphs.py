"""Small modules of torch exported as the graphs of artifacts: an LSTM's step, and two encoders of one space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.models.export_graph import graph_from_part

STATES = {"stateN": "state"}
WIDTH, HIDDEN = 12, 8


class Listener(nn.Module):
    """One call on a piece of sound (B, 12): a score (B, 1), and the state (2, B, 8) of the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.cell, self.score = nn.Linear(WIDTH, 16), nn.LSTMCell(16, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, piece: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, cell = self.cell(torch.relu(self.features(piece)), (state[0], state[1]))
        return torch.sigmoid(self.score(hidden)), torch.stack([hidden, cell])


class ImageEncoder(nn.Module):
    """Images (B, 1, 8, 8) to (B, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 16)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.out(torch.relu(self.conv(image)).mean((2, 3))),)


class WordsEncoder(nn.Module):
    """Counts of words (B, 20) to (B, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layers(words),)


def listener(path: Path) -> Listener:
    """Write the graph of a listener; the module it is of."""
    torch.manual_seed(0)
    module = Listener().eval()
    examples = [(torch.randn(batch, WIDTH), torch.randn(2, batch, HIDDEN)) for batch in (2, 1, 5)]
    axes = ({0: "batch"}, {1: "batch"})
    graph_from_part(module, examples, axes, (["piece", "state"], ["score", "stateN"]), path)
    return module


def encoders(folder: Path) -> dict[str, nn.Module]:
    """Write ``image.onnx`` and ``words.onnx``; the modules they are of."""
    torch.manual_seed(0)
    image, words = ImageEncoder().eval(), WordsEncoder().eval()
    images = [(torch.rand(batch, 1, 8, 8),) for batch in (2, 1, 5)]
    graph_from_part(image, images, ({0: "batch"},), (["pixels"], ["embedding"]), folder / "image.onnx")
    counts = [(torch.rand(batch, 20),) for batch in (2, 1, 5)]
    graph_from_part(words, counts, ({0: "batch"},), (["words"], ["embedding"]), folder / "words.onnx")
    return {"image": image, "words": words}


def start(path: Path) -> OnnxRunner:
    """A graph on onnxruntime."""
    return OnnxRunner(path, threads=1)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
