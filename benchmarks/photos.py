"""Photos that packages ship, and crops of them by photo: what the benchmarks calibrate and test on.

Usage: python benchmarks/photos.py. Says which there are.

Seven come with scikit-image and scikit-learn. A hundred more are in Debian's package gcompris-qt-data, animals and
monuments: 44 MB that apt-get downloads once into the cache, never committed. They are under CC-BY, CC-BY-SA, the GFDL,
the GPL or in the public domain; the file copyright, which is kept beside them, names the author of each.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from environments import cache
from filelock import FileLock
from PIL import Image
from sides import Side, side_of

SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SKLEARN = ("china.jpg", "flower.jpg")
PACKAGE = "gcompris-qt-data"
RESOURCES = ("explore_world_animals", "explore_farm_animals", "explore_monuments", "erase")  # that hold photos alone
LEAST_SIDE, LEAST_BYTES = 200, 12_000  # of a photo: other images in there are icons
LEAST = 40  # photos in all
GROUP = "?group=" + quote("pattern=^[0-9]+-(.+)[.]png$")  # after a folder of crops: each photo is a source


def shipped() -> list[Path]:
    """The photos that come with scikit-image and scikit-learn: nothing is downloaded."""
    import skimage
    import sklearn

    folder = Path(skimage.__file__).parent / "data"
    images = Path(sklearn.__file__).parent / "datasets" / "images"
    return [folder / name for name in SKIMAGE] + [images / name for name in SKLEARN]


def sources() -> list[Path]:
    """All photos, in the order of their names.

    Raises:
        SystemExit: Debian's package cannot be had.
    """
    folder = cache() / PACKAGE
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                _download(folder)
    found = sorted([*shipped(), *folder.glob("*.webp")], key=lambda path: path.name)
    if len(found) < LEAST:
        raise SystemExit(f"there are {len(found)} photos, and {LEAST} are needed; next: remove {folder}")
    return found


def photos(side: Side, limit: int | None = None) -> list[Path]:
    """The photos of one side; no photo is on two."""
    return side_of(sources(), side, limit)


def write_crops(folder: Path, count: int, seed: int, photos: Sequence[Path]) -> Path:
    """Write ``count`` square crops, each of half to all of a photo's shorter side, mirrored by chance.

    Photos come in turn, and the name of a crop ends with its photo's: see ``GROUP``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        path = photos[i % len(photos)]
        with Image.open(path) as file:
            photo = file.convert("RGB")
        side = int(generator.uniform(0.5, 1.0) * min(photo.size))
        left = int(generator.integers(0, photo.width - side + 1))
        top = int(generator.integers(0, photo.height - side + 1))
        crop = photo.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BICUBIC)
        if generator.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop.save(folder / f"{i:04}-{path.stem}.png")
    return folder


def groups(crops: Path) -> np.ndarray:
    """The photo of each crop, as a number (N,), in the order of their names."""
    names = [path.stem.partition("-")[2] for path in sorted(crops.iterdir())]
    return np.unique(names, return_inverse=True)[1]


def images_in(data: bytes) -> Iterator[bytes]:
    """The WebP files that a file of others holds, as they are: each says how long it is."""
    place = 0
    while (place := data.find(b"RIFF", place)) >= 0:
        head = data[place : place + 12]
        end = place + 8 + (struct.unpack("<I", head[4:8])[0] if len(head) == 12 else 0)
        if head[8:] == b"WEBP" and end <= len(data):
            yield data[place:end]
        place += 4


def _download(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        place = Path(name)
        commands = [["apt-get", "download", PACKAGE], ["dpkg-deb", "-x", f"{PACKAGE}.deb", "."]]
        for command in commands:
            if shutil.which(command[0]) is None:
                raise SystemExit(f"{command[0]} is not installed; next: run this on Debian or Ubuntu")
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}; next: apt-get update")
            for package in place.glob(f"{PACKAGE}_*.deb"):
                package.rename(place / f"{PACKAGE}.deb")
        made = place / "photos"
        made.mkdir()
        for resource in RESOURCES:
            data = (place / "usr/share/gcompris-qt/rcc" / f"{resource}.rcc").read_bytes()
            for image in images_in(data):
                if len(image) > LEAST_BYTES and min(Image.open(io.BytesIO(image)).size) >= LEAST_SIDE:
                    # By content, so that another order in another version divides them in the same way.
                    (made / f"{resource}_{hashlib.sha256(image).hexdigest()[:12]}.webp").write_bytes(image)
        shutil.copy(place / f"usr/share/doc/{PACKAGE}/copyright", made)
        os.replace(made, folder)


if __name__ == "__main__":
    for each in ("calibration", "test", "third"):
        print(f"{len(photos(each))} photos: {each}")  # type: ignore[arg-type]
