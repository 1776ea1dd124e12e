"""Every head that ships goes through the zoo: into a bundle, to ONNX, back, compressed and measured."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import pocketzoo
from pocketzoo.compress.configs import Int8Config, LowRankConfig
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.zoo.bundles.bundle import writing
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.head_task import answer_facts, head_task
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, InputSpec, TextSpec
from pocketzoo.zoo.models.build import build, example, load_module
from pocketzoo.zoo.models.heads import plain_options
from pocketzoo.zoo.models.save import save_model

WORDS, WIDTH = 30, 16
TEXT = TextSpec(vocabulary=WORDS, pad=0, max_length=20)


class Words(nn.Module):
    """Ids (B, T) to features (B, T, C), zero where a text has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.mix(self.words(ids))) * (ids != 0)[:, :, None]


def pixels() -> nn.Module:
    """Images (B, 1, 28, 28) to a map (B, 4, 4, 4): small also when a head flattens it."""
    return nn.Sequential(nn.Conv2d(1, 4, 7, stride=7), nn.ReLU())


@pytest.fixture(scope="module")
def zoo() -> Registry:
    """What ships, a backbone that reads texts, and one that gives few features of images."""
    plugin = ModuleType("acme")
    image = InputSpec(shape=("batch", 1, 28, 28), mean=(0.0,), std=(1.0,), resize=28)
    specs = [
        BackboneSpec(name="words", summary="s", license="MIT", input=TEXT, build=Words,
                     features=FeatureSpec("sequence", ("batch", "sequence", WIDTH))),
        BackboneSpec(name="pixels", summary="s", license="MIT", input=image, build=pixels,
                     features=FeatureSpec("map", ("batch", 4, 4, 4))),
    ]  # fmt: skip
    plugin.pocketzoo_backbones = pocketzoo.hookimpl(lambda: specs)
    return Registry(create_manager(points=[], extra=[plugin]))


def samples(backbone: str) -> Dataset:
    generator = np.random.default_rng(0)
    if backbone == "words":
        x = generator.integers(1, WORDS, (40, 12))
        x[::2, 7:] = 0
    else:
        x = generator.normal(size=(40, 1, 28, 28)).astype(np.float32)
    return Dataset("d", (), {name: Split(x) for name in ("train", "val", "test")})


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("backbone", "head", "options"),
    [
        ("words", "linear", {"pool": "max"}), ("pixels", "mlp", {"pool": "flatten", "hidden": "24,8"}),
        ("words", "pooled-classifier", {}), ("words", "token-classifier", {}), ("words", "language-model", {}),
        ("words", "embedding", {"pool": "last"}), ("pixels", "regression", {}),
        ("pixels", "q-values", {"dueling": "yes", "hidden": "24"}),
    ],
)  # fmt: skip
def test_a_head_goes_through_the_zoo(zoo, backbone, head, options, tmp_path):
    spec, base = zoo.get("head", head), zoo.get("backbone", backbone)
    task = head_task(spec, base.input, zoo)
    labels = ("a", "b", "c", "d") if task.name.endswith("classification") else ()
    ref = ModelRef(backbone=backbone, head=head, outputs=4, head_options=plain_options(spec, options))
    torch.manual_seed(0)
    model = build(ref, zoo)
    with writing(tmp_path / "m") as draft:
        save_model(draft, model, ref, name="m", labels=labels, license="MIT", provenance={},
                   answers=answer_facts(spec, base.input, zoo), input_spec=base.input, registry=zoo)  # fmt: skip
    bundle = pocketzoo.open_model(tmp_path / "m", registry=zoo)
    assert bundle.manifest.task == task.name
    x = example(base.input, 3)
    with torch.no_grad():
        assert torch.equal(load_module(bundle, zoo)(x), model(x))
    steps = [LowRankConfig(energy=1.0), Int8Config()]
    smaller = compress(bundle.path, tmp_path / "s", data=samples(backbone), steps=steps, samples=16,
                       keep_slower=True, registry=zoo)  # fmt: skip
    first, float_again, int8 = smaller.manifest.measurements
    few = task.name == "feature-extraction"  # to count neighbors among
    assert (first.agreement, float_again.agreement) == ((None, None) if few else (1.0, 1.0))
    # Untrained numbers hardly differ from sample to sample, and agreement of numbers is held to that difference.
    assert few or (int8.sqnr >= 20 if task.name == "regression" else int8.agreement >= 0.5)
    assert int8.sqnr > 10
    rows = pocketzoo.bench([bundle.path, smaller.path], batch_sizes=(1,), seconds=0, registry=zoo)
    assert all(row.agreement is None if few else 0 <= row.agreement <= 1 for row in rows)
