"""Fuzzing: what reads something from outside is given mutations of what is valid, and nonsense of the right shape.

Each reader runs in a process of its own, since a library may end it. A finding is anything but an answer or a
``PocketzooError``: another exception, a process that ends, more than ``SLOWEST`` seconds, more than ``MEMORY`` bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from campaign import ROOT, Shard

SLOWEST = 60.0  # seconds for one input
MEMORY = 6 << 30  # bytes of a process
FEW = 5  # findings of one reader that are listed: most are one and the same
INTERESTING = [
    b"[" * 300, b"{" * 300, b'{"a":' * 200, b"9" * 400, b"-1", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"[]",
    b"{}", b'""', b"\x00", b"\xff\xfe", b"\\ud83d", b"\xed\xa0\x80", b"\n", b"\r", b'"', b",", b"=", b"\x7f" * 8,
    b"\xff" * 8, b"18446744073709551616", b"9223372036854775807", b"../../x", b"/etc/passwd", b"2020-01-01", b"%s{0}",
    "\u202e\u0000".encode(), b" " * 100,
]  # fmt: skip
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**300, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "\x00", "\ud83d", "../x", "a" * 5000, "\u202e", [], {}, [None], [[]], [1, "a"], {"": 0},
    {"name": []}, [[[[[[[]]]]]]], "1", "nan", "cpu", ["cpu"], {"a": {"b": {"c": 1}}}, [10**400],
]  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a few changes: of one, of many, of their order and number."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at, end = sorted((chance.randrange(len(out) + 1), chance.randrange(len(out) + 1)))
        end = min(end, at + chance.choice((1, 4, 64, 10_000)))
        way = chance.randrange(6)
        if way == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            del out[at:end]
        elif way == 2:
            out[at:at] = chance.choice(INTERESTING)
        elif way == 3:
            out[at:end] = chance.choice(INTERESTING)
        elif way == 4:
            out[at:at] = out[at:end]
        else:
            out[at:end] = chance.randbytes(end - at)
    return bytes(out)


def changed(value: Any, chance: random.Random) -> Any:
    """Plain data with one node of it replaced, removed, renamed or doubled."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not inside or chance.random() < 0.25:
        return chance.choice(NASTY)
    if isinstance(value, list):
        at, out = chance.randrange(len(value)), list(value)
        way = chance.randrange(4)
        if way == 0:
            del out[at]
        elif way == 1:
            out.insert(at, chance.choice(NASTY))
        else:
            out[at] = changed(out[at], chance)
        return out
    key, table = chance.choice(list(value)), dict(value)
    way = chance.randrange(8)
    if way == 0:
        del table[key]
    elif way == 1:
        table[chance.choice(["", "x", "name", "\ud83d", "../x", "a" * 300])] = table[key]
    else:
        table[key] = changed(table[key], chance)
    return table


def as_json(value: Any) -> bytes:
    """JSON of any plain data: whole numbers of any length, halves of characters as escapes."""
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(4300)


def variant(data: bytes, chance: random.Random) -> bytes:
    """An input that is made of a valid one."""
    if chance.random() < 0.5:
        with contextlib.suppress(ValueError):
            value = json.loads(data)
            for _ in range(chance.choice((1, 1, 2, 3))):
                value = changed(value, chance)
            return as_json(value)
    return mutated(data, chance)


Read = Callable[[bytes], object]


def readers(folder: Path) -> dict[str, Callable[[], tuple[list[bytes], Read]]]:
    """Name -> what makes valid inputs, and the function that reads one."""
    table = import_module(os.environ.get("CAMPAIGN_READERS", "campaign_readers")).READERS
    return {name: partial(make, folder) for name, make in table.items()}


def child(name: str, seed: int, first: int, seconds: float, folder: Path) -> None:
    """Read inputs until the time is up; the one that is being read is in ``folder``."""
    from pocketzoo.core.errors import PocketzooError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    valid, read = readers(folder)[name]()
    for data in valid:
        read(data)  # which has to work, or what is tried is not what is meant
    limit = _size() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said = (folder / "said").open("a", buffering=1)
    current, until, number = folder / "current", time.monotonic() + seconds, first
    while time.monotonic() < until:
        chance = random.Random(f"{seed} {name} {number}")
        data = variant(chance.choice(valid), chance)
        current.write_bytes(data)
        try:
            read(data)
        except PocketzooError:
            pass
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "/pocketzoo/" in f.filename]
            at = ours[-1] if ours else last
            place = f"{at.filename.partition('/pocketzoo/')[2] or at.filename}:{at.lineno}"
            text = " ".join(f"{type(error).__name__} at {place}: {error}".split())
            said.write(f"finding {number} {text[:200].encode('ascii', 'replace').decode()}\n")
        number += 1
        said.write(f"done {number}\n") if number % 20 == 0 else None
    said.write(f"done {number}\nend\n")


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def run(seed: int, seconds: float, folder: Path) -> Shard:
    """A shard: each reader gets the same part of the time."""
    shard, names = Shard(), list(readers(folder))
    for name in names:
        own = folder / name
        own.mkdir()
        _reader(shard, name, seed, seconds / len(names), own)
    return shard


def _reader(shard: Shard, name: str, seed: int, seconds: float, folder: Path) -> None:
    until, first, seen = time.monotonic() + seconds, 0, set[str]()
    while (left := until - time.monotonic()) > 0:
        (folder / "said").write_text("")
        words = [sys.executable, __file__, name, str(seed), str(first), str(left), str(folder)]
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "POCKETZOO_HOME": str(folder / "home")}
        with (folder / "err").open("w") as err:
            process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=err)
        before, since = b"", time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            now = hashlib.sha256((folder / "said").read_bytes() + _bytes(folder / "current")).digest()
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > SLOWEST:
                process.kill()
        lines = (folder / "said").read_text().splitlines()
        for line in lines:
            if line.startswith("finding"):
                _, number, text = line.split(" ", 2)
                _note(shard, seen, f"{name} {seed}/{number}: {text}", text)
        done = max([first, *(int(line.split()[1]) for line in lines if line.startswith("done"))])
        shard.count(name, done - first)
        if "end" in lines:
            return
        why = "more than a minute" if process.returncode == -9 else f"the process ended with {process.returncode}"
        tail = ((folder / "err").read_text(errors="replace").splitlines() or [""])[-1][:120]
        digest = hashlib.sha256(_bytes(folder / "current")).hexdigest()[:12]
        _note(shard, seen, f"{name} {seed}/{done}+: {why}: {tail} (input {digest})", why + tail)
        if done == first and not _bytes(folder / "current"):
            return  # it does not even start
        first = done + 20  # behind what ended it
        shard.count(name, 1)


def _note(shard: Shard, seen: set[str], line: str, what: str) -> None:
    """List a finding once: by where it is, for the value in it differs."""
    key = what.partition(":")[0] + what.partition(":")[2][:12]
    if key not in seen and len(seen) < FEW * 4:
        seen.add(key)
        shard.findings.append(line)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    name, seed, first, seconds, folder = sys.argv[1:]
    child(name, int(seed), int(first), float(seconds), Path(folder))
