"""Hostile models: generated repositories, graphs, bundles and archives, each used by a command that reads such.

One process imports everything once; each case runs in a fork of it, under an audit hook, with ``MEMORY`` bytes and
``SLOWEST`` seconds, on a Hub of its own. A finding is code of the case that ran, a write or a read outside of its
folder, a connection to another host, unpickling, a process, a traceback, an end that is not one of the documented ones,
or more memory or time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from campaign import ROOT, Shard
from campaign_cases import Case, Stock, make_case
from campaign_process import TRACEBACK, fork, import_all, run_and_end

sys.path.append(str(ROOT / "tests"))
SLOWEST = 60.0  # seconds of one command
MEMORY = 6 << 30  # bytes of one command, on top of what the libraries take
RUN_SECONDS = 5  # of one run, and of an import: as with any limit, what ends there would end at the default
FEW = 40  # findings that are listed
HARM = frozenset((
    "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty",
    "pickle.find_class", "urllib.Request", "os.startfile",
))  # fmt: skip
NETWORK = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"))
NAMES = frozenset(("socket.getaddrinfo", "socket.gethostbyname"))
CHANGES = frozenset((
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.symlink", "os.link",
    "shutil.rmtree", "os.utime",
))  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LOCAL = ("127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost")
ROOTS = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path) if p}
SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/etc")
DOCUMENTED = (0, 1, 2, 3)  # exit codes
LIBRARIES = (
    "torch", "onnx", "onnxruntime", "transformers", "tokenizers", "PIL.Image", "huggingface_hub", "safetensors.torch",
)  # fmt: skip


def preload() -> None:
    """Import what the commands import, without running any model here."""
    import_all(LIBRARIES)


class Hook:
    """What a case did that it must not, in a fork of ours."""

    def __init__(self, folder: Path, stock: Stock) -> None:
        self.noted: list[str] = []
        self.own = (os.path.realpath(folder), "/dev/")
        self.read = (*self.own, *ROOTS, *SYSTEM)
        self.on = True

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if (
            event in HARM
            or (event in NETWORK and not self._local(arguments))
            or (event in NAMES and arguments[0] not in (*LOCAL, None))
        ):
            self._add(f"{event} {arguments!r}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            writes = isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
            self._path("write" if writes else "read", arguments[0], self.own if writes else self.read)
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    self._path(event, path, self.own)
        elif event == "import" and isinstance(arguments[1], str) and arguments[1].startswith(self.own[0]):
            self._add(f"import {arguments[1]}")

    def _local(self, arguments: tuple[Any, ...]) -> bool:
        address = arguments[1] if len(arguments) > 1 else None
        return isinstance(address, (str, bytes)) or (isinstance(address, tuple) and address[0] in LOCAL)

    def _path(self, event: str, path: str | bytes, allowed: tuple[str, ...]) -> None:
        where = os.path.realpath(os.fsdecode(path))
        if not any(where == root or where.startswith(root.rstrip("/") + "/") for root in allowed):
            self._add(f"{event} {where}")

    def _add(self, what: str) -> None:
        if len(self.noted) < 5:
            self.noted.append(what[:200])


def run_case(case: Case, folder: Path, stock: Stock, url: str) -> list[str]:
    """Run one in a fork; what was found, one line each."""
    log, told = folder / "log", folder.parent / f"{folder.name}.told"
    began = time.monotonic()
    child = fork()
    if child == 0:
        _child(case, folder, stock, url, log, told)
    status: int | None = None
    usage = None
    while status is None:
        ended, code, usage = os.wait4(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
        elif time.monotonic() - began > SLOWEST:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return [f"more than {SLOWEST:.0f} s"]
        else:
            time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    found = told.read_text("utf8", "replace").splitlines() if told.exists() else []
    text = log.read_text("utf8", "replace") if log.exists() else ""
    if stock.canary.exists():
        found.append("its code ran")
        stock.canary.unlink()
    if "Traceback (most recent call last)" in text or status == TRACEBACK:
        found.append(f"traceback: {' '.join(text.strip().splitlines()[-1:])[:300]}")
    elif status not in DOCUMENTED:
        found.append(f"ended with {status}: {' '.join(text.strip().splitlines()[-1:])[:200]}")
    elif status in (1, 3) and case.words[0] != "check" and not ("error:" in text and "hint:" in text):
        found.append(f"ended with {status} without two lines: {text[-200:]!r}")
    if "out of memory" in text:
        found.append(f"memory: {' '.join(text.split())[-200:]}")
    if usage is not None and usage.ru_maxrss * 1024 > MEMORY:
        found.append(f"{usage.ru_maxrss / 1e6:.1f} GB")
    if any(char in text for char in "\x1b\x07\u202e\u2066\x9b"):
        found.append("a control character on the terminal")
    return found


def _child(case: Case, folder: Path, stock: Stock, url: str, log: Path, told: Path) -> None:
    hook = Hook(folder, stock)

    def prepare() -> None:
        os.setsid()
        os.chdir(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        own = {
            "TMPDIR": "tmp",
            "TORCHINDUCTOR_CACHE_DIR": "tmp",
            "POCKETZOO_HOME": "home",
            "HF_HOME": "hf",
            "HOME": ".",
        }
        os.environ.update({name: str(folder / place) for name, place in own.items()}, HF_ENDPOINT=url, NO_COLOR="1")
        for name in ("RUN", "IMPORT"):
            os.environ[f"POCKETZOO_MAX_{name}_SECONDS"] = str(RUN_SECONDS)
        tempfile.tempdir = None
        _hub(url, folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 - of this process
        limit = _size() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        sys.addaudithook(hook.note)

    def closing() -> None:
        hook.on = False
        told.write_text("\n".join(hook.noted), "utf8", "replace")

    run_and_end(case.words, prepare, closing)


def _hub(url: str, folder: Path) -> None:
    """The client in this process talks to the Hub of the campaign, and knows no token."""
    from huggingface_hub import constants

    constants.ENDPOINT = url
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_CACHE = str(folder / "hf" / "hub")
    constants.HF_TOKEN_PATH = str(folder / "hf" / "token")
    constants.HF_HUB_DISABLE_XET = True


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def common_files(folder: Path) -> None:
    """What commands of any case are given as their data."""
    import numpy as np
    from PIL import Image

    np.savez(folder / "x.npz", x=np.zeros((12, 4), np.float32), y=np.arange(12) % 2)
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(folder / "image.png")
    (folder / "row.csv").write_text("a,b,label\n1,2,0\n")
    (folder.parent / "secret").write_text("secret")


def run(seed: int, seconds: float, folder: Path) -> Shard:
    """A shard: cases one after the other, until the time is up, from a process of its own that has all libraries."""
    told = folder / "shard.json"
    words = [sys.executable, __file__, str(seed), str(seconds), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    shard = Shard(**json.loads(told.read_text("utf8"))) if told.is_file() else Shard()
    if done.returncode:
        shard.findings.append(f"{seed}: the campaign itself ended with {done.returncode}: {done.stderr[-300:]!r}")
    return shard


def cases(seed: int, seconds: float, folder: Path) -> Shard:
    """What ``run`` runs."""
    stock = Stock(folder / "stock")
    preload()
    shard, until, seen, number = Shard(), time.monotonic() + seconds, set[str](), 0
    while time.monotonic() < until:
        place = folder / f"case-{number}"
        case, found, _ = try_case(seed, number, place, stock)
        for line in found:
            key = " ".join(line.split()[:6])
            if key not in seen and len(shard.findings) < FEW:
                shard.findings.append(f"{seed}/{number} {case.kind} [{case.says[:160]}] {' '.join(case.words)}: {line}")
            seen.add(key)
        shard.count(case.kind)
        (folder / "shard.json").write_text(json.dumps(asdict(shard)), "utf8")
        number += 1
    return shard


def try_case(seed: int, number: int, folder: Path, stock: Stock) -> tuple[Case, list[str], str]:
    """Make one case in a folder, and run it; the case, what was found, and what the command said."""
    (folder / "case").mkdir(parents=True)
    common_files(folder / "case")
    case = make_case(random.Random(f"{seed} hostile {number}"), folder / "case", stock)
    found, said = used(case, folder, stock)
    shutil.rmtree(folder, ignore_errors=True)
    return case, found, said


def used(case: Case, folder: Path, stock: Stock) -> tuple[list[str], str]:
    """Run a case whose files are in ``folder / "case"``, on a Hub of its own; what was found, and what it said."""
    from localhub import LocalHub

    with LocalHub(folder / "hub") as hub:
        for name, repository in case.repositories.items():
            hub.state.add_folder(name, repository)
        found = run_case(case, folder / "case", stock, hub.url)
    log = folder / "case" / "log"
    return found, log.read_text("utf8", "replace") if log.is_file() else ""


if __name__ == "__main__":  # a shard; or, of a seed and a number, one case again
    if len(sys.argv) == 4:
        cases(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as name:
            made = Stock(Path(name) / "stock")
            preload()
            print(*try_case(int(sys.argv[1]), int(sys.argv[2]), Path(name) / "case", made), sep="\n")
