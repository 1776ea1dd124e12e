"""Pretrain tinynet on Fashion-MNIST; writes the weights and the record that ship in the package.

Usage: python tools/pretrain_tinynet.py [--epochs 12] [--seed 0]
Data: Debian's package dataset-fashion-mnist (60,000 training and 10,000 test images, MIT license).
The schedule is one-cycle SGD (Smith & Topin 2017, arXiv:1708.07120); the test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.plugins.tinynet.module import TinyNet

SOURCE = Path("/usr/share/datasets/fashion-mnist")
OUT = Path(__file__).resolve().parent.parent / "pocketzoo" / "plugins" / "tinynet"
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, pixels in 0-1
BATCH = 128


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = TinyNet(), nn.Sequential()
        self.head.add_module("linear", nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x).mean((2, 3)))


def read_idx(name: str) -> np.ndarray:
    raw = gzip.decompress((SOURCE / name).read_bytes())
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def load(part: str) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(read_idx(f"{part}-images-idx3-ubyte.gz").copy()).float().div_(255)
    y = torch.from_numpy(read_idx(f"{part}-labels-idx1-ubyte.gz").copy()).long()
    return ((x - MEAN) / STD).unsqueeze(1), y


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the batch and shift it by up to two pixels; edges show the background."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirrored, x.flip(3), x)
    dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
    return F.pad(x, (2, 2, 2, 2), value=-MEAN / STD)[:, :, dy : dy + 28, dx : dx + 28]


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    hits = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True))
    return hits / len(y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    x, y = load("train")
    model = Classifier().to(memory_format=torch.channels_last)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 1e-3}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=args.epochs * steps)
    start = time.time()
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(x), generator=generator)
        for i in order[: steps * BATCH].split(BATCH):
            batch = augment(x[i], generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}, {time.time() - start:.0f} s", flush=True)

    test = accuracy(model, *load("t10k"))
    weights = OUT / "tinynet.safetensors"
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, weights)
    record = {
        "script": "tools/pretrain_tinynet.py",
        "data": "Fashion-MNIST, 60,000 training images, Debian package dataset-fashion-mnist, MIT license",
        "epochs": args.epochs,
        "seed": args.seed,
        "batch": BATCH,
        "parameters": sum(p.numel() for p in model.backbone.parameters()),
        "test_accuracy": test,
        "seconds": round(time.time() - start),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "size": weights.stat().st_size,
    }
    (OUT / "tinynet.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
