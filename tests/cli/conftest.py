"""Small data sets as files, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pocketzoo.zoo.bundles.bundle import Bundle


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight digits of each class as ``few.npz``."""
    from pocketzoo.zoo.data.load_data import load_data

    split = load_data("digits").split("train")
    rows = np.concatenate([np.flatnonzero(split.targets == c)[:8] for c in range(10)])
    path = tmp_path_factory.mktemp("few") / "few.npz"
    np.savez(path, x=split.samples[rows], y=split.targets[rows])
    return path


@pytest.fixture(scope="session")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One digit as a PNG file."""
    from PIL import Image

    from pocketzoo.zoo.data.load_data import load_data

    path = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(load_data("digits").split("test").samples[0]).save(path)
    return path


@pytest.fixture(scope="session")
def perceptron(once: Callable[..., Path]) -> Bundle:
    """mlp on digits, made once for all workers: the command line knows it, and compresses it in a second. Read only."""
    import pocketzoo
    from pocketzoo.zoo.bundles.bundle import read_bundle

    def make(path: Path) -> None:
        options = {"input": (1, 16, 16), "hidden": (48, 32)}
        pocketzoo.fit("mlp", path, data="digits", epochs=8, backbone_options=options)

    return read_bundle(once("perceptron", make))


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shell() -> Shell:
    """``python -m pocketzoo ...`` in a process of its own; ``path`` goes to the front of its import path."""

    def call(*arguments: object, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        if path is not None:
            env["PYTHONPATH"] = str(path)
        command = [sys.executable, "-m", "pocketzoo", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    return call
