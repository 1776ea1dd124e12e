"""Adapters: nothing at first, what they learn in the weights in the end, whatever the linear layers are called."""

from __future__ import annotations

import json
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from hubmodels import write_model
from scoring import TEXT, task
from torch import nn

from pocketzoo.core.errors import RecipeError, UnsupportedLayerError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.fit import fit
from pocketzoo.train.lora import Adapters
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.train.snapshot import state_of
from pocketzoo.train.transfer_learning import Transfer
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.models.backbone_blocks import blocks
from pocketzoo.zoo.models.build import build, example, load_module, resolve

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Registry:
    """What ships, and a BERT, a GPT-2, a Llama and a ViT with random weights."""
    specs = []
    for family in ("bert", "gpt2", "llama", "vit"):
        folder = tmp_path_factory.mktemp(family)
        write_model(folder, family)
        files = {p.name: p for p in folder.iterdir()}
        config = json.loads(files["config.json"].read_text())
        facts = Repository(repo_id=f"acme/{family}", commit="0" * 40, config=config, files=files)
        specs.append(replace(plugin.backbone(facts), name=f"tiny-{family}"))

    @hookimpl
    def pocketzoo_backbones():
        return specs

    found = types.ModuleType("tiny_models")
    found.pocketzoo_backbones = pocketzoo_backbones
    return Registry(create_manager(points=[], extra=[found]))


@pytest.fixture(scope="module")
def words() -> Dataset:
    """Whether a text has the word 9 in it."""
    generator = np.random.default_rng(0)
    x = generator.integers(4, 12, (90, 6))
    y = (x == 9).any(1).astype(np.int64)
    parts = {"train": slice(0, 60), "val": slice(60, 75), "test": slice(75, 90)}
    return Dataset("words", ("no", "yes"), {name: Split(x[part], y[part]) for name, part in parts.items()})


def backbone(registry: Registry, name: str) -> tuple[nn.Module, torch.Tensor]:
    spec = registry.get("backbone", name)
    torch.manual_seed(0)
    return spec.build().eval(), example(spec.input, 3)


FAMILIES = ["tiny-bert", "tiny-gpt2", "tiny-llama", "tiny-vit"]
CONFIG = TrainConfig(lora_rank=4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_adapters_change_nothing_until_they_learn_and_merge_to_the_same(family, tiny):
    module, x = backbone(tiny, family)
    names, plain = list(module.state_dict()), module(x)
    adapters = Adapters(module, x, CONFIG)
    body = adapters.attach()
    assert torch.equal(module(x), plain)
    parameters = [p for block in body for p in block.parameters]
    linear = sum(p.numel() for p in module.parameters())
    assert 0 < sum(p.numel() for p in parameters) < linear
    generator = torch.Generator().manual_seed(1)
    for p in parameters:
        p.add_(0.1 * torch.randn(p.shape, generator=generator))
    adapted = module(x)
    assert float((adapted - plain).abs().max()) > 0.01
    adapters.merge()
    assert float((module(x) - adapted).abs().max()) < 1e-5
    assert list(module.state_dict()) == names


def test_every_linear_layer_that_runs_has_one(tiny):
    module, x = backbone(tiny, "tiny-gpt2")
    parts = [block.name for block in blocks(module, x)]
    body = Adapters(module, x, CONFIG).attach()
    assert [block.name for block in body] == [name for name in parts if name in {block.name for block in body}]
    # Of two blocks attention's two layers and the feed-forward part's two, each with an A and a B.
    assert sum(len(block.parameters) for block in body) == 2 * (2 + 2) * 2


def test_a_merge_adds_alpha_over_rank_times_the_product():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unused = nn.Linear(3, 5), nn.Linear(3, 5)

        def forward(self, x):
            return self.first(x)

    net = Net()
    weight = net.first.weight.detach().clone()
    adapters = Adapters(net, torch.zeros(1, 3), TrainConfig(lora_rank=2, lora_alpha=6.0))
    ((a, b),) = [block.parameters for block in adapters.attach()]
    with torch.no_grad():
        b.normal_()
        wanted = weight + 6 / 2 * b @ a
    adapters.merge()
    assert torch.allclose(net.first.weight, wanted, atol=1e-6)


def test_a_backbone_without_linear_layers_is_refused(registry, few, tmp_path, refused):
    with refused(UnsupportedLayerError, "no linear layer", hint="unfreeze"):
        fit("tinynet", tmp_path / "x", data=few, training={"lora_rank": 4}, registry=registry)
    with refused(RecipeError, "lora_rank keeps the backbone's own weights frozen"):
        with_settings({"lora_rank": 4}, unfreeze="last:1")


class Killed(BaseException):
    """Stands for what ends a process in the middle."""


class Ending:
    """Progress that dies in an epoch of the fine-tuning."""

    def __init__(self, epoch: int = -1) -> None:
        self.epoch = epoch

    def track(self, items, label, total=None):
        for item in items:
            if (label, item) == ("fine-tuning", self.epoch):
                raise Killed
            yield item

    def say(self, text: str) -> None:
        pass


def trained_by(words):
    opened = task("text-classification", words.labels, TEXT)
    return opened, opened.spec.training()


@pytest.mark.parametrize("family", ["tiny-bert", "tiny-gpt2"])
def test_it_learns_and_goes_on_to_the_same_bits(family, tiny, words, tmp_path, own_home):
    ref = ModelRef(backbone=family, head="linear", outputs=2)
    config = TrainConfig(epochs=6, head_epochs=1, batch_size=10, lora_rank=4, lora_dropout=0.1, learning_rate=0.02)

    def run(epoch: int = -1, place=None):
        torch.manual_seed(0)
        model, parts = build(ref, tiny), resolve(ref, tiny)
        before = state_of(model.backbone)
        common = {"digest": words.digest(), "world": World(), "place": place}
        history, _ = Transfer(
            model, parts, *trained_by(words), words, 2, config, progress=Ending(epoch), **common
        ).run()
        return model, before, history

    whole, before, history = run()
    assert history.losses[-1] < 0.8 * history.losses[0]
    moved = {name for name, value in whole.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(whole.backbone.get_parameter(name).ndim == 2 and "emb" not in name for name in moved)
    with pytest.raises(Killed):
        run(3, tmp_path / "s")
    again, _, after = run(place=tmp_path / "s")
    assert after == history
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


@pytest.mark.slow
def test_the_bundle_has_plain_layers_that_give_what_was_scored(tiny, words, tmp_path, own_home):
    training = {"lora_rank": 4, "epochs": 3, "learning_rate": 0.02}
    bundle = fit("tiny-gpt2", tmp_path / "x", data=words, training=training, registry=tiny)
    module = load_module(bundle, tiny)
    assert not any("lora" in name for name in module.state_dict())
    split = words.split("test")
    with torch.no_grad():
        right = (module(torch.from_numpy(split.samples)).argmax(1).numpy() == split.targets).mean()
    assert bundle.manifest.metrics["test_accuracy"] == pytest.approx(right)
    assert bundle.manifest.provenance["training"]["lora_rank"] == 4
