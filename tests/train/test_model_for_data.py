"""Which model is made for which data: refused as a whole, fitted exactly. What is trained: test_fit.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scoring import REGISTRY
from told import Told
from torch import nn

from pocketzoo.core.errors import DataError, HeadMismatchError, RecipeError, UnknownNameError
from pocketzoo.core.progress import SILENT
from pocketzoo.train.model_for_data import (
    _check_splits,
    _checked_training,
    _for_rows,
    _for_untrained,
    _own_if_trained,
    _rows,
    _standardize,
    asked_for,
    task_of,
)
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.catalog.specs import GenerationSpec, HeadSpec
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.processors.table_processor import TableProcessor
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.open_task import task_of_head


@pytest.fixture(scope="module")
def resolver(registry) -> Resolver:
    return Resolver(registry)


def asked(resolver, backbone="tinynet", head="linear", head_options=None, backbone_options=None, cut="", size=None):
    return asked_for(backbone, head, head_options, backbone_options, cut, size, resolver)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)


# -- what is asked for


def test_what_was_asked_for_is_in_the_reference(resolver):
    plain = asked(resolver)
    assert plain.ref == ModelRef(backbone="tinynet", head="linear", outputs=2)
    assert plain.entry.name == plain.parts.backbone.name == "tinynet"
    more = asked(resolver, head="mlp", head_options={"hidden": "8"}, cut="stage1", size=20)
    assert (more.ref.head, more.ref.cut, more.ref.input_size) == ("mlp", "stage1", (20, 20))
    assert more.ref.head_options == {"hidden": "8"}
    assert asked(resolver, size=(20, 36)).ref.input_size == (20, 36)
    assert asked(resolver, size=[20, 36]).ref.input_size == (20, 36)
    rows = asked(resolver, "mlp", backbone_options={"input": "3", "hidden": "4"})
    assert rows.ref.backbone_options["input"] == [3]
    assert rows.ref.backbone_options["hidden"] == [4]


@pytest.mark.parametrize("size", [0, -1, (0, 8), (8, 0), (8,), (8, 8, 8)], ids=str)
def test_sizes_that_are_none_are_refused(resolver, refused, size):
    with refused(RecipeError, f"input_size cannot be {size!r}", hint="give height and width in pixels"):
        asked(resolver, size=size)


def test_a_path_is_no_backbone_but_a_name_that_is_a_path_too_is_one(resolver, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tinynet", "model"):
        (tmp_path / name).mkdir()
    assert asked(resolver).entry.name == "tinynet"
    with refused(
        UnknownNameError, "'model' is a bundle; fit takes a backbone", hint="see: pocketzoo list --kind backbone"
    ):
        asked(resolver, "model")
    with refused(UnknownNameError, "no backbone is called 'modle'"):
        asked(resolver, "modle")


WRITES = HeadSpec(name="writes", summary="s", takes=("sequence",), task="text-generation", build=nn.Identity)
LOGITS = HeadSpec(name="logits", summary="s", takes=("map",), task="*-classification", build=nn.Identity)


@dataclass(frozen=True)
class Named:
    name: str
    spec: HeadSpec


class Heads:
    """A resolver of two heads."""

    registry = REGISTRY

    def spec(self, kind: str, name: str) -> HeadSpec:
        assert kind == "head"
        return {"own": replace(WRITES, name="own at a commit"), "other": LOGITS}[name]


@pytest.mark.parametrize(
    ("head", "backbones", "wanted"),
    [
        (WRITES, "own", "own at a commit"),
        (WRITES, "other", "writes"),  # the backbone was trained with a head for something else
        (WRITES, "", "writes"),
        (replace(WRITES, backbone="x"), "own", "writes"),  # asked for by name
        (LOGITS, "own", "logits"),
    ],
)
def test_any_head_that_writes_is_the_backbones_own(resolver, head, backbones, wanted):
    entry = Named(head.name, head)
    backbone = replace(resolver.spec("backbone", "tinynet"), head=backbones)
    assert _own_if_trained(entry, backbone, Heads()) == wanted


# -- heads that cannot be fitted


def check(resolver, *, head=None, backbone=None, name="h", options=None, **settings) -> None:
    parts = asked(resolver).parts
    parts = replace(parts, head=head or parts.head, backbone=backbone or parts.backbone)
    ref = ModelRef(backbone="tinynet", head=name, outputs=2, head_options=options or {})
    opened = task_of_head(parts.head, parts.backbone.input, (), resolver.registry)
    _checked_training(parts, ref, opened, TrainConfig(**settings), resolver)


BUILT = replace(LOGITS, build=lambda features, outputs: nn.Identity())


@pytest.mark.parametrize(
    ("head", "settings", "kind", "text", "hint"),
    [
        (replace(BUILT, task="reinforcement-learning"), {}, HeadMismatchError,
         "head 'h' is for reinforcement-learning, which fit cannot train",
         "heads that fit can train: linear, mlp, multi-label, regression"),
        (replace(BUILT, task="text-generation"), {}, HeadMismatchError,
         "tinynet attends in both directions, so it would see the token it has to predict",
         "use a language model, such as GPT-2 or Llama; heads that fit: linear, mlp, multi-label, regression"),
        (replace(BUILT, weights=object()), {}, HeadMismatchError, "head 'h' is already trained for its own classes",
         "fit a new one: --head linear or mlp"),
        (replace(BUILT, task="regression"), {"balanced": True}, RecipeError,
         "balanced means nothing for regression", "leave it out for head 'h'"),
        (replace(BUILT, task="regression"), {"label_smoothing": 0.1}, RecipeError,
         "label_smoothing means nothing for regression", "leave it out for head 'h'"),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_fitted_is_refused(resolver, refused, head, settings, kind, text, hint):
    with refused(kind) as caught:
        check(resolver, head=head, **settings)
    assert (caught.value.message, caught.value.hint) == (text, hint)


def test_a_head_that_writes_goes_with_what_reads_on_and_not_with_classes(resolver, refused):
    writer = replace(resolver.spec("backbone", "tinynet"), generation=GenerationSpec(end=(1,)))
    head = replace(BUILT, task="text-generation")
    check(resolver, head=head, backbone=writer)
    check(resolver, head=replace(head, weights=object()), backbone=writer)
    check(resolver, head=head, backbone=writer, label_smoothing=0.1)
    with refused(RecipeError) as caught:
        check(resolver, head=head, backbone=writer, balanced=True)
    assert (caught.value.message, caught.value.hint) == (
        "balanced means nothing for text-generation",
        "leave it out for head 'h'",
    )


@pytest.mark.parametrize("settings", [{"balanced": True}, {"label_smoothing": 0.1}])
def test_classes_can_be_balanced_and_smoothed(resolver, settings):
    check(resolver, head=BUILT, **settings)


def test_options_are_looked_at_before_the_data(resolver, refused):
    with refused(RecipeError, "takes no options, but 'pool' was given"):
        check(resolver, head=BUILT, options={"pool": "max"})


# -- outputs and splits


def dataset(labels=("a", "b"), targets=None, samples=None) -> Dataset:
    samples = pixels(5) if samples is None else samples
    return Dataset("set", labels, {name: Split(samples, targets) for name in SPLITS})


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("what", ["empty", "bare"])
def test_every_split_has_samples_and_targets(refused, name, what):
    full = Split(pixels(1), np.zeros(1, np.int64))
    odd = Split(pixels(0), np.zeros(0, np.int64)) if what == "empty" else Split(pixels(1))
    data = Dataset("set", ("a", "b"), {n: odd if n == name else full for n in SPLITS})
    with refused(DataError) as caught:
        _check_splits(data)
    assert (caught.value.message, caught.value.hint) == {
        "empty": (f"the {name} split of set is empty", "give each class at least five samples"),
        "bare": (f"the {name} split of set has no targets", "give some for each split"),
    }[what]
    _check_splits(replace(data, splits=dict.fromkeys(SPLITS, full)))


# -- rows of numbers


@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        (np.zeros((5, 3), np.float32), True),
        (np.zeros((5, 3), np.float64), False),
        (np.zeros((5, 3), np.int64), False),
        (np.zeros((5, 3, 3), np.float32), False),
        (["a text"] * 5, False),
    ],
    ids=["float32", "float64", "int64", "images", "texts"],
)
def test_rows_of_numbers_are_float32_of_two_axes(samples, rows):
    assert (_rows(dataset(samples=samples)) is samples) is rows
    assert rows or _rows(dataset(samples=samples)) is None


def test_a_backbone_for_rows_becomes_as_wide_as_they_are_unless_told_otherwise(resolver):
    plain = asked(resolver, "mlp")
    fitted = _for_rows(plain.ref, 7, plain.entry.spec)
    assert dict(fitted.backbone_options) == {**plain.ref.backbone_options, "input": (7,)}
    given = asked(resolver, "mlp", backbone_options={"input": "5"})
    assert _for_rows(given.ref, 7, given.entry.spec) is given.ref
    images = asked(resolver)
    assert _for_rows(images.ref, 7, images.entry.spec) is images.ref


@pytest.mark.parametrize("name", ["standardize", "standardise"])
def test_layers_are_told_what_the_columns_are_like(name):
    told = []

    class Layer(nn.Module):
        pass

    setattr(Layer, name, lambda self, offset, scale: told.append((offset.tolist(), scale.tolist())))
    net = nn.Sequential(nn.Linear(2, 2), Layer(), Layer())
    rows = np.array([[0.0, 5.0], [4.0, 5.0]], np.float32)
    _standardize(net, rows, TableProcessor(TableSpec(width=2)))
    assert told == [([2.0, 5.0], [2.0, 1.0])] * 2
    _standardize(net, None, TableProcessor(TableSpec(width=2)))
    assert len(told) == 2
    # What the processor does already is not done again.
    _standardize(net, rows, TableProcessor(TableSpec(width=2, mean=(2.0, 5.0), std=(2.0, 1.0))))
    assert told[2:] == [([0.0, 0.0], [1.0, 1.0])] * 2


# -- what was not pretrained


@pytest.mark.parametrize(
    ("backbone", "settings", "all_of_it"),
    [
        ("mlp", {}, True),
        ("mlp", {"unfreeze": "last:1"}, False),
        ("mlp", {"lora_rank": 2}, False),
        ("tinynet", {}, False),
    ],
)
def test_all_of_a_backbone_learns_that_was_not_pretrained(resolver, backbone, settings, all_of_it):
    told, config = Told(), TrainConfig(**settings)
    found = _for_untrained(config, asked(resolver, backbone).parts, told)
    assert found == (replace(config, unfreeze="all", backbone_rate=1.0) if all_of_it else config)
    assert told.said == (["mlp is not pretrained: all of it is trained"] if all_of_it else [])


# -- the task


def test_the_task_is_for_the_data(resolver):
    x = np.random.default_rng(0).normal(2.0, 3.0, (30, 4)).astype(np.float32)
    data = from_arrays("rows", ("a", "b", "c"), x, np.arange(30) % 3)
    made = [task_of(asked(resolver, "mlp"), data, TrainConfig(seed=seed), resolver, None, SILENT) for seed in (1, 1, 2)]
    task = made[0]
    assert task.ref.outputs == 3
    assert task.ref.backbone_options["input"] == (4,)
    assert task.read is task.dataset is data
    assert (task.config.unfreeze, task.config.seed) == ("all", 1)
    assert task.parts.processor.inputs[0].sample_shape == (4,)
    with torch.no_grad():
        assert task.model(torch.from_numpy(x)).shape == (30, 3)
    one, same, other = (torch.cat([p.flatten() for p in t.model.parameters()]) for t in made)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_pretrained_weights_are_read(resolver, few):
    task = task_of(asked(resolver), few, TrainConfig(), resolver, None, SILENT)
    from pocketzoo.zoo.hub.weights import read_weights

    wanted = read_weights(resolver.spec("backbone", "tinynet").weights)
    state = task.model.backbone.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert dict(task.ref.head_options) == {"pool": "grid", "grid": 2}
    with pytest.raises(DataError, match="head 'linear' needs training data") as caught:
        task_of(asked(resolver), None, TrainConfig(), resolver, None, SILENT)
    assert caught.value.hint == "give it by --data"
