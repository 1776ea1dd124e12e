"""The scene of the kills: data, a key, a Hub, two bundles; and the commands that write something there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign_forks import modules_of

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """summary = "x"
backbone = "{backbone}"
[fit]
epochs = 1
[compress]
samples = 8
keep_slower = true
accept = true
step = [{{kind = "int8"}}]
[export]
to = ["onnx"]
[bench]
seconds = 0
memory = false
"""
LIGHT = """summary = "x"
backbone = "C"
[export]
to = ["onnx", "triton"]
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
    fresh: bool = False  # whether it begins with an empty store


FIT = ("fit", "tinynet", "--data", "tiny.npz", "--epochs", "1")
COMPRESS = ("compress", "B", "--data", "tiny.npz", "--samples", "8", "--keep-slower", "--accept")
BENCH = ("bench", "B", "C", "--data", "tiny.npz", "--seconds", "0", "--no-memory", "--batch", "1")
AGENT = ("fit-agent", "CartPole-v1", "--set", "steps=300", "--set", "episodes=2", "--set", "evaluate_every=150")
FINISHED = "is already a finished bundle"
COMMANDS = {
    "fit": Command((*FIT, "-o", "new"), FINISHED, weight=3),
    "fit over another": Command((*FIT, "-o", "B", "--force"), weight=3),
    "fit-agent": Command((*AGENT, "-o", "agent", "--states", "states.npz"), FINISHED, weight=3),
    "compress": Command((*COMPRESS, "--int8", "-o", "new"), FINISHED, weight=3),
    "compress over another": Command((*COMPRESS, "--int8", "-o", "C", "--force"), weight=3),
    "export into a bundle": Command(("export", "C", "--target", "tensorrt-rtx"), weight=14),
    "export to a file": Command(("export", "B", "-o", "out/model.onnx"), weight=12),
    "export to a folder": Command(("export", "B", "--to", "triton", "-o", "triton"), "exists", weight=10),
    "sign": Command(("sign", "B", "--key", "key"), weight=14),
    "sign to a file": Command(("sign", "C", "--key", "key", "-o", "C.sig"), weight=6),
    "export into a signed bundle": Command(("export", "S", "--target", "tensorrt-rtx", "--force"), weight=10),
    "bench": Command((*BENCH, "--save"), weight=6),
    "bench to a plot": Command((*BENCH, "--plot", "plot.html"), weight=4),
    "pack": Command(("pack", "C", "-o", "packed"), FINISHED, weight=12),
    "pack over another": Command(("pack", "C", "-o", "B", "--force"), weight=12),
    "profile": Command(("profile", "C", "--seconds", "0", "--no-torch", "-o", "profile.html"), weight=4),
    "report": Command(("report", "C", "-o", "report.html"), weight=8),
    "run": Command(("run", "recipe.toml", "--data", "tiny.npz", "-o", "ran"), weight=3),
    "run of a bundle": Command(("run", "light.toml", "--data", "tiny.npz", "-o", "light"), weight=6),
    "new-plugin": Command(("new-plugin", "my-plugin"), "exists", weight=12),
    "find-rate": Command(("find-rate", "tinynet", "--data", "tiny.npz", "--steps", "20", "-o", "rate.svg"), weight=4),
    "data preview": Command(("data", "preview", "tiny.npz", "-o", "sheet.png"), weight=6),
    "pull": Command(("pull", "hf://tester/c"), fresh=True, weight=12),
    "pull what is locked": Command(("pull", "--locked"), fresh=True, weight=8),
    "lock": Command(("lock", "hf://tester/d", "hf://tester/c"), weight=10),
    "update": Command(("update",), weight=8),
    "push": Command(("push", "C", "tester/pushed"), weight=5),
    "info of the Hub": Command(("info", "hf://tester/c"), fresh=True, weight=8),
    "store prune": Command(("store", "prune", "--keep", "zoo.lock"), weight=10),
    "store rm": Command(("store", "rm", "hf://tester/d"), "is not stored here", weight=10),
}
SAME = (".onnx", ".lock", ".py", ".toml", ".pbtxt", ".npz", ".png")  # of these a command makes the same each time
HUB = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from localhub import LocalHub
with LocalHub(Path(sys.argv[2])) as hub:
    hub.state.create("tester/c"); hub.state.create("tester/d")
    print(hub.url, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def a_hub(folder: Path) -> Iterator[None]:
    """A Hub on this machine in a process of its own, which what runs here asks; call it before anything is imported."""
    folder.mkdir()
    line = [sys.executable, "-c", HUB, str(ROOT / "tests"), str(folder)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    os.environ.update(
        HF_ENDPOINT=process.stdout.readline().strip(),
        HF_TOKEN="hf_test",
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HOME=str(folder / "cache"),
    )
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()


def make_scene(folder: Path) -> list[str]:
    """Data, a key, recipes, bundles: B, fitted, C, compressed, S, signed; a store with models of the Hub, and a lock
    file. Returns the modules that all this imported."""
    import numpy as np
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    chance = np.random.default_rng(0)
    y = np.arange(45) % 3
    x = (chance.random((45, 32, 32, 3)) * 60 + y[:, None, None, None] * 80).astype("uint8")
    np.savez(folder / "tiny.npz", x=x, y=y)
    (folder / "recipe.toml").write_text(RECIPE.format(backbone="tinynet"))
    (folder / "light.toml").write_text(LIGHT)
    secret = ec.generate_private_key(ec.SECP256R1())
    (folder / "key").write_bytes(secret.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    os.environ.update(POCKETZOO_HOME=str(folder / "home"), HOME=str(folder))
    modules_of([(*FIT, "-o", "B"), (*COMPRESS, "--int8", "-o", "C")], folder)
    shutil.copytree(folder / "C", folder / "S")
    outputs = [("profile", "C", "--seconds", "0", "--no-torch", "-o", "x.html"), ("report", "C", "-o", "y.html")]
    commands = [
        ("sign", "S", "--key", "key"),
        *(("push", "C", f"tester/{name}") for name in "cd"),
        ("lock", "hf://tester/c"),
        ("pull", "hf://tester/c", "hf://tester/d"),
        ("export", "C", "-o", "z.onnx"),
        (*BENCH, "--plot", "w.html"),
        *outputs,
    ]
    names = modules_of(commands, folder)
    for name in ("x.html", "y.html", "z.onnx", "w.html"):
        (folder / name).unlink()
    return names


def bundles(folder: Path) -> Iterator[Path]:
    """Every finished bundle of a scene; those of work folders and temporaries are hidden."""
    for place in sorted(folder.rglob("pocketzoo.json")):
        if not any(part.startswith(".") or part == "home" for part in place.relative_to(folder).parts):
            yield place.parent


def state(folder: Path) -> dict[str, Any]:
    """Each bundle of a scene, verified: its manifest's digest, and of each file what it is to be again; likewise the
    other files. Raises whatever a torn bundle raises."""
    from pocketzoo.zoo.bundles.bundle import read_bundle

    found: dict[str, Any] = {}
    places = list(bundles(folder))
    for bundle in places:
        files = {name: e.sha256 for name, e in read_bundle(bundle).manifest.files.items() if name != "README.md"}
        files["signed"] = str((bundle / "model.sig").is_file())
        digest = hashlib.sha256((bundle / "pocketzoo.json").read_bytes()).hexdigest()
        found[bundle.relative_to(folder).as_posix()] = {"files": files, "manifest": digest}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") or part in ("home", "tmp") for part in place.parts)
        if path.is_file() and not hidden and not any(bundle in path.parents for bundle in places):
            same = path.suffix in SAME
            found[place.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest() if same else "a file"
    return found


def temporaries(folder: Path) -> list[str]:
    """What a command leaves only if it dies: temporaries, and the work folders of runs."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob(".*") if path.suffix in (".tmp", ".run")]
    return [name for name in names if not name.startswith(("home/", "tmp/"))]
