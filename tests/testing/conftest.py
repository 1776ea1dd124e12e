"""Packages with entry points in a folder, and the conformance suite over them in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

import pocketzoo

ROOT = Path(pocketzoo.__file__).parents[1]
OPTIONS = "pocketzoo.testing.options"


@dataclass(frozen=True)
class Outcome:
    """What became of each check: (test, spec) -> its message, empty for one that passed."""

    code: int
    output: str
    passed: frozenset[tuple[str, str]]
    failed: Mapping[tuple[str, str], str]
    skipped: Mapping[tuple[str, str], str]


Suite = Callable[..., Outcome]
Install = Callable[..., Path]


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """``install({"acme": "module"}, file, text=...)``: what pip leaves behind, in a folder of its own."""

    def make(points: Mapping[str, str], *files: Path, **texts: str) -> Path:
        site = tmp_path_factory.mktemp("site")
        for file in files:
            shutil.copy(file, site)
        for module, text in texts.items():
            (site / f"{module}.py").write_text(text)
        info = site / "acme-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        lines = [f"{name} = {module}" for name, module in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pocketzoo]", *lines, ""]))
        return site

    return make


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Run the suite as an author does, from a folder that has nothing to do with pocketzoo."""

    def run(*arguments: str, site: Path | None = None, **environment: str) -> Outcome:
        folder = tmp_path_factory.mktemp("elsewhere")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "POCKETZOO_PLUGINS"))}
        env["PYTHONPATH"] = os.pathsep.join(str(p) for p in (site, ROOT) if p)
        # -p is what the installed entry point does: without an installation of this very tree it may be missing.
        command = [sys.executable, "-m", "pytest", "-p", OPTIONS, "--pyargs", "pocketzoo.testing", "--junitxml=o.xml"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *arguments],
            cwd=folder,
            env={**env, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        if not (folder / "o.xml").exists():
            return Outcome(done.returncode, output, frozenset(), {}, {})
        return Outcome(done.returncode, output, *_read(folder / "o.xml"))

    return run


def _read(path: Path) -> tuple[frozenset[tuple[str, str]], dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    passed, failed, skipped = set(), {}, {}
    for case in ElementTree.parse(path).iter("testcase"):
        test, _, spec = case.attrib["name"].rstrip("]").partition("[")
        key = (f"{case.attrib['classname'].rsplit('.', 1)[-1]}.{test}", spec)
        child = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        if child is None:
            passed.add(key)
        else:
            (skipped if child.tag == "skipped" else failed)[key] = f"{child.attrib['message']}\n{child.text}"
    return frozenset(passed), failed, skipped
