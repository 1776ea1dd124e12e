"""What a module multiplies is what its exported graph does, operator by operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketzoo.zoo.backends.onnxruntime.observed import observe
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.modules.module_macs import module_macs


class Function(nn.Module):
    """A function of its input, and of a module's first output perhaps."""

    def __init__(self, function, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.inner = function, inner

    def forward(self, x):
        return self.function(x) if self.inner is None else self.function(self.inner, x)


def first(inner, x):
    return inner(x)[0]


def itself(inner, x):
    return inner(x, x, x)[0]


class Contraction(nn.Module):
    def __init__(self, equation: str, *shape: int) -> None:
        super().__init__()
        self.equation, self.weight = equation, nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return torch.einsum(self.equation, x, self.weight)


TEXT = (7, 16)
MODULES = {
    "LSTM": (Function(first, nn.LSTM(16, 8, 2, bidirectional=True, batch_first=True)), TEXT),
    "GRU": (Function(first, nn.GRU(16, 8, batch_first=True)), TEXT),
    "RNN": (Function(first, nn.RNN(16, 8, batch_first=True)), TEXT),
    "attention": (Function(itself, nn.MultiheadAttention(16, 4, batch_first=True)), TEXT),
    "encoder": (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), TEXT),
    "scaled dot products": (Function(lambda x: F.scaled_dot_product_attention(*[x[:, None]] * 3)), TEXT),
    "activations": (Function(lambda x: x @ x.mT), TEXT),
    "elements": (Function(lambda x: x * x), TEXT),
    "bilinear": (Function(lambda inner, x: inner(x, x), nn.Bilinear(16, 16, 5)), (16,)),
    "einsum of a weight": (Contraction("bti,oi->bot", 5, 16), TEXT),
    "einsum that sums before": (Contraction("bti,ij->b", 16, 5), TEXT),
    "einsum of elements": (Contraction("bti,i->bti", 16), TEXT),
    "Conv1d": (nn.Conv1d(7, 14, 3, groups=7), TEXT),
    "Conv2d": (nn.Conv2d(3, 6, 3, 2, 1, dilation=2), (3, 9, 8)),
    "Conv3d": (nn.Conv3d(2, 4, 3, groups=2), (2, 5, 6, 7)),
    "ConvTranspose1d": (nn.ConvTranspose1d(7, 6, 3, 2), TEXT),
    "ConvTranspose2d": (nn.ConvTranspose2d(3, 6, 3, 2, 1, dilation=2), (3, 8, 8)),
    "ConvTranspose3d": (nn.ConvTranspose3d(2, 4, 3, groups=2), (2, 3, 4, 5)),
    "spectral norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)), TEXT),
    "weights of two factors": (Function(lambda inner, x: x @ (inner.weight @ inner.weight), nn.Linear(16, 16)), TEXT),
    "a layer twice": (Function(lambda inner, x: inner(inner(x)), nn.Linear(16, 16)), TEXT),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_multiplies_as_often_as_its_graph(name, tmp_path):
    module, shape = MODULES[name]
    config = ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", *shape)),))
    onnx_from_model(module, config, tmp_path / "m.onnx")
    sample = np.zeros((1, *shape), np.float32)
    costs = layer_costs(tmp_path / "m.onnx", {"x": sample}, observe)
    assert not any(cost.note for cost in costs)
    assert sum(cost.macs for cost in costs) == module_macs(module, [torch.from_numpy(sample)]).total


def test_it_is_attributed_to_parameters_that_are_factors_and_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 5)).train()
    counted = module_macs(module, [torch.zeros(2, 3, 6, 6)])
    assert dict(counted.by_parameter) == {"0.weight": 2 * 16 * 4 * 27, "2.weight": 2 * 64 * 5}
    assert counted.total == sum(counted.by_parameter.values())
    assert module.training
    assert torch.backends.mha.get_fastpath_enabled()
