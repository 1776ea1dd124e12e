"""Augmentation: what goes nowhere changes nothing, quarter turns and whole shifts are exact, draws follow the seed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.augment.specification import AugmentSpec, MixSpec, read_augment
from pocketzoo.train.augment.transforms import DRAWS, augmented, mixed, moved, movement
from pocketzoo.train.augmenter import augmenter
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.fit import fit
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

SPEC = InputSpec(shape=("batch", 3, 9, 9), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), resize=9)
NOTHING = {"angle": 0.0, "shear": 0.0, "zoom": 1.0}


def pixels(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def normalized(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor(SPEC.mean).view(-1, 1, 1)) / torch.tensor(SPEC.std).view(-1, 1, 1)


def draws(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, len(DRAWS), generator=torch.Generator().manual_seed(seed))


def by(x: torch.Tensor, shift: tuple[float, float] = (0.0, 0.0), fill: str = "border", **changes: float):
    full = {name: torch.full((len(x),), value) for name, value in {**NOTHING, **changes}.items()}
    return moved(x, shift=torch.tensor([shift] * len(x)), fill=fill, **full)


def test_what_goes_nowhere_changes_nothing():
    x = normalized(pixels())
    assert torch.allclose(augmented(x, read_augment("rotate:0,zoom:0"), SPEC, draws()), x, atol=1e-6)
    assert torch.allclose(by(pixels()), pixels(), atol=1e-5)
    assert augmenter(TrainConfig(augment="rotate:0"), SPEC, World()) is None


def test_a_quarter_turn_and_a_shift_by_whole_pixels_are_exact():
    x = pixels()
    assert torch.allclose(by(x, angle=90.0), x.rot90(-1, (2, 3)), atol=1e-5)  # clockwise
    shifted = by(x, (2 / 9, -1 / 9), fill="black")
    assert torch.allclose(shifted[..., :-1, 2:], x[..., 1:, :-2], atol=1e-5)
    assert shifted[..., :2].abs().max() < 1e-5
    assert shifted[..., -1, :].abs().max() < 1e-5


@pytest.mark.parametrize(
    "augment",
    ["flip:1", "rotate:40", "shift:0.1", "shear:15", "zoom:0.2", "flip,rotate:20,shift:0.05,shear:5,zoom:0.1"],
)
def test_the_movement_of_an_image_takes_its_targets_along(augment):
    """A blob is found where the matrix takes its place, on images that are not square."""
    spec = InputSpec(shape=("batch", 1, 60, 90), mean=(0.5,), std=(0.5,), resize=90)
    rows, columns = torch.meshgrid(torch.arange(60.0) + 0.5, torch.arange(90.0) + 0.5, indexing="ij")
    places = torch.tensor([[0.5, 0.5], [0.35, 0.6], [0.6, 0.4], [0.55, 0.6], [0.4, 0.35], [0.3, 0.5], [0.62, 0.58]])
    blobs = [torch.exp(-((columns - 90 * x) ** 2 + (rows - 60 * y) ** 2) / 18) for x, y in places.tolist()]
    asked, table = read_augment(augment + ",fill:black"), draws(len(places), seed=3)
    out = augmented(torch.stack(blobs)[:, None] * 2 - 1, asked, spec, table)[:, 0] / 2 + 0.5
    found = torch.stack([(out * columns).sum((1, 2)) / 90, (out * rows).sum((1, 2)) / 60], 1) / out.sum((1, 2))[:, None]
    matrix = movement(asked, spec, table)
    moved_places = (matrix @ torch.cat([places, torch.ones(len(places), 1)], 1)[..., None])[:, :2, 0]
    assert torch.allclose(moved_places, found, atol=2e-3)
    assert (moved_places - places).abs().max() > 0.01


def test_targets_go_with_their_own_image_and_stay_where_nothing_moves():
    x = normalized(pixels(8))
    places = torch.tensor([[0.25, 0.5]] * 8)

    def move(targets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return targets + matrix[:, :2, 2]  # of a mirror image: 1

    change = augmenter(TrainConfig(augment="flip"), SPEC, World(), move)
    out, ((_, targets),) = change({"image": x}, places, 8)
    flipped = (out["image"] - x).abs().amax((1, 2, 3)) > 1e-3
    assert 0 < int(flipped.sum()) < 8
    assert torch.equal(targets[:, 0] == 1.25, flipped)
    assert torch.equal(targets[:, 1], places[:, 1])


@pytest.mark.parametrize(("fill", "wanted"), [("border", [0, 0, 0, 1]), ("reflect", [2, 1, 0, 1])])
def test_from_outside_comes_what_was_asked_for(fill, wanted):
    ramp = torch.arange(9.0).expand(1, 1, 9, 9) / 10
    found = by(ramp, (2 / 9, 0.0), fill=fill)[0, 0, 4, :4] * 10
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float32), atol=1e-4)


def test_a_zoom_is_about_the_centre():
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4], x[..., 4, 6] = 1.0, 0.5
    found = by(x, zoom=2.0)
    assert found[0, 0, 4, 4] == pytest.approx(1.0, abs=1e-5)
    assert found[0, 0, 4, 8] == pytest.approx(0.5, abs=1e-5)


def test_two_mirror_images_are_the_image():
    x, always = normalized(pixels()), AugmentSpec(flip=1.0)
    once = augmented(x, always, SPEC, draws())
    assert torch.allclose(once, x.flip(-1), atol=1e-6)
    assert torch.allclose(augmented(once, always, SPEC, draws(seed=1)), x, atol=1e-6)


def test_half_of_the_images_are_flipped_each_by_its_own_draw():
    table = draws(200)
    x = normalized(pixels(200))
    flipped = (augmented(x, read_augment("flip"), SPEC, table) - x).abs().amax((1, 2, 3)) > 1e-3
    assert torch.equal(flipped, table[:, 0] < 0.5)
    assert 70 < int(flipped.sum()) < 130


def test_black_is_black_and_brightness_is_a_factor_of_pixels():
    dark = augmented(normalized(torch.ones(1, 3, 9, 9)), AugmentSpec(shift=0.9, fill="black"), SPEC, torch.ones(1, 10))
    assert torch.allclose(dark[0, :, 0, 0], -torch.tensor(SPEC.mean) / torch.tensor(SPEC.std), atol=1e-5)
    grey = torch.full((1, 3, 9, 9), 0.4)  # contrast and saturation leave one grey as it is
    brighter = augmented(normalized(grey), AugmentSpec(color=0.5), SPEC, torch.full((1, 10), 0.75))
    assert torch.allclose(brighter, normalized(grey * 1.25), atol=1e-5)
    whole = augmented(normalized(pixels()), AugmentSpec(hue=0.5), SPEC, torch.ones(6, 10))  # half of the circle
    twice = augmented(whole, AugmentSpec(hue=0.5), SPEC, torch.ones(6, 10))
    assert (whole - twice).abs().max() > 0.1
    assert torch.allclose(twice, normalized(pixels()), atol=1e-4)


def test_an_image_becomes_the_same_however_many_processes_there_are():
    config, x, y = TrainConfig(augment="flip,rotate:20,shift:0.2,color:0.3"), normalized(pixels(7)), torch.arange(7)

    def part(rank: int, size: int) -> torch.Tensor:
        torch.manual_seed(5)
        rows = slice(rank, None, size)
        return augmenter(config, SPEC, World(rank, size))({"image": x[rows]}, y[rows], 7)[0]["image"]

    whole = part(0, 1)
    for size in (2, 3):
        for rank in range(size):
            assert torch.equal(part(rank, size), whole[rank::size])


# -- mixing


class Fixed:
    """A distribution that always gives one share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def sample(self) -> torch.Tensor:
        return torch.tensor(self.share)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_share_of_one_is_the_sample_alone(kind, monkeypatch):
    monkeypatch.setattr(torch.distributions, "Beta", lambda a, b: Fixed(1.0))
    x, y = pixels(), torch.arange(6)
    found, wanted = mixed({"x": x}, y, MixSpec(kind, 1.0))
    assert torch.equal(found["x"], x)
    assert wanted[0][0] == 1.0
    assert torch.equal(wanted[0][1], y)
    assert wanted[1][0] == 0.0


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_shared_as_pixels_are(kind):
    """Images of one value each, and that value as the target: the mean of what comes out is the mixed target."""
    torch.manual_seed(0)
    y = torch.arange(6.0)
    x = y.view(-1, 1, 1, 1).expand(6, 3, 9, 9)
    shares = set()
    for _ in range(20):
        found, wanted = mixed({"x": x}, y, MixSpec(kind, 1.0))
        assert sum(share for share, _ in wanted) == pytest.approx(1.0)
        assert torch.allclose(found["x"].mean((1, 2, 3)), sum(share * target for share, target in wanted), atol=1e-4)
        shares.add(round(wanted[0][0], 3))
    assert len(shares) > 10
    assert torch.equal(x[:, 0, 0, 0], y)  # what came in is as it was


