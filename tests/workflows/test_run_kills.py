"""A recipe's run that dies before any of its operations on files: the same command resumes, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Imports all once; then each run is a fork. Of the run that fits a model some deaths are tried, of the other half.
DRIVER = """
import json, os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
os.environ["OMP_NUM_THREADS"] = "1"
from campaign_forks import Disturbance, asked, forked, modules_of, preload
from campaign_scene import state, temporaries
import numpy as np

scene = Path(sys.argv[1]) / "scene"
scene.mkdir()
y = np.arange(45) % 3
x = (np.random.default_rng(0).random((45, 32, 32, 3)) * 60 + y[:, None, None, None] * 80).astype("uint8")
np.savez(scene / "tiny.npz", x=x, y=y)
ends = '[export]\\nto = ["onnx", "triton"]\\n[bench]\\nseconds = 0\\nmemory = false\\n'
(scene / "light.toml").write_text('summary = "x"\\nbackbone = "B"\\n' + ends)
(scene / "whole.toml").write_text('summary = "x"\\nbackbone = "tinynet"\\n[fit]\\nepochs = 1\\n' + ends)
os.environ.update(POCKETZOO_HOME=str(scene / "home"), HOME=str(scene))
fit = ("fit", "tinynet", "--data", "tiny.npz", "--epochs", "1", "-o", "B")
preload(asked(lambda: modules_of([fit, ("export", "B", "-o", "x.onnx")], scene)))
(scene / "x.onnx").unlink()
kills = {}
for recipe, deaths in (("light", None), ("whole", 5)):
    words = ("run", f"{recipe}.toml", "--data", "tiny.npz", "-o", "ran")
    def facts(folder):
        found = asked(lambda: state(folder))
        return {place: each["files"] if isinstance(each, dict) else each for place, each in found.items()}
    def copy():
        shutil.rmtree(scene.with_name("trial"), ignore_errors=True)
        return Path(shutil.copytree(scene, scene.with_name("trial")))
    trial = copy()
    usual = forked(words, trial)
    assert usual.status == 0, usual.text
    after, count = facts(trial), usual.operations
    numbers = range(1, count + 1, 2) if deaths is None else range(1, count + 1, count // deaths)
    for number in numbers:
        trial = copy()
        how = (recipe, number, count)
        killed = forked(words, trial, Disturbance(die_before=number))
        assert killed.status == -signal.SIGKILL, (how, killed.text)
        asked(lambda: state(trial))  # what is there is whole
        again = forked(words, trial)
        assert again.status == 0, (how, again.text)
        assert facts(trial) == after, how
        assert not temporaries(trial), (how, temporaries(trial))
        kills[recipe] = kills.get(recipe, 0) + 1
print(json.dumps(kills))
"""


@pytest.mark.slow
def test_a_run_that_died_resumes_whenever_that_was(tmp_path: Path):
    pytest.importorskip("onnxscript")
    line = [sys.executable, "-c", DRIVER, str(tmp_path), str(ROOT / "tools")]
    told = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 0, told.stderr[-3000:]
    kills = json.loads(told.stdout.splitlines()[-1])
    assert kills["light"] > 20
    assert kills["whole"] >= 5
