"""Fit the weights that ship: python -m pocketzoo_image_and_table.train"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from pocketzoo_image_and_table import COLUMNS, EMBEDDING, FEATURES, IMAGE, MEASURES
from pocketzoo_image_and_table.measures import load
from pocketzoo_image_and_table.network import Backbone, Head


def main() -> None:
    torch.manual_seed(0)
    split = load().split("train")
    image = np.stack([sample["image"] for sample in split.samples])[:, None] / np.float32(255)
    table = np.array([[sample["measures"][name] for name in COLUMNS] for sample in split.samples], np.float32)
    x = torch.from_numpy((image - np.float32(IMAGE.mean[0])) / np.float32(IMAGE.std[0]))
    rows = torch.from_numpy((table - np.float32(MEASURES.mean)) / np.float32(MEASURES.std))
    y = torch.from_numpy(split.targets)
    backbone, head, alike = Backbone(len(COLUMNS), FEATURES), Head(FEATURES, 10, EMBEDDING), nn.Linear(EMBEDDING, 10)
    parameters = [*backbone.parameters(), *head.parameters(), *alike.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=1e-2)
    epochs = 40
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * -(-len(y) // 64))
    for _ in range(epochs):
        for part in torch.randperm(len(y)).split(64):
            out = head(backbone(x[part], rows[part]))
            loss = F.cross_entropy(out["logits"], y[part]) + F.cross_entropy(alike(out["embedding"]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    state = {
        f"{name}.{k}": v for name, m in (("backbone", backbone), ("head", head)) for k, v in m.state_dict().items()
    }
    save_file(state, Path(__file__).parent / "digits.safetensors")


if __name__ == "__main__":
    main()
