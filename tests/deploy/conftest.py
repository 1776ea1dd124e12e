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
