"""When a batch is augmented at all, for what model, and what is said where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.augmenter import augmenter
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.catalog.processor_configs import MappingSpec, TableSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

TEXT = TextSpec(vocabulary=9, pad=0, max_length=4)


def image(channels: int = 3, mean: tuple[float, ...] | None = None) -> InputSpec:
    mean = (0.5,) * channels if mean is None else mean
    return InputSpec(shape=("batch", channels, 4, 4), mean=mean, std=(0.5,) * len(mean), resize=4)


ROWS = InputSpec(shape=("batch", 5), mean=(), std=(), resize=0, layout="N")
NO_IMAGES = (
    "augment and cutmix need images, and this model does not read images",
    "mix=mixup:0.2 works for any input",
)
NO_COLORS = (
    "augment changes colors, and the color range of this model's input is not known",
    "leave out color and hue",
)
NO_TEXT = ("augment and mix need images, and this model reads text", "leave them out")


@pytest.mark.parametrize(
    ("settings", "spec", "words"),
    [
        ({"augment": "flip"}, TEXT, NO_TEXT),
        ({"mix": "mixup:1"}, TEXT, NO_TEXT),
        ({"augment": "flip"}, ROWS, NO_IMAGES),
        ({"mix": "cutmix:1"}, ROWS, NO_IMAGES),
        ({"augment": "color:0.1"}, image(2), NO_COLORS),
        ({"augment": "hue:0.1"}, image(4), NO_COLORS),
        ({"augment": "color:0.1"}, image(3, ()), NO_COLORS),
    ],
)
def test_what_cannot_be_augmented_is_refused(settings, spec, words, refused):
    with refused(RecipeError) as caught:
        augmenter(TrainConfig(**settings), spec, World())
    assert (caught.value.message, caught.value.hint) == words


@pytest.mark.parametrize("spec", [TEXT, ROWS, image()], ids=["text", "rows", "image"])
@pytest.mark.parametrize("augment", ["", "rotate:0", "fill:black"])
def test_what_changes_nothing_is_none(spec, augment):
    assert augmenter(TrainConfig(augment=augment), spec, World()) is None


@pytest.mark.parametrize("spec", [ROWS, image(2)], ids=["rows", "image"])
def test_mixup_is_for_any_numbers(spec):
    change = augmenter(TrainConfig(mix="mixup:1"), spec, World())
    x, y = torch.arange(6.0)[:, None], torch.arange(6)
    torch.manual_seed(0)
    mixed, ((share, one), (rest, two)) = change({"x": x}, y, 6)
    assert share + rest == pytest.approx(1.0)
    assert torch.equal(one, y)
    assert sorted(two.tolist()) == y.tolist()
    torch.testing.assert_close(mixed["x"][:, 0], share * one + rest * two)


@pytest.mark.parametrize("channels", [1, 3])
def test_flips_are_drawn_for_the_whole_batch_and_targets_stay(channels):
    pytest.importorskip("kornia")
    x, y = torch.rand(8, channels, 4, 4), torch.arange(8)
    changes = [augmenter(TrainConfig(augment="flip"), image(channels), World(rank, 2)) for rank in (0, 1)]
    torch.manual_seed(3)
    whole, ((share, same),) = augmenter(TrainConfig(augment="flip"), image(channels), World())({"image": x}, y, 8)
    assert (share, same.tolist()) == (1.0, y.tolist())
    flipped = torch.tensor([not torch.allclose(a, b, atol=1e-5) for a, b in zip(whole["image"], x, strict=True)])
    assert 0 < int(flipped.sum()) < 8
    for rank, change in enumerate(changes):
        torch.manual_seed(3)
        part, _ = change({"image": x[rank::2]}, y[rank::2], 8)
        torch.testing.assert_close(part["image"], whole["image"][rank::2])


def several(**fields) -> MappingSpec:
    return MappingSpec(fields={"image": image(), **fields})


ROW = TableSpec(width=5, columns=("a", "b", "c", "d", "e"), name="row")


def test_the_images_of_a_sample_are_augmented_alike_and_nothing_else_is():
    pytest.importorskip("kornia")
    spec = several(depth=replace(image(1), name="depth"), row=ROW)
    image_of, depth, row = torch.rand(8, 3, 4, 4), torch.rand(8, 1, 4, 4), torch.rand(8, 5)
    torch.manual_seed(3)
    inputs = {"image": image_of, "depth": depth, "row": row}
    changed, ((share, _),) = augmenter(TrainConfig(augment="flip"), spec, World())(inputs, torch.arange(8), 8)
    assert list(changed) == ["image", "depth", "row"]
    assert share == 1.0
    assert changed["row"] is row
    flipped = [
        torch.tensor([torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(changed[name], x, strict=True)])
        for name, x in (("image", image_of), ("depth", depth))
    ]
    assert torch.equal(*flipped)
    assert 0 < int(flipped[0].sum()) < 8


def test_mixup_mixes_every_input_by_one_share():
    change = augmenter(TrainConfig(mix="mixup:1"), several(row=ROW), World())
    y = torch.arange(6.0)
    inputs = {"image": y.view(-1, 1, 1, 1).expand(6, 3, 4, 4), "row": y.view(-1, 1).expand(6, 5)}
    mixed, wanted = change(inputs, y, 6)
    right = sum(share * target for share, target in wanted)
    torch.testing.assert_close(mixed["row"][:, 0], right)
    torch.testing.assert_close(mixed["image"].mean((1, 2, 3)), right)


@pytest.mark.parametrize(
    ("settings", "fields", "words"),
    [
        ({"mix": "cutmix:1"}, {"row": ROW}, ("reads 'row' alongside", "mix=mixup:0.2 mixes every input")),
        ({"mix": "mixup:1"}, {"text": TEXT}, ("the input 'input_ids' has none that can be mixed", "leave it out")),
        (
            {"mix": "cutmix:1"},
            {"wide": replace(image(), name="wide", shape=("batch", 3, 4, 8))},
            ("reads images of several sizes", "mix=mixup:0.2 mixes every input"),
        ),
        ({"augment": "color:0.1"}, {"depth": replace(image(2), name="depth")}, NO_COLORS),
    ],
)
def test_what_cannot_be_augmented_of_several_inputs_is_said_by_name(settings, fields, words, refused):
    with refused(RecipeError, words[0], hint=words[1]):
        augmenter(TrainConfig(**settings), several(**fields), World())


def test_an_image_alongside_a_text_is_augmented():
    pytest.importorskip("kornia")
    change = augmenter(TrainConfig(augment="flip:1"), several(text=TEXT), World())
    x, ids = torch.rand(2, 3, 4, 4), torch.tensor([[1, 2], [3, 0]])
    changed, _ = change({"image": x, "input_ids": ids}, torch.arange(2), 2)
    torch.testing.assert_close(changed["image"], x.flip(-1), atol=1e-5, rtol=0)
    assert changed["input_ids"] is ids
