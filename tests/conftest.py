"""What the tests share: a home of their own, the built-in registry, a fitted model, image folders, the commands."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import HealthCheck, settings

pytest_plugins = ["deploy_fixtures", "disk_fixtures"]
sys.path.insert(0, str(Path(__file__).parent))  # importlib mode adds no folder: this is where localhub.py is found

if TYPE_CHECKING:
    from localhub import LocalHub

    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.zoo.bundles.bundle import Bundle
    from pocketzoo.zoo.catalog.registry import Registry

    Refused = Callable[..., AbstractContextManager[pytest.ExceptionInfo[PocketzooError]]]
    Once = Callable[[str, Callable[[Path], object]], Path]
    Photos = Callable[..., Path]
    Run = Callable[..., Result]

# Examples are the same in every run: a failure here is one on every machine.
# How long they take says more about the machine than about the code.
settings.register_profile(
    "pocketzoo",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pocketzoo")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core; torch's threads would fight over them


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in another order")
    parser.addoption("--update-golden", action="store_true", help="write the texts of tests/golden anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same order for a seed, as xdist wants of its workers. Files stay together: they share costly fixtures."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    chance = random.Random(seed)
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order = sorted(files)
    chance.shuffle(order)
    for path in order:
        chance.shuffle(files[path])
    items[:] = [item for path in order for item in files[path]]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text is that of tests/golden/NAME; with --update-golden it is written there."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf8", newline="\n")
        assert text == path.read_text("utf8"), f"{path.name} differs; if that is wanted: --update-golden"

    return check


@pytest.fixture(scope="session", autouse=True)
def pocketzoo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """POCKETZOO_HOME is an empty folder of this worker, for subprocesses as well."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETZOO_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def registry() -> Registry:
    """What ships with pocketzoo, and no plugin that happens to be installed."""
    from pocketzoo.zoo.catalog.plugin_manager import create_manager
    from pocketzoo.zoo.catalog.registry import Registry

    return Registry(create_manager(points=[]))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """``once(name, make)``: the path that ``make(path)`` wrote, by the first worker that asks for all of them."""
    base = tmp_path_factory.getbasetemp()

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path = (base if worker_id == "master" else base.parent) / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return path

    return made


@pytest.fixture(scope="session")
def fitted(once: Once) -> Bundle:
    """tinynet with a linear head on digits, made once for all workers. Read only: ``fitted_copy`` is for changes."""
    import pocketzoo
    from pocketzoo.zoo.bundles.bundle import read_bundle

    return read_bundle(once("digits-model", lambda path: pocketzoo.fit("tinynet", path, data="digits", epochs=12)))


@pytest.fixture(scope="session")
def compressed(fitted: Bundle, once: Once) -> Bundle:
    """``fitted`` pruned, factorized and quantized for two targets, made once for all workers. Read only."""
    from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
    from pocketzoo.compress.pipeline.compress_model import compress
    from pocketzoo.zoo.bundles.bundle import read_bundle

    def make(path: Path) -> None:
        # A busy machine must not decide what the tests find.
        steps = [PruneConfig(ratio=0.3), LowRankConfig(energy=0.99, only_faster=False), Int8Config()]
        both = ("cpu", "tensorrt-rtx")
        compress(fitted.path, path, data="digits", steps=steps, targets=both, samples=48, keep_slower=True)

    return read_bundle(once("digits-int8", make))


@pytest.fixture(scope="session")
def small_registry() -> Registry:
    """What ships, and the backbone of smallnet.py."""
    import smallnet

    from pocketzoo.zoo.catalog.plugin_manager import create_manager
    from pocketzoo.zoo.catalog.registry import Registry

    return Registry(create_manager(points=[], extra=[smallnet]))


@pytest.fixture(scope="session")
def small(small_registry: Registry, once: Once) -> Bundle:
    """smallnet on digits, made once for all workers; it needs ``small_registry``. Read only.

    For tests of what is done with a model, whichever it is: all of it takes a fifth of what it takes for tinynet.
    """
    import pocketzoo
    from pocketzoo.zoo.bundles.bundle import read_bundle

    def make(path: Path) -> None:
        pocketzoo.fit("smallnet", path, data="digits", epochs=12, registry=small_registry)

    return read_bundle(once("small-model", make))


@pytest.fixture
def small_copy(small: Bundle, tmp_path: Path) -> Bundle:
    """A copy of ``small`` that a test may damage."""
    path = tmp_path / "copy"
    shutil.copytree(small.path, path)
    return replace(small, path=path)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressing times graphs as briefly as can be: for tests that look at no times, nor at what they decide."""
    monkeypatch.setattr("pocketzoo.compress.pipeline.graph_scores.SECONDS", 0.0)
    monkeypatch.setattr("pocketzoo.compress.pipeline.compress_model.SECONDS", 0.0)
    monkeypatch.setattr("pocketzoo.zoo.backends.timing.WARM_UP_SECONDS", 0.0)


@pytest.fixture
def fitted_copy(fitted: Bundle, tmp_path: Path) -> Bundle:
    """A copy of ``fitted`` that a test may damage."""
    path = tmp_path / "copy"
    shutil.copytree(fitted.path, path)
    return replace(fitted, path=path)


@pytest.fixture(scope="session")
def photos() -> Photos:
    """Make a folder of images: ``photos(path, {"cat": 5, "dog": 5})`` has five in each of two class folders.

    An empty class name ("") puts them into ``path`` itself. The images of a class share a brightness, plus noise.
    """
    import numpy as np
    from PIL import Image

    def make(
        path: Path,
        classes: Mapping[str, int],
        *,
        size: tuple[int, int] = (20, 16),
        mode: str = "RGB",
        suffix: str = "png",
    ) -> Path:
        generator = np.random.default_rng(0)
        for number, (name, count) in enumerate(classes.items()):
            folder = path / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = generator.integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
                pixels = noise + np.uint8(60 * (number % 4))
                Image.fromarray(pixels).convert(mode).save(folder / f"{i:03}.{suffix}")
        return path

    return make


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once Pillow has started Ghostscript, which is one of our own."""
    from PIL import EpsImagePlugin

    started, folder = tmp_path / "gs-was-run", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f'#!/bin/sh\necho "$@" >> "{started}"\n')
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    return started


@pytest.fixture
def run() -> Run:
    """Run the command line in this process; stdout and stderr of the result are apart. A bug raises."""
    from pocketzoo.cli.main import cli

    def call(*arguments: object, **kwargs: Any) -> Result:
        kwargs.setdefault("catch_exceptions", False)
        return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="pocketzoo", **kwargs)

    return call


@pytest.fixture(scope="session")
def refused() -> Refused:
    """``with refused(DataError, "no images", hint="PNG"):`` checks an error's type, message and next step."""

    @contextmanager
    def check(
        kind: type[PocketzooError], *parts: object, hint: str | None = None
    ) -> Iterator[pytest.ExceptionInfo[PocketzooError]]:
        with pytest.raises(kind) as caught:
            yield caught
        error = caught.value
        assert type(error) is kind
        for part in parts:
            assert str(part) in error.message, (part, error.message)
        assert str(error) == f"{error.message}\n{error.hint}"
        assert "\n" not in error.hint
        if hint is not None:
            assert hint in error.hint, (hint, error.hint)
        assert error.hint, "an error without a next step"

    return check


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub on this machine that the real client can talk to; it reads HF_ENDPOINT on import, so in a subprocess."""
    from localhub import LocalHub

    with LocalHub(tmp_path / "hub") as running:
        yield running
