"""pocketzoo as its users have it: built and installed to a folder, without this tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    base = tmp_path_factory.mktemp("installed")
    source = base / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pocketzoo", source / "pocketzoo", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", base / "site", source], check=True)
    return base / "site"


@pytest.fixture
def python(site, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        env |= {"PYTHONPATH": str(site), "POCKETZOO_PLUGINS": ""}
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.slow
def test_the_suite_runs_in_one_line_from_any_folder(python, site):
    assert python("-c", "import pocketzoo; print(pocketzoo.__file__)").stdout.startswith(str(site))
    done = python("-m", "pytest", "--pyargs", "pocketzoo.testing", "--plugin", "targets", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split(" passed")[0].rsplit(maxsplit=1)[-1]) > 20
    assert "--plugin=NAME" in python("-m", "pytest", "--help").stdout


@pytest.mark.slow
def test_a_new_plugin_is_written(python, tmp_path):
    done = python("-m", "pocketzoo", "new-plugin", "my-backbone")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "my-backbone" / "my_backbone" / "module.py").is_file()
