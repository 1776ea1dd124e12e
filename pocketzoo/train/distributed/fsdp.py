"""Shard a model over processes by FSDP2: each block is gathered when it runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pocketzoo.train.distributed.process_group import World
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock
from pocketzoo.zoo.models.build import Model


def sharded(
    model: Model, blocks: Sequence[BackboneBlock], body: Sequence[BackboneBlock], world: World
) -> tuple[Model, list[BackboneBlock]]:
    """A copy of a model on the world's devices, each with a part of every parameter, and ``body`` as blocks of it.

    ``blocks``, all of the backbone's, are gathered one after the other as they run (Zhao et al. 2023,
    arXiv:2304.11277), and the rest of the model, which is the head, with the whole.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    modules = {id(module): name for name, module in model.named_modules()}
    parameters = {id(p): name for name, p in model.named_parameters()}
    twin = copy.deepcopy(model)
    for block in blocks:
        for module in block.modules:
            fully_shard(twin.get_submodule(modules[id(module)]), mesh=mesh)
    fully_shard(twin, mesh=mesh)
    twin.to(world.device)  # buffers; parameters are there
    new = dict(twin.named_parameters())  # sharding made others of them
    sharded_body = [
        BackboneBlock(
            block.name,
            [twin.get_submodule(modules[id(module)]) for module in block.modules],
            [new[parameters[id(p)]] for p in block.parameters],
        )
        for block in body
    ]
    return twin, sharded_body
