"""Chaos: every command with arguments that nobody meant, where it may not write, with little of everything.

Each trial is a command in a copy of one scene of small bundles and data, forked from a process that has imported all of
it: arguments drawn for every parameter that click knows, few file descriptors, little memory, small files, output that
is closed or full, folders that may not be written, and many commands at once on the same bundles. What takes more than
``WHILE`` seconds gets Ctrl-C. Variables of the environment are read on import: those trials start a new interpreter.

A finding is a traceback, an exit code that is not documented, an error that is not two lines, a process that ends by
a signal, a bundle that does not verify, a temporary that is left, more than ``SLOWEST`` seconds or ``MEMORY`` bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import campaign_words
from campaign import ROOT, Shard
from campaign_process import fork, import_all, run_and_end

SLOWEST, MEMORY = 60.0, 6 << 30  # seconds and bytes of one command
WHILE = 5.0  # seconds until a command is interrupted
NOBODY = 65534
LEAST = 3  # trials of a shard, however short
HEAVY = (
    "torch", "torch.nn.functional", "onnx", "onnx.checker", "onnxruntime", "PIL.Image", "safetensors.torch",
    "tokenizers", "rich.progress", "filelock", "onnx.reference", "torch.onnx", "encodings.idna", "ipaddress",
    "zoneinfo", "model_signing.signing", "model_signing.verifying", "huggingface_hub.utils", "huggingface_hub.hf_api",
)  # fmt: skip
EVENTS = frozenset(("open", "import", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.rmdir",
                    "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp", "fcntl.flock", "compile"))  # fmt: skip
CODES = {0, 1, 2, 3, 130}  # what docs/zoo.md lists; tests hold the two equal
LINES = {1: 2, 3: 2, 130: 1}  # of an error on stderr, its last ones
Limits = Mapping[int, int]


@dataclass
class Trial:
    """A command, and what is done to it."""

    words: list[str]
    limits: Limits = field(
        default_factory=dict
    )  # resource.RLIMIT_... -> value; of memory and descriptors: besides ours
    streams: Mapping[int, str] = field(default_factory=dict)  # number -> "closed", "full" or "broken"
    user: int = 0
    interrupt: float = WHILE  # seconds after which it gets Ctrl-C
    before: int = 0  # number of the audited event (a file opened, a module imported ...) before which it gets Ctrl-C


@dataclass
class Ended:
    """How it ended."""

    code: int  # minus the signal
    out: str
    err: str
    seconds: float
    memory: int  # bytes, at its most


def start(trial: Trial, folder: Path, number: int = 0) -> int:
    """The process of a fork that runs it in ``folder``."""
    pid = fork()
    if pid == 0:
        _child(trial, folder, folder.parent / f"out{number}", folder.parent / f"err{number}")
    return pid


def _child(trial: Trial, folder: Path, out: Path, err: Path) -> None:
    def prepare() -> None:
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment(folder))
        tempfile.tempdir = None
        for number, path in ((1, out), (2, err)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            os.dup2(handle, number)
            os.close(handle)
        for number, what in trial.streams.items():
            spoil(number, what)
        sys.stdin = open(0, closefd=False) if 0 not in trial.streams else None  # type: ignore[assignment]  # noqa: SIM115
        sys.stdout, sys.stderr = (_stream(number) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit(trial.limits)
        if trial.user:
            os.setgroups([])
            os.setgid(trial.user)
            os.setuid(trial.user)
        if trial.before:
            interrupt_before(trial.before)

    run_and_end(trial.words, prepare)


def _stream(number: int) -> Any:
    try:
        os.fstat(number)
    except OSError:
        return None  # as Python has it for one that is closed
    return open(number, "w", closefd=False)


def spoil(number: int, what: str) -> None:
    """Close a stream, or let it lead to where nothing can be written."""
    if what == "closed":
        os.close(number)
        return
    if what == "full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, handle = os.pipe()
        os.close(reader)
    os.dup2(handle, number)
    os.close(handle)


def interrupt_before(number: int) -> None:
    """Press Ctrl-C before the audited event of a number, whatever it is: so no trial depends on the machine's speed."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        count += event in EVENTS
        if count == number:
            count += 1
            os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(hook)


