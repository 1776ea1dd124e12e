"""Pictures that the tests of deploying share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first ten digits of the test split as PNG files of 8 x 8 pixels."""
    from PIL import Image

    from pocketzoo.zoo.sources import load_data

    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for i, pixels in enumerate(load_data("digits").split("test").samples[:10]):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def language_bundles(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Path]:
    """Tiny language models by family as bundles, with graphs that write, made once for all workers. Read only."""
    import shutil

    from filelock import FileLock
    from languages import FAMILIES, languages

    from pocketzoo.zoo.parts import with_parts
    from pocketzoo.zoo.pretrained import open_model

    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "languages"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            folder = tmp_path_factory.mktemp("hub")
            with languages(folder) as small:
                for family in FAMILIES:
                    bundle = with_parts(open_model(f"hf://acme/{family}", registry=small.registry), small.registry)
                    shutil.copytree(bundle.path, folder / "made" / family)
            (folder / "made").rename(place)
    return {family: place / family for family in FAMILIES}
