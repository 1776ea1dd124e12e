"""Networks of nets.py pruned by Torch-Pruning, in one shot, to as many multiply-accumulates as METHOD names.

METHOD is "vit:123000,88000"; GRAPH holds the weights, SAMPLES the arrays "calibrate" and "test", and OUT gets what each
pruned network outputs on the test samples, by importance and target. See common.py.

Heads of attention stay, hidden units go. Torch-Pruning 1.6.1 cuts no heads in small steps: ranked over all layers a
step takes less than one, and it ends with an UnboundLocalError; layer by layer each step takes one, until none is left.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from common import measured
from nets import NETS, Attention, macs, outputs
from torch import nn

STEPS, MOST = 200, 0.95  # it cuts this fraction of MOST a time until the target is met


def main() -> None:
    method, weights, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    name, targets = method.split(":")
    net = NETS[name]().eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    arrays = np.load(samples)
    calibrate, test = (torch.from_numpy(arrays[key]) for key in ("calibrate", "test"))
    found: dict[str, np.ndarray] = {}
    with measured() as said:
        for importance in ("magnitude", "taylor"):
            for target in map(float, targets.split(",")):
                smaller = prune(copy.deepcopy(net), calibrate, importance, target)
                found[f"{importance}:{target:.0f}"] = outputs(smaller, test).numpy()
                said[f"{importance}:{target:.0f}"] = macs(smaller, calibrate)
    with out.open("wb") as file:
        np.savez(file, **found)


def prune(net: nn.Module, calibrate: torch.Tensor, importance: str, target: float) -> nn.Module:
    """The network with the least important groups gone, until no more than ``target`` is left."""
    ways = {"magnitude": tp.importance.GroupMagnitudeImportance(p=2), "taylor": tp.importance.GroupTaylorImportance()}
    if importance == "taylor":
        for x in calibrate.split(64):
            loss(net(x)).backward()
    attending = [layer for m in net.modules() if isinstance(m, Attention) for layer in (m.query, m.key, m.value)]
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    residual = [m for m in net.modules() if isinstance(m, nn.Embedding | nn.LayerNorm)]  # MiniLM's outputs are these
    pruner = tp.pruner.BasePruner(
        net,
        calibrate[:2],
        importance=ways[importance],
        global_pruning=True,
        pruning_ratio=MOST,
        iterative_steps=STEPS,
        ignored_layers=[last, *attending, *residual] if attending else [last],
    )
    for _ in range(STEPS):
        if macs(net, calibrate) <= target:
            return net
        pruner.step()
    raise SystemExit(f"{macs(net, calibrate)} multiply-accumulates are left, not {target:.0f}")


def loss(given: torch.Tensor) -> torch.Tensor:
    """Against the network's own answers: there are no labels; vectors of no classes are asked to stay long."""
    if given.shape[1] == 10:
        return nn.functional.cross_entropy(given, given.argmax(-1), reduction="sum")
    return (given * torch.randn(given.shape, generator=torch.Generator().manual_seed(0))).sum()


if __name__ == "__main__":
    main()
