"""Virtual environments for other tools, whose requirements do not go together: made once, outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock


class InstallError(RuntimeError):
    """An environment could not be made; the message is the installer's own reason."""


def cache() -> Path:
    """Where the environments lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketzoo-benchmarks"


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The python of an environment that holds ``requirements`` (pinned: "nncf==3.4.0").

    Made on first use, which may take minutes, and kept: its folder is named by what it holds, so other requirements
    are another environment. It is never moved, since its scripts hold its path; a marker written last says that it is
    whole, and what a killed run left is made again.

    Raises:
        InstallError: the packages cannot be installed.
    """
    digest = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{digest}"
    python, marker = folder / "bin" / "python", folder / "installed"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if marker.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making the environment of {name} (once): {' '.join(requirements)}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", *requirements])
        marker.write_text(f"{time.perf_counter() - start:.1f} s\n" + "\n".join(requirements) + "\n")
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR:")] or lines
        raise InstallError("; ".join(reasons[-2:]) or f"{command[0]} exits with {done.returncode}")
