"""A compressed bundle and pictures that the tests of deploying share."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.zoo.bundle import Bundle, read_bundle


@pytest.fixture(scope="session")
def compressed(fitted: Bundle, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Bundle:
    """``fitted`` pruned, factorised and quantised for two targets, made once for all workers. Read only."""
    from pocketzoo.compress.pipeline import compress

    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "digits-int8"
    steps = [PruneConfig(ratio=0.3), LowRankConfig(energy=0.99), Int8Config()]
    with FileLock(f"{path}.lock"):
        if not path.exists():
            compress(fitted.path, path, data="digits", steps=steps, targets=("cpu", "tensorrt-rtx"), samples=48)
    return read_bundle(path)


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first ten digits of the test split as PNG files of 8 x 8 pixels."""
    from PIL import Image

    from pocketzoo.zoo.data import load_data

    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for i, pixels in enumerate(load_data("digits").split("test").samples[:10]):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths
