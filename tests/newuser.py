"""The way of a new user with a model of the Hub, by the real commands, from a search to answers on another machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from localhub import LocalHub

from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle


class User:
    """Someone with an empty home, whose environment knows the Hub's address and nothing else of it or of pocketzoo."""

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        foreign = ("HF_", "HUGGING", "POCKETZOO_", "XDG_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment |= {"HF_ENDPOINT": hub.url, "HOME": str(self.home)}

    def __call__(self, *arguments: object, **environment: str) -> str:
        """What ``pocketzoo ARGUMENTS`` prints; it must succeed."""
        line = [sys.executable, "-m", "pocketzoo", *map(str, arguments)]
        done = subprocess.run(
            line, cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(line[3:])}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def bundle(self, name: str) -> Bundle:
        """The model of the Hub that was put together here under a name such as ``tester--small``."""
        (path,) = (self.home / ".cache" / "pocketzoo" / "models").glob(f"{name}-*")
        return read_bundle(path)


@dataclass(frozen=True)
class Walk:
    """One user made ``tester/small`` from a model of the Hub, and another has pulled both by the lock."""

    maker: User
    other: User


def walk(hub: LocalHub, folder: Path, repo: str, words: str, data: Path) -> Walk:
    """Search, pull, lock, fit, compress, export, push; then, elsewhere, pull by the lock alone."""
    ref, maker = f"hf://{repo}", User(hub, folder / "one")
    assert f"{ref}  " in maker("search", words)
    assert f"{ref}  " in maker("pull", ref)
    assert "wrote zoo.lock" in maker("lock", ref)
    maker("fit", ref, "--data", data, "-o", "fitted", "--head", "linear", "--epochs", 100, "--learning-rate", 0.01)
    options = ["--int8", "--keep-slower", "--samples", 16]
    assert "int8 for cpu" in maker("compress", "fitted", *options, "--data", data, "-o", "small")
    assert "wrote small.onnx" in maker("export", "small", "--to", "onnx", "-o", "small.onnx")
    if find_spec("tensorrt_rtx"):
        maker("export", "small", "--to", "tensorrt-rtx", "-o", "small.engine")
        assert (maker.folder / "small.engine").stat().st_size < (maker.folder / "small" / "model.onnx").stat().st_size
    assert "hf://tester/small@" in maker("push", "small", "tester/small", HF_TOKEN="hf_test")
    maker("lock", "hf://tester/small")

    other = User(hub, folder / "two")
    (other.folder / "zoo.lock").write_bytes((maker.folder / "zoo.lock").read_bytes())
    pulled = other("pull", "--locked").splitlines()
    assert [line.split()[0] for line in pulled] == sorted([ref, "hf://tester/small"])
    hub.state.log.clear()
    other("--offline", "store", "verify")
    return Walk(maker, other)