# -- in fit


def test_what_has_no_images_is_refused(refused):
    text = TextSpec(vocabulary=10, pad=0, max_length=5)
    with refused(RecipeError, "this model reads text"):
        augmenter(TrainConfig(mix="mixup:1"), text, World())
    row = InputSpec(shape=("batch", 4), mean=(), std=(), resize=0)
    with refused(RecipeError, "does not read images"):
        augmenter(TrainConfig(augment="flip"), row, World())
    assert augmenter(TrainConfig(mix="mixup:1"), row, World()) is not None
    unknown = InputSpec(shape=("batch", 3, 9, 9), mean=(), std=(), resize=9)
    with refused(RecipeError, "changes colors"):
        augmenter(TrainConfig(augment="color:0.1"), unknown, World())


class Killed(BaseException):
    """Stands for what ends a process in the middle."""


class Told:
    """Progress that remembers what it was told, and dies in an epoch."""

    def __init__(self, epoch: int = -1) -> None:
        self.said: list[str] = []
        self.epoch = epoch

    def track(self, items, label, total=None):
        for item in items:
            if label == "fitting the head" and item == self.epoch:
                raise Killed
            yield item

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_fit_augments_anew_in_each_epoch_and_goes_on_to_the_same_bits(few, registry, tmp_path, own_home):
    training = {"augment": "flip:0.2,rotate:10,shift:0.1,color:0.2", "mix": "mixup:0.2", "balanced": True}
    training |= {"label_smoothing": 0.1, "batch_size": 12, "learning_rate": 0.02}
    common = {"data": few, "epochs": 3, "training": training, "registry": registry}
    told = Told()
    whole = fit("tinynet", tmp_path / "whole", progress=told, **common)
    assert told.said.count("augmentation is random, so training features are recomputed in every epoch") == 1
    assert len(list(own_home.glob("**/values.bin"))) == 2  # of the validation and the test split
    with pytest.raises(Killed):
        fit("tinynet", tmp_path / "cut", progress=Told(2), **common)
    again = fit("tinynet", tmp_path / "cut", **common)
    plain = fit("tinynet", tmp_path / "plain", data=few, epochs=3, registry=registry)
    one, two, other = (load_file(b.file("model.safetensors")) for b in (whole, again, plain))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert not torch.equal(one["head.linear.weight"], other["head.linear.weight"])
    assert whole.manifest.metrics["test_accuracy"] > 0.6
