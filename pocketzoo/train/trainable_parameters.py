"""The trainable parameters of a model: select, extract, save and restore them, sharded or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pocketzoo.train.snapshot import laid_out
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock


class Learning:
    """The head and the blocks of a model that learn, with the buffers in them."""

    def __init__(self, model: nn.Module, head: nn.Module, body: Sequence[BackboneBlock]) -> None:
        self.model, self.head, self.body = model, head, body
        modules = [head, *(module for block in body for module in block.modules)]
        inside = {id(part) for module in modules for part in module.modules()}
        alone = {id(p) for block in body for p in block.parameters}  # some lie in no module that learns as a whole
        names = {
            *(name for name, p in model.named_parameters() if id(p) in alone),
            *(
                f"{path}.{name}".lstrip(".")
                for path, part in model.named_modules()
                if id(part) in inside
                for name in part.state_dict()
            ),
        }
        self.names = [name for name in model.state_dict() if name in names]  # in one order in all processes

    def begin(self) -> None:
        """Training mode and gradients for what is trained; statistics of frozen batch norms stay as they are."""
        self.model.eval().requires_grad_(False)
        self.head.train().requires_grad_(True)
        for block in self.body:
            for module in block.modules:
                module.train()
            for p in block.parameters:
                p.requires_grad_(True)

    def state(self) -> dict[str, Tensor]:
        """A copy of its parameters and buffers; of a sharded model this process's part."""
        own = self.model.state_dict()
        return {name: own[name].detach().clone() for name in self.names}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave, or ``gathered`` made of it."""
        own = self.model.state_dict()
        with torch.no_grad():
            for name in self.names:
                own[name].copy_(laid_out(state[name], own[name]))
