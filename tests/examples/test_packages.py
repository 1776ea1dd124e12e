"""Every package of examples/: in use without a reason, installed by pip, and conforming."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
NEEDS = {"openvino": "openvino", "efficientnet-lite": "efficientnet_lite_pytorch"}  # a library of its own


def project(package: Path) -> dict:
    return tomllib.loads((package / "pyproject.toml").read_text("utf8"))["project"]


def entry_point(package: Path) -> tuple[str, str]:
    """The name of the plugin, and its module."""
    ((name, module),) = project(package)["entry-points"]["pocketzoo"].items()
    return name, module


def test_all_are_packages():
    folders = {path for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(PACKAGES)
    assert len(folders) > 5


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_it_declares_is_in_use(package, monkeypatch):
    name, module = entry_point(package)
    monkeypatch.syspath_prepend(package)
    registry = Registry(create_manager(points=[], extra=[import_module(module)]))
    assert registry.plugins()[-1].reason == ""
    assert [entry for entry in registry.find() if entry.plugin == module]
    assert project(package)["name"].startswith("pocketzoo-")
    assert name == package.name


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_it_passes_the_conformance_suite(package, tmp_path):
    """As pip installs it, in a folder of its own: in the environment of all tests each would be seen by the others."""
    name, _ = entry_point(package)
    if find_spec(NEEDS.get(name, "pocketzoo")) is None:
        pytest.skip(f"{NEEDS[name]} is not installed: make test installs it")
    site, source = tmp_path / "site", tmp_path / "source"
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))  # pip builds in place
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*pip, "--target", site, source], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    path = os.pathsep.join(map(str, (site, ROOT)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "POCKETZOO_PLUGINS"))}
    # Pruning and factorizing EfficientNet take minutes; tests/examples does that once, to look at what comes out.
    quick = "not lite0-prune and not lite0-low-rank and not lite1-"
    command = [sys.executable, "-m", "pytest", "-p", "pocketzoo.testing.options", "--pyargs", "pocketzoo.testing"]
    done = subprocess.run(
        [*command, "--plugin", name, "-q", "-p", "no:cacheprovider", "-k", quick],
        cwd=tmp_path, env={**kept, "PYTHONPATH": path, "POCKETZOO_PLUGINS": name}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
