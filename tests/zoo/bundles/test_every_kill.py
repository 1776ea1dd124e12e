"""What writes bundles dies before each of its operations on files: what is there is whole, and nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Does one thing to x, in forks: the first dies before its first operation that changes files, the second before its
# second, until one gets through. After each death x is looked at, and the same is done again, to its end.
DRIVER = """
import json, os, shutil, signal, sys
from dataclasses import replace
from pathlib import Path
from pocketzoo.core.errors import BundleError
from pocketzoo.core.progress import SILENT
from pocketzoo.core.files import replacing_file, replacing_folder
from pocketzoo.zoo.bundles.bundle import check_graph, read_bundle, updating, writing
from pocketzoo.zoo.bundles.bundle_lock import changing
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.bundles.work_folder import unfinished
from pocketzoo.workflows.run_state import RunState
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config
from pocketzoo.zoo.bundles.model_card import model_card
import filelock

SPEC = InputSpec(shape=("batch", 1, 2, 2), mean=(0.0,), std=(1.0,), resize=2)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")

def make(path, weights, work=None):
    with writing(path, work=work) as draft:
        (draft.folder / "model.safetensors").write_bytes(weights)
        draft.manifest = Manifest(name="x", model=ModelRef(backbone="b", head="h", outputs=2), labels=("a", "b"),
                                  processor=describe_config(SPEC), license="MIT", parameters=1, macs=0)

def update(path):
    with updating(read_bundle(path)) as draft:
        draft.mark("x.engine", target="t", backend="b").write_bytes(b"engine")

def sign(path):
    with changing(path), replacing_file(path / "model.sig") as temporary:
        temporary.write_text("signature")

def finish(path, force):
    try:
        with unfinished(path, "key", SILENT, lambda folder: "a step" * (folder / "step").exists(), force=force) as work:
            (work / "step").write_text("what was learned")
            make(path, b"new", work)
    except BundleError as error:
        assert "already a finished bundle" in str(error), error

def note(out):
    state = RunState(out)
    for section in ("fit", "compress"):
        assert state.has_begun(section, "key") or not state.has_finished(section, "key")
        state.begin(section, "key")
        state.finish(section, "key")

ACTIONS = {
    "new": lambda folder: make(folder / "new", b"new"),
    "replace": lambda folder: make(folder / "x", b"new"),
    "update": lambda folder: update(folder / "x"),
    "sign": lambda folder: sign(folder / "x"),
    "finish": lambda folder: finish(folder / "new", force=False),
    "finish over another": lambda folder: finish(folder / "x", force=True),
    "run": lambda folder: note(folder / "ran"),
}

def fork(action, folder, number):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        seen = 0
        def hook(event, arguments):
            nonlocal seen
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in CHANGES:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        action(folder)
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(code)

def state(folder):
    return {b: sorted([f"{n} {e.sha256}" for n, e in read_bundle(folder / b).manifest.files.items()]
                      + ["signed"] * (folder / b / "model.sig").exists())
            for b in ("x", "new") if (folder / b).exists()}

root, name = Path(sys.argv[1]), sys.argv[2]
action, scene = ACTIONS[name], root / "scene"
scene.mkdir()
make(scene / "x", b"old")
before = state(scene)
done = root / "done"
shutil.copytree(scene, done)
assert fork(action, done, 0) == 0
after, whole = state(done), sorted(p.relative_to(done).as_posix() for p in done.rglob("*"))
kills, seen = 0, set()
while True:
    trial = root / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(scene, trial)
    status = fork(action, trial, kills + 1)
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    kills += 1
    now = state(trial)
    assert now in (before, after), (kills, now)
    seen.add(name != "run" and now == after)
    assert fork(action, trial, 0) == 0, kills
    assert state(trial) == after, kills
    left = sorted(p.relative_to(trial).as_posix() for p in trial.rglob("*"))
    assert left == whole, (kills, left)
    if name == "run":
        assert json.loads((trial / "ran/run.json").read_text()) == json.loads((done / "ran/run.json").read_text())
print(json.dumps({"kills": kills, "seen": sorted(seen)}))
"""


@pytest.mark.parametrize("name", ["new", "replace", "update", "sign", "finish", "finish over another", "run"])
def test_a_kill_before_any_operation_loses_nothing_and_leaves_nothing(name, tmp_path: Path):
    line = [sys.executable, "-c", DRIVER, str(tmp_path), name]
    told = subprocess.run(line, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert result["kills"] >= 3, "it died in the middle"
    assert False in result["seen"], "and before anything had happened"
