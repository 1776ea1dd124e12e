"""Kill commands that write, at seeded moments; fill their disk, forbid it, take their output away. Nothing may be lost.

Each trial is a command in a copy of one scene. It dies up to five times in a row, before one of its operations on
files (each is as likely: an audit hook counts them) or after a fraction of the time that it takes, or it is refused.
After that every bundle verifies, and is what it was or what the command makes of it; the same command, given again,
succeeds and makes what it makes undisturbed; and no temporary is left.

One process imports everything once; what a trial does happens in forks of it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from campaign import Shard
from campaign_forks import ChildError, Disturbance, Outcome, asked, forked, preload, refusals
from campaign_process import fork
from campaign_scene import COMMANDS, ROOT, a_hub, make_scene, state, temporaries

NOBODY = 65534
WORKERS = min(2, os.cpu_count() or 1)
LEAST = 8.0  # seconds of trials, however long the preparation took
LONG = 300  # characters of a finding: the end of a traceback says most
FEW = 5  # findings of one kind that a command may have in a shard


@dataclass
class Usual:
    """What a command does when nothing happens to it."""

    outcome: Outcome
    after: dict[str, Any]


@dataclass
class Worker:
    """Trials of some of the commands in one process, in a folder of its own."""

    number: int
    folder: Path
    scene: Path
    chance: random.Random
    tried: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    usual: dict[str, Usual] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)

    def fault(self, kind: str, name: str, how: str, what: object) -> None:
        """Note a finding, unless there are enough of the kind."""
        text = " ".join(str(what).split())
        line = f"{kind}: {name}, {how}: {text if len(text) <= LONG else '... ' + text[-LONG:]}"
        if sum(each.startswith(f"{kind}: {name},") for each in self.findings) < FEW:
            self.findings.append(line)

    def copy(self, name: str, place: Path | None = None) -> Path:
        """The scene as a command finds it."""
        place = place or self.folder / "trial"
        if not os.path.ismount(place):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.scene, place, dirs_exist_ok=True)
        if COMMANDS[name].fresh:
            shutil.rmtree(place / "home", ignore_errors=True)
        return place

    def undisturbed(self, name: str) -> Usual:
        """What a command does when nothing happens to it; it is tried once."""
        if name not in self.usual:
            trial = self.copy(name)
            outcome = forked(COMMANDS[name].words, trial)
            if outcome.status:
                self.fault("fails", name, "undisturbed", outcome.text[-300:])
            if left := temporaries(trial):
                self.fault("left", name, "undisturbed", left)
            self.usual[name] = Usual(outcome, asked(lambda: state(trial)))
        return self.usual[name]

    def is_whole(self, name: str, how: str, trial: Path) -> None:
        """Each bundle is what it was, or what the command makes of it; none is gone."""
        try:
            now = asked(lambda: state(trial))
        except ChildError as error:
            self.fault("torn", name, how, error)
            return
        after = self.undisturbed(name).after
        for place, found in now.items():
            if isinstance(found, dict) and found["manifest"] != self.before.get(place, {}).get("manifest"):
                if place not in after:
                    self.fault("torn", name, how, f"{place} is not of this command")
                elif found["files"] != after[place]["files"]:
                    self.fault("torn", name, how, f"{place} has {sorted(found['files'])}")
        for place in self.before:
            if place not in now:
                self.fault("lost", name, how, f"{place} is gone")

    def again(self, name: str, how: str, trial: Path) -> None:
        """The same command succeeds, makes what it makes undisturbed, and leaves nothing else."""
        outcome, command = forked(COMMANDS[name].words, trial), COMMANDS[name]
        finished = outcome.status == 1 and command.done and command.done in outcome.text
        if outcome.status and not finished:
            self.fault("refused", name, how, f"{outcome.status} {outcome.text[-300:]}")
        elif "Traceback" in outcome.text:
            self.fault("traceback", name, how, outcome.text[-300:])
        if left := temporaries(trial):
            self.fault("left", name, how, left)
        try:
            now, after = asked(lambda: state(trial)), self.undisturbed(name).after
        except ChildError as error:
            self.fault("torn", name, f"{how}, and again", error)
            return
        if self._facts(now) != self._facts(after):
            both = self._facts(now), self._facts(after)
            other = sorted(place for place in {*both[0], *both[1]} if both[0].get(place) != both[1].get(place))
            self.fault("differs", name, how, other)
        if command.words[0] in ("pull", "lock", "update", "store", "info"):
            checked = forked(("store", "verify"), trial)
            if checked.status:
                self.fault("torn", name, how, f"store verify: {checked.text[-300:]}")
        if os.listdir(trial / "tmp"):
            self.tried["left in TMPDIR"] += 1

    def _facts(self, found: dict[str, Any]) -> dict[str, Any]:
        return {place: each["files"] if isinstance(each, dict) else each for place, each in found.items()}

    def kill(self, name: str) -> None:
        """Kill it, up to five times."""
        usual, said = self.undisturbed(name).outcome, []
        trial = self.copy(name)
        for _ in range(self.chance.choice((1, 2, 3, 4, 5))):
            if self.chance.random() < 0.7:
                number = self.chance.randint(1, max(usual.operations, 1))
                said.append(f"before operation {number} of {usual.operations}")
                outcome = forked(COMMANDS[name].words, trial, Disturbance(die_before=number))
            else:
                seconds = usual.seconds * self.chance.uniform(0.02, 1.0)
                said.append(f"after {seconds:.2f} of {usual.seconds:.2f} s")
                outcome = forked(COMMANDS[name].words, trial, Disturbance(die_after=seconds))
            killed = outcome.status == -signal.SIGKILL
            self.tried[f"kill: {name}" if killed else "survived"] += 1
            self.is_whole(name, " and ".join(said), trial)
            if not killed:
                break
        self.again(name, " and ".join(said), trial)

    def told(self, name: str, how: str, outcome: Outcome) -> None:
        """A command that could not write says so in two lines."""
        errors = [line for line in outcome.text.splitlines() if line.startswith("error:")]
        if "Traceback" in outcome.text or outcome.status not in (0, 1) or (outcome.status == 1 and len(errors) != 1):
            self.fault("traceback", name, how, f"{outcome.status} {outcome.text[-600:]}")

    def refuse(self, name: str) -> None:
        """From one operation on the system refuses all, or that one alone."""
        usual, trial = self.undisturbed(name).outcome, self.copy(name)
        what, code = self.chance.choice(sorted(refusals().items()))
        number = self.chance.randint(1, max(usual.operations, 1))
        how = f"{what} from operation {number} of {usual.operations}"
        self.tried["refusals"] += 1
        outcome = forked(COMMANDS[name].words, trial, Disturbance(refuse=code, refuse_from=number))
        self.told(name, how, outcome)
        self.is_whole(name, how, trial)
        self.again(name, how, trial)

    def full_disk(self, name: str) -> None:
        """A disk with little room, as far as this system lets one be mounted."""
        self.undisturbed(name)
        trial = self.folder / "full"
        trial.mkdir(exist_ok=True)
        size = sum(p.stat().st_size + 4096 for p in self.scene.rglob("*")) + (1 << 19)
        room = size + self.chance.randint(0, 2 << 20)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(trial)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return
        try:
            self.copy(name, trial)
            self.tried["full disks"] += 1
            how = f"full disk of {room}"
            self.told(name, how, forked(COMMANDS[name].words, trial))
            subprocess.run(["mount", "-o", "remount,size=512m", str(trial)], check=True)
            self.is_whole(name, how, trial)
            self.again(name, how, trial)
        finally:
            subprocess.run(["umount", str(trial)], check=True)

    def forbidden(self, name: str) -> None:
        """Nothing there may be written, by a user who is not root."""
        self.undisturbed(name)
        if os.getuid():
            return
        trial, how = self.copy(name), "a folder of another user"
        for folder in ("tmp", "home"):
            (trial / folder).mkdir(exist_ok=True)
            for path in (trial / folder, *(trial / folder).rglob("*")):
                path.chmod(0o777 if path.is_dir() else 0o666)
        (trial / "key").chmod(0o644)
        self.tried["forbidden folders"] += 1
        self.told(name, how, forked(COMMANDS[name].words, trial, Disturbance(user=NOBODY)))
        self.is_whole(name, how, trial)
        if COMMANDS[name].fresh:
            shutil.rmtree(trial / "home", ignore_errors=True)
        self.again(name, how, trial)

    def closed_output(self, name: str) -> None:
        """Nobody reads what it says, or that is written to a full device."""
        self.undisturbed(name)
        trial, output = self.copy(name), self.chance.choice(("closed", "/dev/full"))
        self.tried["closed outputs" if output == "closed" else "full devices"] += 1
        outcome = forked(COMMANDS[name].words, trial, Disturbance(output=output))
        if "Traceback" in outcome.text or outcome.status < 0:
            self.fault("traceback", name, output, f"{outcome.status} {outcome.text[-600:]}")
        self.is_whole(name, output, trial)
        self.again(name, output, trial)

    def run(self, until: float, only: str = "") -> None:
        """Trials, until the time is up."""
        self.before = asked(lambda: state(self.scene))
        matching = [name for name in COMMANDS if only in name]
        mine = matching[self.number :: WORKERS] or matching
        names = [name for name in mine for _ in range(COMMANDS[name].weight)]
        kinds = (self.kill, self.kill, self.kill, self.kill, self.refuse, self.full_disk, self.forbidden)
        while True:
            self.chance.choice((*kinds, self.kill, self.closed_output))(self.chance.choice(names))
            told = {"tried": self.tried, "findings": self.findings}
            self.folder.with_suffix(".json").write_text(json.dumps(told))
            if time.monotonic() > until:
                break


def child(seed: int, seconds: float, folder: Path, only: str = "") -> None:
    """Prepare, and try in several forks; each leaves what it found in a file."""
    until = time.monotonic() + seconds
    os.environ["OMP_NUM_THREADS"] = "1"  # a pool of threads does not survive a fork
    folder.chmod(0o755)  # for the user who may not write there
    with a_hub(folder / "hub"):
        scene = folder / "scene"
        scene.mkdir()
        preload(asked(lambda: make_scene(scene)))
        until = max(until, time.monotonic() + LEAST)
        processes = [fork() or _worker(seed, number, until, folder, only) for number in range(WORKERS)]
        codes = [os.waitpid(process, 0)[1] for process in processes]
        if any(codes):
            raise SystemExit("a worker ended early")


def _worker(seed: int, number: int, until: float, folder: Path, only: str) -> int:
    code = 1
    try:
        own = folder / f"worker{number}"
        own.mkdir()
        worker = Worker(number, own, folder / "scene", random.Random(f"{seed} {number}"))
        worker.run(until, only)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def run(seed: int, seconds: float, folder: Path, only: str = "") -> Shard:
    """A shard: what was tried, by what and by command, and a line for each finding."""
    words = [sys.executable, __file__, str(seed), str(seconds), str(folder), only]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    shard = Shard()
    if done.returncode:
        shard.findings.append(" ".join(f"broken: {done.stdout[-LONG:]}".split()))
    for path in sorted(folder.glob("worker*.json")):
        told = json.loads(path.read_text())
        for what, count in told["tried"].items():
            shard.count(what, count)
        shard.findings += told["findings"]
    return shard


def main() -> int:
    """One shard that is not kept: SEED SECONDS FOLDER, or with ``--only WORD`` those commands that have it in them."""
    if sys.argv[1] != "--only":
        child(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
        return 0
    with tempfile.TemporaryDirectory(prefix="kills-", dir="/dev/shm") as folder:
        shard = run(int(sys.argv[3]), float(sys.argv[4]), Path(folder), sys.argv[2])
    print(json.dumps(shard.tried, indent=1), *shard.findings, sep="\n")
    return bool(shard.findings)


if __name__ == "__main__":
    sys.exit(main())
