"""Contact sheet: images of a data set with their labels, and augmented copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketzoo.core.arrays import Array
from pocketzoo.core.errors import DataError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.names import check_suffix
from pocketzoo.core.optional import require
from pocketzoo.train.augment.mixed_targets import Wanted
from pocketzoo.train.augment.transforms import to_pixels
from pocketzoo.train.augmenter import augmenter
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.zoo.bundles.work_folder import check_outside
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.models.resolver import Resolver

SIDE, GAP, LINE = 128, 10, 17  # pixels: of an image, between two, of a line of text
ACROSS = 8  # images a row, at most
TIMES = 3  # how often each is shown augmented
INK, PALE, PAPER = "#1f2328", "#6e7781", "#ffffff"


def preview(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    backbone: str = "",
    samples: int = ACROSS,
    seed: int = 0,
    training: TrainConfig | Mapping[str, Any] | None = None,
    registry: Registry | Resolver | None = None,
) -> tuple[int, int]:
    """Draw ``samples`` images of the train split, all classes in turn; returns the sheet's width and height in pixels.

    Below each are three copies as ``augment`` and ``mix`` of ``training`` change it. With a ``backbone`` the images are
    preprocessed as it needs them.

    Raises:
        DataError: the data are not images.
        ExportError: ``out`` is called as if it were another kind of file, or is inside a bundle.
        RecipeError: a setting cannot be what it is.
        UnknownNameError: no such data set or backbone.
        MissingDependencyError: Pillow, or for ``augment`` kornia, is not installed.
    """
    check_suffix(Path(out), [".png", ".jpg", ".jpeg"], "a PNG or JPEG image")
    check_outside(Path(out))
    config = with_settings(training, seed=seed)
    resolver = Resolver.of(registry)
    reads: Any = InputSpec(shape=("batch", 3, SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, resize=SIDE)
    if backbone:
        reads = resolver.spec("backbone", backbone).input
    dataset = load_data(data, seed=seed, reads=reads, registry=resolver.registry)
    processor = open_config(reads, registry=resolver.registry)
    if (spec := processor.image) is None:
        raise DataError(
            "a contact sheet shows images, and this backbone does not read images", "leave out the backbone"
        )
    split = dataset.split("train")
    rows = _in_turn(split, samples)
    change = augmenter(config, processor, World())
    torch.manual_seed(seed)
    bands = []
    for start in range(0, len(rows), ACROSS):
        x, y = next(iter(Batches(split, processor).of([rows[start : start + ACROSS]])))
        images = torch.from_numpy(x[spec.name])
        targets = torch.from_numpy(y) if y is not None else torch.zeros(len(images))
        batch = {name: torch.from_numpy(array) for name, array in x.items()}
        changed = [change(batch, targets, len(targets)) for _ in range(TIMES)] if change else []
        copies = [(inputs[spec.name], mixture) for inputs, mixture in changed]
        names = dataset.labels if y is not None and not dataset.numeric else ()
        bands.append([_row(row, mixed, spec, names) for row, mixed in [(images, [(1.0, targets)]), *copies]])
    sheet = _draw(bands)
    with replacing_file(Path(out)) as temporary:
        sheet.save(temporary, format="JPEG" if Path(out).suffix.lower() in (".jpg", ".jpeg") else "PNG")
    size: tuple[int, int] = sheet.size
    return size


def _in_turn(split: Split, count: int) -> list[int]:
    """The first rows of each class, class after class."""
    if split.targets is None or split.targets.ndim > 1:
        return list(range(min(count, len(split))))
    members = defaultdict(list)
    for row, label in enumerate(split.targets.tolist()):
        members[label].append(row)
    columns = zip_longest(*(members[label] for label in sorted(members)))
    return [row for row in chain.from_iterable(columns) if row is not None][:count]


Cell = tuple[Array, list[str]]  # pixels (H, W, C) from 0 to 1, and what they are, a line each


def _row(x: Tensor, mixed: Wanted, spec: InputSpec, names: Sequence[str]) -> list[Cell]:
    cells = []
    for i, pixels in enumerate(to_pixels(x, spec).clamp(0, 1).permute(0, 2, 3, 1).numpy()):
        shares: dict[str, float] = defaultdict(float)
        for share, y in mixed if names else ():
            shares[names[int(y[i])]] += share
        alone = len(shares) == 1
        words = [name if alone else f"{100 * share:.0f}% {name}" for name, share in shares.items() if share >= 0.005]
        cells.append((pixels, words))
    return cells


def _draw(bands: list[list[list[Cell]]]) -> Any:
    image, draw_on, font_of = (require(f"PIL.{name}", extra="data") for name in ("Image", "ImageDraw", "ImageFont"))
    font = font_of.load_default(13)
    pixels = bands[0][0][0][0]
    high, wide = pixels.shape[:2]
    times = SIDE / max(high, wide)
    cell = (max(round(wide * times), 1), max(round(high * times), 1))
    side = max(int(font.getlength(word)) for word in ("as it is", "augmented")) + GAP if len(bands[0]) > 1 else 0
    across = max(len(row) for band in bands for row in band)
    lines = max(len(words) for band in bands for row in band for _, words in row)
    step = cell[1] + lines * LINE + GAP
    band_height = len(bands[0]) * step + GAP
    width = GAP + side + across * (cell[0] + GAP)
    sheet = image.new("RGB", (width, GAP + len(bands) * band_height - GAP), PAPER)
    pen = draw_on.Draw(sheet)
    for number, band in enumerate(bands):
        for place, row in enumerate(band):
            top = GAP + number * band_height + place * step
            if side:
                says = "augmented" if place else "as it is"
                pen.text((GAP, top + cell[1] // 2), says, fill=PALE, font=font, anchor="lm")
            for column, (values, words) in enumerate(row):
                left = GAP + side + column * (cell[0] + GAP)
                shown = image.fromarray(np.round(values.squeeze() * 255).astype(np.uint8)).convert("RGB")
                smooth = image.Resampling.LANCZOS if times < 1 else image.Resampling.NEAREST
                sheet.paste(shown.resize(cell, smooth), (left, top))
                for i, word in enumerate(words):
                    below = top + cell[1] + 3 + i * LINE
                    pen.text((left, below), _fitting(word, cell[0], font), fill=PALE if place else INK, font=font)
    return sheet


def _fitting(word: str, width: int, font: Any) -> str:
    """A text, its end left out where it is too long."""
    if font.getlength(word) <= width:
        return word
    while word and font.getlength(f"{word}...") > width:
        word = word[:-1]
    return f"{word.rstrip()}..."
