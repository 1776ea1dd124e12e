"""Build the wheel of a commit, to hold later versions against: in ~/.cache/pocketzoo-benchmarks, once for each commit.

Usage: python tools/baseline.py COMMIT

Prints the folder it is unpacked in, for PYTHONPATH. benchmarks/refactor.py measures with it.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent


def unpacked(commit: str) -> Path:
    """The folder that holds the package of a commit, as its wheel has it, and nothing else of the wheel.

    Without the metadata it stands beside this environment's own packages just as a working tree does.

    Raises:
        SystemExit: there is no such commit, or it cannot be built.
    """
    name = _output(["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"], f"no commit is called {commit}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketzoo-benchmarks"
    place = cache / f"baseline-{name.decode().strip()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                _build(name.decode().strip(), Path(folder))
                (Path(folder) / "site").rename(place)
    return place


def _build(commit: str, folder: Path) -> None:
    """The wheel and, in ``site``, the package of it."""
    files = _output(["git", "archive", commit, "pyproject.toml", "README.md", "LICENSE", "recipes", "pocketzoo"], "")
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder / "source", filter="data")
    # setuptools is this environment's: nothing is fetched.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    _output([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")], "")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site", [each for each in archive.namelist() if each.startswith("pocketzoo/")])
    shutil.copy(wheel, folder / "site")


def _output(command: list[str], failed: str) -> bytes:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(failed or done.stderr.decode().strip())
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", metavar="COMMIT")
    print(unpacked(parser.parse_args().commit))


if __name__ == "__main__":
    main()
