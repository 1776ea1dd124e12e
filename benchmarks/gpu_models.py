"""The modules that the GPU benchmark runs, what they cost, and their variants in other precisions, on any device."""

from __future__ import annotations

import copy
import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
MLP = (4096, 4096, 4096)  # wide enough for a GPU to have something to do
TOKENS = 128
ROWS = 32  # that the int8 kernels take at the least


class Subject:
    """A module on the CPU in fp32, and a batch for it."""

    def __init__(self, name: str) -> None:
        self.name, self.note = name, ""
        try:
            self.module, self.spec = _from_zoo(name)
        except ImportError as error:  # the zoo needs packages that the measuring does not
            self.module, self.spec = _bare(name), None
            self.note = f"random weights: {error.name or error} is not installed"
        self.module = self.module.eval().requires_grad_(False)

    def batch(self, size: int) -> Tensor:
        """(size, ...): normal numbers, or token ids."""
        generator = torch.Generator().manual_seed(0)
        if hasattr(self.spec, "vocabulary"):
            tokens = min(TOKENS, self.spec.max_length)
            ids = torch.randint(0, self.spec.vocabulary - 1, (size, tokens), generator=generator)
            return torch.where(ids == self.spec.pad, self.spec.vocabulary - 1, ids)
        shape = self.spec.size if self.spec else (1, 28, 28)
        return torch.randn(size, *shape, generator=generator)

    def cost(self) -> dict[str, Any]:
        """Operations of one sample (a multiply-accumulate is two), weights, and values in and out of one sample."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = self.module(x := self.batch(1))
        weights = sum(p.numel() for p in self.module.parameters())
        return {
            "operations": counter.get_total_flops(),
            "weights": weights,
            "sample_values": x.numel() + out.numel(),
            "note": self.note,
        }


def _from_zoo(name: str) -> tuple[nn.Module, Any]:
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.bundles.manifest import ModelRef
    from pocketzoo.zoo.catalog.registry import default_registry
    from pocketzoo.zoo.models.build import build, load_module, load_pretrained

    registry = default_registry()
    if Path(name).is_dir():
        bundle = read_bundle(name)
        return load_module(bundle, registry), bundle.manifest.input
    if name == "mlp":
        options = {"hidden": list(MLP), "input": [1, 28, 28]}
        ref = ModelRef(backbone="mlp", head="linear", outputs=1000, backbone_options=options)
        return build(ref, registry), registry.get("backbone", name).input
    spec = registry.get("backbone", name)
    labels = registry.get("head", spec.head).labels
    ref = ModelRef(backbone=name, head=spec.head, outputs=len(labels()))
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    return model, spec.input


def _bare(name: str) -> nn.Module:
    """The same structure from its file alone."""
    if name == "mlp":
        widths = (784, *MLP)
        layers: list[nn.Module] = [nn.Flatten()]
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(MLP[-1], 1000))
    if name != "tinynet":
        raise ImportError(f"{name} needs the packages of pocketzoo[compress]", name=name)
    path = ROOT / "pocketzoo" / "plugins" / "tinynet" / "module.py"
    spec = importlib.util.spec_from_file_location("tinynet_module", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return nn.Sequential(found.TinyNet(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class Int8Linear(nn.Module):
    """A linear layer on ``torch._int_mm``: weights by channel, activations by row as they come, both symmetric."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.float().abs().amax(1).clamp(min=1e-12) / 127
        weight = (linear.weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("weight", weight.t())  # (I, O), by columns: what the kernels want
        self.register_buffer("scale", scale.view(torch.int32))  # so that module.half() leaves it in float32
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        step = flat.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / 127
        rounded = (flat / step).round().to(torch.int8)
        rows = len(rounded)
        if rows < ROWS:
            rounded = nn.functional.pad(rounded, (0, 0, 0, ROWS - rows))
        out = torch._int_mm(rounded, self.weight)[:rows] * (step * self.scale.view(torch.float32))
        out = out.to(x.dtype) if self.bias is None else out.to(x.dtype) + self.bias
        return out.reshape(*x.shape[:-1], -1)


def with_int8(module: nn.Module) -> nn.Module:
    """A copy whose linear layers run in int8; None of them: ValueError."""
    return _swapped(module, Int8Linear, lambda m: m.in_features % 8 == 0 and m.out_features % 8 == 0, "int8 kernels")


def two_of_four(module: nn.Module) -> nn.Module:
    """A copy whose linear layers keep the two largest weights of every four: dense still, what 2:4 is held against."""

    def prune(linear: nn.Linear) -> nn.Module:
        fours = linear.weight.reshape(linear.out_features, -1, 4)
        mask = torch.zeros_like(fours).scatter_(-1, fours.abs().topk(2, dim=-1).indices, 1.0)
        pruned = copy.deepcopy(linear)
        pruned.weight = nn.Parameter((fours * mask).reshape(linear.weight.shape), requires_grad=False)
        return pruned

    return _swapped(module, prune, suits_two_of_four, "2:4")


def suits_two_of_four(linear: nn.Linear) -> bool:
    """What cuSPARSELt's fp16 kernels ask of the shape."""
    return linear.in_features % 64 == 0 and linear.out_features % 32 == 0


def with_sparse_kernels(module: nn.Module) -> nn.Module:
    """A copy of what ``two_of_four`` gave, on a GPU in fp16, whose weights are stored and multiplied as 2:4."""

    def compress(linear: nn.Linear) -> nn.Module:
        sparse = copy.deepcopy(linear)
        packed = torch.sparse.to_sparse_semi_structured(linear.weight.detach().contiguous())
        sparse.weight = nn.Parameter(packed, requires_grad=False)
        return sparse

    return _swapped(module, compress, suits_two_of_four, "2:4")


def _swapped(module: nn.Module, make: Any, suits: Any, what: str) -> nn.Module:
    made = copy.deepcopy(module)
    found = [(name, each) for name, each in made.named_modules() if isinstance(each, nn.Linear) and suits(each)]
    if not found:
        raise ValueError(f"no linear layer has the shape for {what}")
    for name, each in found:
        parent, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(parent), leaf, make(each))
    return made


def sqnr(out: Tensor, reference: Tensor) -> float:
    """10 log10(|ref|^2 / |ref - out|^2) in dB; infinite where they are equal."""
    out, reference = out.double().cpu(), reference.double().cpu()
    noise = (out - reference).square().sum()
    return float(10 * torch.log10(reference.square().sum() / noise)) if noise > 0 else float("inf")
