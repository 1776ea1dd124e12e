"""How commands end: exit codes, two lines for what the system refuses, one for Ctrl-C, nothing for a closed pipe."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from pocketzoo.cli.endings import EXIT_CODES, LONGEST, endings, explain, show_error
from pocketzoo.core.errors import DataError, MemoryShortError, PocketzooError, RejectedError, StorageError

DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"


class PanicException(BaseException):
    """As pyo3 makes one for each library."""


def ended(error: BaseException) -> int:
    with pytest.raises(SystemExit) as caught, endings():
        raise error
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (PocketzooError("it broke", "mend it"), 1, "error: it broke\nhint:  mend it\n"),
        (RejectedError("worse", "ask for less"), 3, "error: worse\nhint:  ask for less\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "error: cannot use /x/y: permission is denied"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: cannot read or write: no space is left\nhint:  free some"),
        (OSError(errno.EMFILE, "Too many open files", "a"), 1, "error: cannot use a: too many open files\nhint:"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "error: out of memory: Unable to allocate 9 TiB\n"),
        (UnicodeEncodeError("utf8", "a\udcfd", 1, 2, "surrogates not allowed"), 1, r"error: b'a\xfd' is not a text in"),
        (PanicException("index out of bounds"), 1, "error: a library failed: index out of bounds\nhint:  "),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_an_error_ends_with_its_code_and_two_lines(error, code, says, capfd, monkeypatch):
    monkeypatch.setattr("pocketzoo.cli.endings._discard_output", lambda: None)  # pytest's own output
    assert ended(error) == code
    err = capfd.readouterr().err
    assert err.startswith(says)
    assert bool(err) == bool(says)
    assert err.count("\n") == (0 if not says else 1 if code == 130 else 2)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RecursionError(), AssertionError()], ids=repr)
def test_a_bug_keeps_its_traceback(error):
    assert explain(error) is None
    with pytest.raises(type(error)), endings():
        raise error


def test_a_long_error_is_shown_in_part(capsys):
    show_error(DataError("begin " + "x" * 100_000 + " end", "mend it"))
    line, hint = capsys.readouterr().err.splitlines()
    assert len(line) < LONGEST + 100
    assert line.startswith("error: begin x")
    assert line.endswith("x end")
    assert hint == "hint:  mend it"


def test_memory_and_files_are_errors_of_the_family():
    assert isinstance(explain(MemoryError()), MemoryShortError)
    assert isinstance(explain(FileNotFoundError(errno.ENOENT, "No such file", b"/x\xff")), StorageError)


def test_the_exit_codes_are_documented():
    rows = re.findall(r"^\| (\d+) \| ([^|]+?) \|", DOCS.read_text("utf8"), re.MULTILINE)
    assert {int(code): says.partition(":")[0] for code, says in rows} == EXIT_CODES


def test_help_says_what_the_exit_codes_mean(run):
    line = run("--help").output.splitlines()[-1]
    assert line == "Exit codes: " + ", ".join(f"{code} {says}" for code, says in EXIT_CODES.items())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--help"], ["targets", "--json"], ["--version"]])
def test_output_to_a_full_disk_is_two_lines(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pocketzoo", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read or write: no space is left\nhint:  ")
    assert done.stderr.count("\n") == 2


def test_nowhere_to_say_it_is_no_traceback_either():
    with Path(os.devnull).open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pocketzoo", "info", "nonsense"], stdout=full, stderr=full, check=False
        )
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_who_reads_our_output_may_have_enough(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pocketzoo", *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    script = (
        "import os, sys; from pocketzoo.cli.endings import prepare_process; prepare_process(); "
        f"print(open({str(tmp_path / 'x')!r}, 'w').fileno(), file=open({str(tmp_path / 'said')!r}, 'w'))"
    )
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" 1>&- 2>&-', sys.executable, script], check=True)
    assert int((tmp_path / "said").read_text()) > 2


def interrupted(arguments: list[str], folder: Path, ready: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a command in a group of its own and press Ctrl-C once the code it is about to run has begun."""
    flag = folder / "begun"
    site = folder / "site"
    site.mkdir()
    # Python's own start-up takes this: it notes when a module of the command is looked for, and waits there, so that a
    # command that would take no time is still at work.
    (site / "sitecustomize.py").write_text(
        "import sys, time\nclass Noting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {ready!r}:\n"
        f"            open({str(flag)!r}, 'w').close()\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Noting())\n"
    )
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-m", "pocketzoo", *arguments], cwd=folder, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    while not flag.exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.mark.parametrize(
    ("arguments", "ready"),
    [
        (["list"], "pocketzoo.zoo.catalog.registry"),
        pytest.param(
            ["fit", "tinynet", "--data", "digits", "-o", "o"], "pocketzoo.train.training_loop", marks=pytest.mark.slow
        ),
        (["bench", "tinynet", "--seconds", "60"], "onnxruntime"),
        pytest.param(
            ["compress", "tinynet", "--prune", "0.3", "--data", "digits", "-o", "o"], "torch", marks=pytest.mark.slow
        ),
        (["doctor"], "pocketzoo.deploy.device.doctor"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ctrl_c_is_one_line(arguments, ready, tmp_path):
    done = interrupted(arguments, tmp_path, ready)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (130, ["interrupted"]), done.stderr
    assert "Traceback" not in done.stderr
    assert not {path.name for path in tmp_path.iterdir()} & {"o"}


class LibraryError(Exception):
    """As a library of an extra has one of its own."""


LibraryError.__module__ = "onnx.made_up"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("std::bad_alloc"), "error: out of memory: std::bad_alloc\nhint:  use smaller"),
        (RuntimeError("can't start new thread"), "error: out of memory: can't start new thread\n"),
        (
            ValueError("I/O error: File too large (os error 27)"),
            "error: cannot read or write: the file would be larger",
        ),
        (ValueError("No such file (os error 2)"), "error: cannot read or write: no such file or directory\n"),
        (LibraryError("of no\nuse"), "error: onnx failed: LibraryError: of no use\nhint:  "),
    ],
    ids=repr,
)
def test_what_libraries_say_in_types_of_their_own_is_two_lines(error, says, capfd):
    assert ended(error) == 1
    err = capfd.readouterr().err
    assert err.startswith(says)
    assert err.count("\n") == 2


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    line = f'exec "$0" -m pocketzoo list --kind head {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


def test_no_stream_is_none_where_libraries_look():
    script = (
        "import sys; sys.stdin = sys.stdout = sys.stderr = None\n"
        "from pocketzoo.cli.endings import prepare_process; prepare_process()\n"
        "print('x', sys.stdin.read()); sys.exit(3 if sys.stdout.isatty() or sys.stderr.isatty() else 4)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 4
