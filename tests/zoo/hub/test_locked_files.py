"""Locks of other processes: held, killed, standing still; and that they are the locks that filelock takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from pocketzoo.core.errors import BusyError
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.bundles.work_folder import LOCK, unfinished
from pocketzoo.zoo.hub.locked_files import locked_temporary, try_lock, wait_for
from pocketzoo.zoo.hub.store import Store

# Each holds a lock, says what on, and waits to be told to end, or to be killed.
HOLDERS = {
    "an open file": """
from pocketzoo.zoo.hub.locked_files import try_lock
file = open(sys.argv[1], "ab")
assert try_lock(file)
print(sys.argv[1], flush=True)
""",
    "a temporary": """
from pocketzoo.zoo.hub.locked_files import locked_temporary
file = locked_temporary(Path(sys.argv[1]).parent)
print(file.name, flush=True)
""",
    "filelock itself": """
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print(sys.argv[1], flush=True)
""",
}


@pytest.fixture
def holder(tmp_path):
    started = []

    def start(what: str) -> tuple[subprocess.Popen[str], Path]:
        code = f"import sys\nfrom pathlib import Path\n{HOLDERS[what]}sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        with process:
            process.kill()


def locks(place: Path) -> bool:
    with place.open("ab") as file:
        return try_lock(file)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
@pytest.mark.parametrize("what", HOLDERS)
def test_a_lock_lasts_as_long_as_its_process(what, how, holder):
    process, place = holder(what)
    assert not locks(place)
    if how is None:
        process.stdin.close()
    else:
        process.send_signal(how)
    process.wait()
    assert locks(place)
    assert locks(place), "it went with the file"


def test_a_lock_is_one_that_filelock_respects(tmp_path):
    with (tmp_path / "lock").open("ab") as file, FileLock(tmp_path / "other"):
        assert try_lock(file)
        lock = FileLock(tmp_path / "lock")
        with pytest.raises(TimeoutError):
            lock.acquire(blocking=False)


def test_a_locked_file_may_be_written_renamed_and_removed(tmp_path):
    with locked_temporary(tmp_path) as file:
        file.write(b"x")
        file.flush()
        os.replace(file.name, tmp_path / "there")
        assert not locks(tmp_path / "there")
        (tmp_path / "there").unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_only_be_read_is_locked_too(tmp_path):
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "blob").chmod(0o444)
    with (tmp_path / "blob").open("rb") as file, (tmp_path / "blob").open("rb") as other:
        assert try_lock(file)
        assert not try_lock(other)


def test_who_waits_gets_the_file_when_its_holder_is_killed(holder):
    process, place = holder("an open file")
    killer = threading.Timer(0.1, process.kill)
    killer.start()
    with wait_for(place, 60.0, lambda: False) as file:
        assert not locks(place)
        assert os.fstat(file.fileno()).st_ino == place.stat().st_ino
    killer.join()


def test_nobody_waits_for_a_holder_that_stands_still_nor_when_told_to_stop(holder):
    _, place = holder("an open file")
    assert wait_for(place, 0.0, lambda: False) is None
    assert wait_for(place, 60.0, lambda: True) is None
    assert not locks(place), "it was not taken away"


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_only_temporaries_of_the_dead_are_collected(mode, holder, tmp_path):
    store = Store(tmp_path / "store")
    (store.root / "tmp").mkdir(parents=True)
    process, place = holder("a temporary")
    place = place.rename(store.root / "tmp" / place.name)
    place.chmod(mode)
    assert store.collect() == []
    process.kill()
    process.wait()
    assert store.collect() == [place]
    assert not place.exists()


def test_a_run_is_alone_with_its_output_until_it_is_killed(holder, tmp_path, refused):
    (tmp_path / ".out.run").mkdir()
    process, place = holder("an open file")
    os.link(place, tmp_path / ".out.run" / LOCK)
    with refused(BusyError, "another run is writing", hint="wait"), unfinished(tmp_path / "out", "", SILENT, str):
        pass
    process.kill()
    process.wait()
    with unfinished(tmp_path / "out", "key", SILENT, lambda _: "") as folder:
        assert not locks(folder / LOCK)
    assert not folder.exists()
