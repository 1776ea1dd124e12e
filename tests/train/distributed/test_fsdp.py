"""FSDP2 under torchrun on CPUs: what comes out is what one whole model learns, after a kill too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.distributed import process_group
from pocketzoo.train.distributed.fsdp import sharded
from pocketzoo.train.fit import fit
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock

SCRIPT = """
import sys
import torch
from pocketzoo.core.progress import Silent
from pocketzoo.train import fit as module

class Ending(Silent):
    def track(self, items, label, total=None):
        for item in items:
            if label == "fine-tuning" and str(item) == sys.argv[4]:
                raise SystemExit(3)
            yield item

training = dict(epochs=4, head_epochs=1, unfreeze="last:2", batch_size=32, clip=0.5)
module.fit("tinynet", sys.argv[1], data=sys.argv[2], training=training, shard=sys.argv[3] == "shard", progress=Ending())
"""


def test_what_cannot_be_sharded_is_refused(few, registry, tmp_path, refused):
    with refused(RecipeError, "one process", hint="torchrun"):
        fit("tinynet", tmp_path / "x", data=few, unfreeze="all", shard=True, registry=registry)


@pytest.mark.slow
def test_a_sharded_model_learns_what_a_whole_one_does_and_goes_on_to_the_same_bits(few, tmp_path):
    np.savez(tmp_path / "few.npz", x=few.split("train").samples, y=few.split("train").targets)
    (tmp_path / "run.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(out: str, how: str, end: str = "") -> dict[str, torch.Tensor]:
        command = [*launcher, tmp_path / "run.py", tmp_path / out, tmp_path / "few.npz", how, end]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
        assert done.returncode == bool(end), done.stderr
        return {} if end else load_file(tmp_path / out / "model.safetensors")

    whole, parts = run("whole", "whole"), run("parts", "shard")
    assert whole.keys() == parts.keys()
    assert max(float((v.float() - parts[k].float()).abs().max()) for k, v in whole.items()) < 1e-5
    run("cut", "shard", "3")
    again = run("cut", "shard")
    assert all(torch.equal(v, again[k]) for k, v in parts.items())


def test_every_block_and_the_rest_are_sharded_in_a_copy(monkeypatch):
    """With one process each shard is the whole: what it computes is the same."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(process_group, "_meeting", lambda: (distributed.HashStore(), 0, 1))
    backbone = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6))
    model = nn.Sequential(OrderedDict(backbone=backbone, head=nn.Linear(6, 2)))
    blocks = [BackboneBlock(str(i), [backbone[i]], list(backbone[i].parameters())) for i in (0, 2)]
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with process_group.joined() as world:
        twin, found = sharded(model, blocks, blocks[1:], world)
        names = {name for name, module in twin.named_modules() if isinstance(module, FSDPModule)}
        assert names == {"", "backbone.0", "backbone.2"}
        assert all(isinstance(p, DTensor) for p in twin.parameters())
        assert [block.name for block in found] == ["2"]
        assert found[0].modules == [twin.get_submodule("backbone.2")]
        learned = twin.get_submodule("backbone.2")
        assert [id(p) for p in found[0].parameters] == [id(p) for p in learned.parameters()]
        torch.testing.assert_close(twin(x), model(x))
    assert not any(isinstance(p, DTensor) for p in model.parameters())