def limit(limits: Limits) -> None:
    """Set limits: of memory and descriptors what is used now, and so much more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, more in {resource.RLIMIT_AS: MEMORY, **limits}.items():
        now = 0
        if kind == resource.RLIMIT_AS:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        elif kind == resource.RLIMIT_NOFILE:
            now = 1 + max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(kind, (now + more, now + more))


def environment(folder: Path) -> dict[str, str]:
    """Variables of every trial: nothing outside its own folder, and nobody to talk to."""
    for name in ("tmp", "home"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), "POCKETZOO_HOME": str(folder / "home" / "zoo"),
        "HF_ENDPOINT": "http://127.0.0.1:1", "POCKETZOO_PATIENCE": "0.3", "OMP_NUM_THREADS": "1", "COLUMNS": "100",
    }  # fmt: skip


def wait(pid: int, trial: Trial, folder: Path, number: int = 0) -> Ended:
    """Wait for one, and interrupt it where it takes its time."""
    begun, told, usage = time.monotonic(), 0.0, None
    while usage is None:
        ended, status, usage_now = os.wait4(pid, os.WNOHANG)
        seconds = time.monotonic() - begun
        if ended:
            usage = usage_now
        elif not told and seconds > trial.interrupt:
            told = seconds
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGINT)
        elif told and seconds - told > SLOWEST:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        else:
            time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it started
    texts = [_text(folder.parent / f"{name}{number}") for name in ("out", "err")]
    return Ended(os.waitstatus_to_exitcode(status), *texts, seconds - told, usage.ru_maxrss * 1024)


def _text(path: Path) -> str:
    return path.read_text("utf8", "replace") if path.exists() else ""


def faults(ended: Ended, trial: Trial) -> list[str]:
    """What is wrong with how a command ended."""
    found = []
    if "Traceback (most recent" in ended.err + ended.out:
        found.append("traceback")
    elif ended.code not in CODES:
        found.append(f"exit code {ended.code}")
    unread = trial.streams.get(1) == "broken" and ended.code == 1  # of which nothing is said
    if ended.code in LINES and 2 not in trial.streams and not (unread and "error: " not in ended.err):
        lines = ended.err.splitlines()[-LINES[ended.code] :]
        begins = ["interrupted"] if ended.code == 130 else ["error: ", "hint:  "]
        errors = sum(line.startswith("error: ") for line in ended.err.splitlines())
        if [line[: len(b)] for line, b in zip(lines, begins, strict=False)] != begins or errors != (ended.code != 130):
            found.append("not two lines")
    if ended.seconds > SLOWEST:
        found.append(f"{ended.seconds:.0f} s")
    if ended.memory > MEMORY:
        found.append(f"{ended.memory >> 20} MB")
    return found


class Chaos:
    """Trials of one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.folder, self.shard = random.Random(f"chaos {seed}"), folder, Shard()
        self.seen: set[str] = set()
        self.scene = folder / "scene" / "it"

    def prepare(self) -> None:
        """Import everything, and make the scene."""
        self.folder.chmod(0o755)  # for the user who may not write there
        os.environ["OMP_NUM_THREADS"] = "1"
        import_all(HEAVY)
        self.scene.parent.mkdir()
        campaign_words.scene(self.scene)
        for words in campaign_words.MADE:
            trial = Trial(words, interrupt=SLOWEST)
            ended = wait(start(trial, self.scene), trial, self.scene)
            if ended.code:
                raise RuntimeError(f"{words} ended with {ended.code}: {ended.err}")

    def draw(self, scene: Path, *commands: str) -> list[str]:
        """Words of a command."""
        return campaign_words.draw(self.chance, scene, *commands)

    def copy(self) -> Path:
        """A fresh scene."""
        place = self.folder / "trial" / "it"
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir()
        place.parent.chmod(0o777)
        shutil.copytree(self.scene, place, symlinks=True)
        campaign_words.odd_files(place)
        return place

    def note(self, kind: str, trial: Trial, what: str, tail: str) -> None:
        """List a finding once: by its command and where it happened."""
        last = [line for line in tail.splitlines() if line.strip()][-1:]
        key = f"{trial.words[:1]} {what} {''.join(last)[:60]}"
        if key not in self.seen and len(self.shard.findings) < 100:
            self.seen.add(key)
            words = " ".join(word[:80] for word in trial.words)
            line = f"{kind}: {what}: {words} {dict(trial.limits) or ''}{dict(trial.streams) or ''} -> {tail[-500:]!r}"
            self.shard.findings.append(line.encode("ascii", "backslashreplace").decode())

    def judge(self, kind: str, place: Path, trials: list[Trial]) -> None:
        """Run trials at once in one place, and look at how they ended and what they left."""
        begun = [start(trial, place, number) for number, trial in enumerate(trials)]
        for number, (pid, trial) in enumerate(zip(begun, trials, strict=True)):
            ended = wait(pid, trial, place, number)
            for fault in faults(ended, trial):
                self.note(kind, trial, fault, f"{ended.out[-300:]}\n{ended.err}")
        self.shard.count(kind, len(trials))
        for fault in campaign_words.left(place, len(trials) > 1):
            self.note(kind, trials[0], fault, "; ".join(" ".join(trial.words) for trial in trials[1:]))

    def arguments(self) -> None:
        """Arguments that nobody meant."""
        place = self.copy()
        self.judge("arguments", place, [Trial(self.draw(place), interrupt=self.chance.choice((0.5, 1, 3)))])

    def interrupted(self) -> None:
        """Ctrl-C at any moment of a command that works."""
        place, chance = self.copy(), self.chance
        trial = Trial(campaign_words.meant(chance), before=int(2 ** chance.uniform(0, 11)), interrupt=SLOWEST)
        self.judge("interrupted", place, [trial])

    def little(self) -> None:
        """Few descriptors, little memory, small files. With less memory than this torch itself ends processes."""
        place, chance = self.copy(), self.chance
        which = chance.choice((resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE))
        more = {resource.RLIMIT_NOFILE: chance.randrange(12), resource.RLIMIT_AS: chance.randrange(256, 1024) << 20,
                resource.RLIMIT_FSIZE: chance.choice((1 << 12, 1 << 14, 1 << 16))}[which]  # fmt: skip
        self.judge("little", place, [Trial(campaign_words.meant(chance), {which: more})])

    def output(self) -> None:
        """Streams that are closed, full, or that nobody reads."""
        place, chance = self.copy(), self.chance
        numbers = chance.choice(((1,), (1,), (2,), (1, 2), (0,), (0, 1, 2)))
        streams = {n: "closed" if n == 0 else chance.choice(("closed", "full", "broken")) for n in numbers}
        self.judge("output", place, [Trial(campaign_words.meant(chance), streams=streams)])

    def forbidden(self) -> None:
        """A folder of another user, or one that cannot be read."""
        place, chance = self.copy(), self.chance
        environment(place)
        for path in place.rglob("*"):
            if chance.random() < 0.1 and not path.is_symlink() and stat.S_ISREG(path.lstat().st_mode):
                path.chmod(0)
        self.judge("forbidden", place, [Trial(campaign_words.meant(chance), user=NOBODY)])

    def crowd(self) -> None:
        """Many commands at once on the same bundles, places and store."""
        place, chance = self.copy(), self.chance
        trials = [
            Trial(campaign_words.meant(chance, crowd=True), interrupt=40.0) for _ in range(chance.choice((2, 4, 6)))
        ]
        if chance.random() < 0.3:
            trials = trials[:1] * len(trials)
        self.judge("crowd", place, trials)

    def variables(self) -> None:
        """Variables that have a strange value, in an interpreter of its own."""
        place, chance = self.copy(), self.chance
        strange = {k: v for k, v in campaign_words.variables(chance).items() if "\0" not in v}
        words = chance.choice((["pull", "hf://org/m"], ["list", "--json"], ["doctor"], ["plugins"], ["store", "ls"],
                               ["info", "B"], ["predict", "B", "a.png"], campaign_words.meant(chance)))  # fmt: skip
        line = [sys.executable, "-m", "pocketzoo", *words]
        paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        begun = time.monotonic()
        try:
            done = subprocess.run(
                line, cwd=place, env={**os.environ, **environment(place), **paths, **strange}, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=SLOWEST * 2, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.note("variables", Trial(words), "does not end", str(strange))
            return
        texts = (done.stdout.decode("utf8", "replace"), done.stderr.decode("utf8", "replace"))
        trial = Trial([*words, str(strange)])
        for fault in faults(Ended(done.returncode, *texts, time.monotonic() - begun, 0), trial):
            self.note("variables", trial, fault, texts[1])
        self.shard.count("variables")

    def run(self, until: float) -> None:
        """Trials until the time is up."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.arguments, 12), (self.interrupted, 4), (self.little, 3), (self.output, 3), (self.forbidden, 2),
            (self.crowd, 1), (self.variables, 1),
        ]  # fmt: skip
        bag = [kind for kind, weight in kinds for _ in range(weight)]
        for number in itertools.count():
            if number >= LEAST and time.monotonic() > until:
                return
            self.chance.choice(bag)()


def run(seed: int, seconds: float, folder: Path) -> Shard:
    """A shard."""
    until = time.monotonic() + seconds
    chaos = Chaos(seed, folder)
    chaos.prepare()
    chaos.run(until)
    return chaos.shard
