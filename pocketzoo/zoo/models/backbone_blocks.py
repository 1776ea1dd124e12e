"""The blocks of a backbone in execution order, for fine-tuning the last ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import RecipeError, UnknownNameError, nearest
from pocketzoo.zoo.models.layer_hooks import before
from pocketzoo.zoo.modules.inputs import TensorInputs, call


@dataclass(frozen=True)
class BackboneBlock:
    """A part of a backbone that learns, or does not, as one."""

    name: str
    modules: list[nn.Module]
    parameters: list[nn.Parameter]  # those of the modules; of the first block also what lies in none, such as a token


def blocks(backbone: nn.Module, x: Tensor | TensorInputs) -> list[BackboneBlock]:
    """Blocks that hold all parameters between them, in the order they first run on ``x``: its input, or its inputs.

    Lists of layers are opened, and so is what only wraps them; a norm goes with the layer before it. A ResNet has its
    stem and its residual blocks, a BERT its embeddings and layers, a VGG its convolutions.
    """
    order: list[str] = []

    def note(name: str, layer: nn.Module, inputs: object) -> None:
        if name not in order:
            order.append(name)

    with before(backbone, _parts(backbone, ""), note), torch.no_grad():
        call(backbone, x)
    grouped: list[BackboneBlock] = []
    for name in order:
        module = backbone.get_submodule(name)
        parameters = list(module.parameters())
        if grouped and all(p.ndim == 1 for p in parameters):
            grouped[-1].modules.append(module)
            grouped[-1].parameters.extend(parameters)
        else:
            grouped.append(BackboneBlock(name, [module], parameters))
    taken = {id(p) for block in grouped for p in block.parameters}
    if grouped:
        grouped[0].parameters.extend(p for p in backbone.parameters() if id(p) not in taken)
    return grouped


def unfrozen(backbone: nn.Module, x: Tensor | TensorInputs, asked: str) -> list[BackboneBlock]:
    """The blocks that learn, in the order they run.

    ``asked`` is "none", "all", "last:N", or the name of a layer: its block and all after it.

    Raises:
        RecipeError: there are fewer than N blocks.
        UnknownNameError: no layer is called so, or nothing of it runs.
    """
    if asked == "none":
        return []
    parts = blocks(backbone, x)
    if asked == "all":
        return parts
    if asked.startswith("last:"):
        count = int(asked.removeprefix("last:"))
        if count > len(parts):
            raise RecipeError(f"the backbone has {len(parts)} blocks, but the last {count} were asked for", "use all")
        return parts[-count:]
    inside = [
        i for i, b in enumerate(parts) if f"{asked}.".startswith(f"{b.name}.") or f"{b.name}.".startswith(f"{asked}.")
    ]
    known = dict(backbone.named_modules())
    if not inside or asked not in known:
        raise UnknownNameError(f"the backbone has no block {asked!r}", nearest(asked, [b.name for b in parts]))
    return parts[min(inside) :]


def _parts(module: nn.Module, name: str, *, opened: bool = False) -> list[str]:
    """Names of the parts of a module; ``opened`` is whether the backbone itself, below what wraps it, was."""
    children = dict(module.named_children())
    wraps = len(children) == 1
    if not opened or wraps or isinstance(module, nn.Sequential | nn.ModuleList):
        inside = [(f"{name}.{n}".lstrip("."), c) for n, c in children.items() if any(True for _ in c.parameters())]
        if inside:
            return [part for path, child in inside for part in _parts(child, path, opened=opened or not wraps)]
    return [name] if name else []
