"""Ctrl-C in every command that takes time, at seeded moments: one line, exit 130, and nothing torn or left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = 2  # of each command
# One process imports everything, and each command runs in a fork of it, with Ctrl-C before a file that it opens, a
# module that it imports or the like: by number, so that no moment depends on the machine's speed.
SCRIPT = """
import json, random, sys
from pathlib import Path
sys.path[:0] = [{tools!r}]
import campaign_chaos, campaign_words
chaos = campaign_chaos.Chaos(0, Path(sys.argv[1]))
chaos.prepare()
for words in campaign_words.MEANT:
    for moment in range({moments}):
        chance = random.Random(f"{{words}} {{moment}}")
        trial = campaign_chaos.Trial(list(words), before=int(2 ** chance.uniform(0, 9)), interrupt=200)
        place = chaos.copy()
        ended = campaign_chaos.wait(campaign_chaos.start(trial, place), trial, place)
        found = campaign_chaos.faults(ended, trial) + campaign_words.left(place, False)
        print(json.dumps([" ".join(words), trial.before, ended.code, ended.err[-2000:], found]), flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_one_line_and_nothing_is_torn(tmp_path):
    script = SCRIPT.format(tools=str(ROOT / "tools"), moments=MOMENTS)
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [trial for trial in trials if trial[-1] or trial[2] not in (0, 1, 130)]
    assert not wrong, wrong
    interrupted = {words for words, _, code, _, _ in trials if code == 130}
    assert len(interrupted) > len({trial[0] for trial in trials}) / 2, trials
