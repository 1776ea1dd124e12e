"""Kill commands that write, at seeded moments; fill their disk, forbid it, take their output away. Nothing may be lost.

    python tools/campaign_kills.py --seed 1 --kills 150

Each trial is a command in a copy of one scene of small bundles. It dies before one of its operations on files (each is
as likely: an audit hook counts them), or after a fraction of the time that it takes. Then every bundle must verify, and
be what it was or what the command makes of it; the same command, given again, must succeed; and after that no temporary
may be left. Counts are kept in benchmarks/results/campaign.json, by commit.

One process imports everything once, and each command runs in a fork of it, so that a trial takes a second or two.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "campaign.json"
KIND = "kills"
MINUTES = 30.0
SECONDS = 120.0  # of one command
NOBODY = 65534
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.symlink", "os.link")
)
RECIPE = """summary = "x"
backbone = "tinynet"
[fit]
epochs = 1
[compress]
samples = 8
keep_slower = true
accept = true
step = [{kind = "int8"}]
[export]
to = ["onnx"]
[bench]
seconds = 0
memory = false
"""


@dataclass(frozen=True)
class Command:
    """A command that writes, and what it may answer when it is given again."""

    words: tuple[str, ...]
    done: str = ""  # the error of a command that had finished before it died: it is refused a second time
    weight: int = 1


FIT = ("fit", "tinynet", "--data", "tiny.npz", "--epochs", "1")
COMPRESS = ("compress", "B", "--data", "tiny.npz", "--samples", "8", "--keep-slower", "--accept")
FINISHED = "is already a finished bundle"
COMMANDS = {
    "fit": Command((*FIT, "-o", "new"), FINISHED),
    "fit over another": Command((*FIT, "-o", "B", "--force")),
    "compress": Command((*COMPRESS, "--int8", "-o", "new"), FINISHED),
    "compress over another": Command((*COMPRESS, "--prune", "0.2", "-o", "C", "--force")),
    "export into a bundle": Command(("export", "C", "--target", "tensorrt-rtx"), weight=6),
    "export to a file": Command(("export", "B", "-o", "out/model.onnx"), weight=3),
    "export to a folder": Command(("export", "B", "--to", "triton", "-o", "triton"), "exists"),
    "sign": Command(("sign", "B", "--key", "key"), weight=5),
    "bench": Command(
        ("bench", "B", "C", "--data", "tiny.npz", "--seconds", "0", "--no-memory", "--batch", "1", "--save"), weight=3
    ),
    "pack": Command(("pack", "C", "-o", "packed"), FINISHED, weight=4),
    "pack over another": Command(("pack", "C", "-o", "B", "--force"), weight=3),
    "report": Command(("report", "C", "-o", "report.html"), weight=3),
    "run": Command(("run", "recipe.toml", "--data", "tiny.npz", "-o", "ran"), weight=2),
    "new-plugin": Command(("new-plugin", "my-plugin"), "exists", weight=3),
    "find-rate": Command(("find-rate", "tinynet", "--data", "tiny.npz", "--steps", "20", "-o", "rate.svg")),
    "data preview": Command(("data", "preview", "tiny.npz", "-o", "sheet.png")),
}


@dataclass
class Outcome:
    """How a command in a fork ended."""

    status: int  # of the process: minus the signal, or its exit code
    operations: int
    seconds: float
    text: str


@dataclass
class Findings:
    """What was tried, by its name, and what was found: one line each."""

    tried: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, what: str) -> None:
        self.faults.append(" ".join(f"{kind}: {what}".split()))
        print(f"  {kind}: {what}", file=sys.stderr, flush=True)


def preload() -> None:
    """Import what commands import, without running any: threads do not survive a fork."""
    script = (
        "import sys\nfrom pocketzoo.cli.main import cli\n"
        "for words in (['fit', 'tinynet', '--data', 'tiny.npz', '--epochs', '1', '-o', 'x'],"
        " ['compress', 'x', '--data', 'tiny.npz', '--samples', '8', '--int8', '--accept', '--keep-slower', '-o', 'y'],"
        " ['export', 'y', '-o', 'z.onnx'], ['report', 'y', '-o', 'r.html']):\n"
        "    cli(words, standalone_mode=False)\n"
        "print('\\n'.join(sorted(sys.modules)))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        told = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    for name in told.stdout.splitlines():
        if name.split(".")[0] in ("pocketzoo", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def write_data(folder: Path) -> None:
    import numpy as np

    chance = np.random.default_rng(0)
    y = np.arange(45) % 3
    x = (chance.random((45, 32, 32, 3)) * 60 + y[:, None, None, None] * 80).astype("uint8")
    np.savez(folder / "tiny.npz", x=x, y=y)


def make_scene(folder: Path) -> None:
    """Data, a key, and two bundles: B, fitted, and C, compressed."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir()
    write_data(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    secret = ec.generate_private_key(ec.SECP256R1())
    (folder / "key").write_bytes(secret.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    for words in ((*FIT, "-o", "B"), (*COMPRESS, "--int8", "-o", "C")):
        made = forked(words, folder)
        assert made.status == 0, made.text


def forked(
    words: tuple[str, ...],
    folder: Path,
    *,
    die_before: int = 0,
    die_after: float = 0.0,
    closed: bool = False,
    user: int = 0,
) -> Outcome:
    """Run a command in a fork, in ``folder``; it dies before its operation of a number, or after a time."""
    reading, writing = os.pipe()
    log = folder.parent / f"{folder.name}.log"
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(words, folder, log, writing, die_before, closed, user)
    os.close(writing)
    killed, status = False, None
    while status is None:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
        elif not killed and (time.monotonic() - begun > (die_after or SECONDS)):
            killed = True
            os.kill(child, signal.SIGKILL)
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - begun
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    with os.fdopen(reading, "rb") as pipe:
        operations = len(pipe.read())
    return Outcome(status, operations, seconds, log.read_text("utf8", "replace") if log.exists() else "")


def _command(
    words: tuple[str, ...], folder: Path, log: Path, told: int, die_before: int, closed: bool, user: int
) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        os.environ.update(TMPDIR=str(folder / "tmp"), POCKETZOO_HOME=str(folder / "home"), HOME=str(folder))
        tempfile.tempdir = None
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(output, 2)
        if closed:
            reader, broken = os.pipe()
            os.close(reader)
            os.dup2(broken, 1)
        else:
            os.dup2(output, 1)
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 - of this process
        if user:
            os.setgid(user)
            os.setuid(user)
        count, where = 0, os.fspath(folder)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event == "open":
                if not (isinstance(arguments[2], int) and arguments[2] & WRITES):
                    return
            elif event not in CHANGES:
                return
            path = arguments[0]
            if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(where):  # type: ignore[arg-type]
                return
            count += 1
            if count == die_before:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(told, b".")

        sys.addaudithook(hook)
        sys.argv = ["pocketzoo", *words]
        from pocketzoo.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def bundles(folder: Path) -> Iterator[Path]:
    """Every finished bundle of a scene; those of work folders and temporaries are hidden."""
    for place in sorted(folder.rglob("pocketzoo.json")):
        if not any(part.startswith(".") for part in place.relative_to(folder).parts):
            yield place.parent


def contents(folder: Path) -> dict[str, frozenset[str]]:
    from pocketzoo.zoo.bundles.bundle import read_bundle

    return {
        bundle.relative_to(folder).as_posix(): frozenset(read_bundle(bundle).manifest.files)
        for bundle in bundles(folder)
    }


def digests(folder: Path) -> dict[str, bytes]:
    return {b.relative_to(folder).as_posix(): (b / "pocketzoo.json").read_bytes() for b in bundles(folder)}


def temporaries(folder: Path) -> list[str]:
    """What a command leaves only if it dies: temporaries, and the work folders of runs."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob(".*") if path.suffix in (".tmp", ".run")]
    return [name for name in names if not name.startswith(("home/", "tmp/"))]


class Campaign:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.scene = folder / "scene"
        self.findings = Findings()
        self.usual: dict[str, tuple[Outcome, dict[str, frozenset[str]]]] = {}

    def copy(self, place: Path | None = None) -> Path:
        place = place or self.folder / "trial"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.scene, place, dirs_exist_ok=True)
        return place

    def undisturbed(self, name: str) -> tuple[Outcome, dict[str, frozenset[str]]]:
        """What a command does when nothing happens to it."""
        if name not in self.usual:
            trial = self.copy()
            outcome = forked(COMMANDS[name].words, trial)
            if outcome.status != 0:
                raise SystemExit(f"{name} fails undisturbed:\n{outcome.text}")
            self.usual[name] = outcome, contents(trial)
            if left := temporaries(trial):
                self.findings.fault("left", f"{name}, undisturbed: {left}")
        return self.usual[name]

    def check(
        self, name: str, how: str, trial: Path, before: dict[str, bytes], after: dict[str, frozenset[str]]
    ) -> None:
        """Each bundle is what it was, or what the command makes; the command, given again, succeeds."""
        try:
            for bundle, files in contents(trial).items():
                old = digests(trial)[bundle] == before.get(bundle)
                if not old and not files <= after.get(bundle, frozenset()):
                    self.findings.fault("torn", f"{name}, {how}: {bundle} has {sorted(files)}")
            for bundle in before:
                if not (trial / bundle / "pocketzoo.json").is_file():
                    self.findings.fault("lost", f"{name}, {how}: {bundle} is gone")
        except Exception as error:  # whatever a torn bundle raises
            self.findings.fault("torn", f"{name}, {how}: {error}")
        self.again(name, how, trial)

    def again(self, name: str, how: str, trial: Path) -> None:
        outcome = forked(COMMANDS[name].words, trial)
        done = COMMANDS[name].done
        if outcome.status != 0 and not (outcome.status == 1 and done and done in outcome.text):
            self.findings.fault("refused", f"{name}, {how}: {outcome.status} {outcome.text[-600:]}")
        if "Traceback" in outcome.text:
            self.findings.fault("tracebacks", f"{name}, {how}: {outcome.text[-600:]}")
        if left := temporaries(trial):
            self.findings.fault("left", f"{name}, {how}: {left}")
        if left := os.listdir(trial / "tmp"):
            self.findings.tried["left in TMPDIR"] += 1

    def kill(self, name: str) -> None:
        usual, after = self.undisturbed(name)
        trial = self.copy()
        before = digests(trial)
        if self.chance.random() < 0.6:
            number = self.chance.randint(1, max(usual.operations, 1))
            how = f"before operation {number} of {usual.operations}"
            outcome = forked(COMMANDS[name].words, trial, die_before=number)
        else:
            seconds = usual.seconds * self.chance.uniform(0.02, 1.0)
            how = f"after {seconds:.2f} of {usual.seconds:.2f} s"
            outcome = forked(COMMANDS[name].words, trial, die_after=seconds)
        self.findings.tried["kills" if outcome.status == -signal.SIGKILL else "survived"] += 1
        self.check(name, how, trial, before, after)

    def refuse(self, name: str, what: str, outcome: Outcome) -> None:
        """A command that could not write says so in two lines."""
        errors = [line for line in outcome.text.splitlines() if line.startswith("error:")]
        if "Traceback" in outcome.text or outcome.status not in (0, 1) or (outcome.status == 1 and len(errors) != 1):
            self.findings.fault("tracebacks", f"{name}, {what}: {outcome.status} {outcome.text[-900:]}")

    def full_disk(self, name: str) -> None:
        _, after = self.undisturbed(name)
        trial = self.folder / "full"
        trial.mkdir(exist_ok=True)
        size = sum(p.stat().st_size for p in self.scene.rglob("*") if p.is_file()) + 65536 * 8
        room = size + self.chance.randint(0, 3 << 20)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(trial)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return
        try:
            shutil.copytree(self.scene, trial, dirs_exist_ok=True)
            before = digests(trial)
            self.findings.tried["full disks"] += 1
            self.refuse(name, f"full disk of {room}", forked(COMMANDS[name].words, trial))
            subprocess.run(["mount", "-o", "remount,size=512m", str(trial)], check=True)
            self.check(name, f"full disk of {room}", trial, before, after)
        finally:
            subprocess.run(["umount", str(trial)], check=True)

    def forbidden(self, name: str) -> None:
        """Nothing there may be written, by a user who is not root."""
        _, after = self.undisturbed(name)
        trial = self.copy()
        before = digests(trial)
        for folder in ("tmp", "home"):
            (trial / folder).mkdir(exist_ok=True)
            (trial / folder).chmod(0o777)
        (trial / "key").chmod(0o644)
        self.findings.tried["forbidden folders"] += 1
        log = trial.parent / f"{trial.name}.log"
        log.touch()
        log.chmod(0o666)
        self.refuse(name, "a folder of another user", forked(COMMANDS[name].words, trial, user=NOBODY))
        if digests(trial) != before:
            self.findings.fault("torn", f"{name}, in a folder of another user")
        shutil.rmtree(trial / "home", ignore_errors=True)
        self.check(name, "a folder of another user", trial, before, after)

    def closed_output(self, name: str) -> None:
        _, after = self.undisturbed(name)
        trial = self.copy()
        before = digests(trial)
        outcome = forked(COMMANDS[name].words, trial, closed=True)
        self.findings.tried["closed outputs"] += 1
        if "Traceback" in outcome.text:
            self.findings.fault("tracebacks", f"{name}, closed output: {outcome.text[-600:]}")
        self.check(name, "closed output", trial, before, after)

    def run(self, kills: int, seconds: float, only: str = "") -> None:
        names = [name for name, command in COMMANDS.items() for _ in range(command.weight) if only in name]
        others = (self.full_disk, self.forbidden, self.closed_output)
        end = time.monotonic() + seconds
        for number in range(kills):
            if time.monotonic() > end:
                break
            self.kill(self.chance.choice(names))
            if number % 4 == 3:
                others[(number // 4) % 3](self.chance.choice(names))
            if number % 10 == 9:
                print(f"{number + 1}: {dict(self.findings.tried)}", file=sys.stderr, flush=True)


def commit() -> str:
    line = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def keep(findings: Findings, seed: int, seconds: float) -> None:
    """Put a shard into the file, in place of an earlier one of the same commit, kind and seed."""
    shards = json.loads(RESULTS.read_text("utf8"))["shards"] if RESULTS.is_file() else []
    this = {"commit": commit(), "kind": KIND, "seed": seed}
    shards = [each for each in shards if any(each[key] != value for key, value in this.items())]
    entry = {**this, "seconds": round(seconds, 1), "tried": dict(findings.tried), "findings": findings.faults}
    RESULTS.write_text(json.dumps({"shards": [*shards, entry]}, indent=1) + "\n", "utf8")


def attack(seed: int, seconds: float, folder: Path, *, kills: int = 1_000_000, only: str = "") -> Findings:
    """One seeded part of the campaign, in ``folder``."""
    os.environ.update(OMP_NUM_THREADS="1", POCKETZOO_HOME=str(folder / "home"))
    begun = time.monotonic()
    folder.chmod(0o755)  # for the user who may not write there
    preload()
    campaign = Campaign(folder, seed)
    make_scene(campaign.scene)
    shutil.rmtree(campaign.scene / "home", ignore_errors=True)
    campaign.run(kills, seconds - (time.monotonic() - begun), only)
    return campaign.findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", default="", help="commands whose name has this in it")
    parser.add_argument("--keep", action="store_true", help="keep the counts in benchmarks/results/campaign.json")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings = attack(options.seed, 60 * options.minutes, Path(folder), kills=options.kills, only=options.only)
    print(json.dumps(dict(findings.tried), indent=1))
    print("\n".join(findings.faults))
    if options.keep:
        keep(findings, options.seed, time.monotonic() - begun)
    return bool(findings.faults)


if __name__ == "__main__":
    sys.exit(main())
