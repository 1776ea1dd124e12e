"""What chaos is made of: a scene of bundles and data, and the words of commands, meant or not."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import click
from campaign import ROOT

FROZEN = ROOT / "tests" / "frozen" / "format2"
BUNDLES = {"C": "compressed", "T": "text-encoder", "R": "regression", "A": "agent", "G": "gpt2", "F": "foreign"}
MADE = [line.split() for line in (  # what the scene has besides
    "fit tinynet --data tiny.npz --epochs 1 -o B", "bench B --data tiny.npz --seconds 0 --no-memory --save",
)]  # fmt: skip
RECIPE = '[[step]]\nkind = "prune"\nratio = 0.3\n[[step]]\nkind = "int8"\n'
WHOLE = """summary = "x"
backbone = "tinynet"
[fit]
epochs = 1
[export]
to = ["onnx"]
"""
MEANT = [line.split() for line in (
    "info B", "info C --json", "info B --provenance", "list", "list --json", "plugins", "doctor", "targets",
    "verify B", "sign B --key key", "eval B --data tiny.npz", "predict B a.png --json", "predict R 1,2,3",
    "predict T t.txt", "check B --target tensorrt", "export B -o m.onnx", "export B --to triton -o triton",
    "export C --target tensorrt-rtx", "export F -o m.onnx --force", "pack B -o packed --force", "report B -o r.html",
    "bench B --seconds 0 --no-memory --data tiny.npz", "bench B --seconds 0 --no-memory --save",
    "profile B --seconds 0",
    "fit tinynet --data tiny.npz --epochs 1 -o new --force", "fit mlp --data t.csv --epochs 1 -o new2 --force",
    "compress B --prune 0.3 --data tiny.npz --samples 8 --accept --keep-slower -o small --force",
    "compress B --int8 --data tiny.npz --samples 8 --accept --keep-slower -o small --force",
    "compress B -r r.toml --data tiny.npz --samples 8 --accept --keep-slower --dry-run",
    "generate G hello --max-new-tokens 3", "data preview tiny.npz -o s.png", "store ls", "store du", "store verify",
    "find-rate tinynet --data tiny.npz --steps 20", "run w.toml --data tiny.npz -o ran", "new-plugin my-plugin",
    "store prune --keep zoo.lock", "pull hf://org/m", "push B org/m", "search bert",
)]  # fmt: skip
WRITE = {"sign", "export", "pack", "bench", "fit", "compress", "report", "run", "verify", "info", "store"}
LONG = {"demo"}  # reads no argument worth it, and takes a minute
TEXTS = [
    "", " ", "-", "--", "x", "\u00e9", "\udcff", "a\udcfdb", "\u202e", "\n", "0", "-1", "1e400", "nan", "inf", "-inf",
    "9" * 30, "9" * 5000, "0x10", "1_0", "\u0663", "%s%n", "{}", "[", "]", "[]", "a=b", "=", "a=", ",", "1,2,3",
    "../..", "*", "[a-", "**", "a" * 300, "a/" * 3000, "hf://", "hf://org/m", "hf://org/m@", "hf://a/b/c", "org/m",
    "tinynet", "mlp", "linear", "digits", "cpu", "tensorrt", "jetson-orin", "onnx", "triton", "torch", "image", "text",
    "B", "B/", "C", "T", "R", "A", "G", "F", "B/model.onnx", "B/pocketzoo.json", "tiny.npz", "t.csv", "t.jsonl",
    "t.txt", "photos", "a.png", "key", "r.toml", "w.toml", "zoo.lock", "fifo", "null", "full", "nowhere/x", "a.png/x",
    "loop", "odd\udcfd", "empty", "nul", "x" * 255 + ".onnx", ".", "..", "tmp", "new", "new.onnx", "new.html",
    "~nobody/x",
]  # fmt: skip
NUMBERS = ["0", "1", "2", "3", "-1", "0.5", "1e-9", "1e9", "2147483648", "9223372036854775808", "1e400", "nan", "inf"]
VARIABLES = [
    "HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HTTP_PROXY",
    "HF_HUB_DOWNLOAD_TIMEOUT", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "HOME",
    "REQUESTS_CA_BUNDLE", "POCKETZOO_HOME", "POCKETZOO_PATIENCE", "POCKETZOO_PLUGINS", "POCKETZOO_NO_CACHE", "TMPDIR",
    "OMP_NUM_THREADS", "COLUMNS", "LINES", "TERM", "LANG", "LC_ALL", "NO_COLOR", "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "TZ", "PATH", "TRANSFORMERS_OFFLINE", "HF_HUB_VERBOSITY", "WORLD_SIZE",
    "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT",
]  # fmt: skip
VALUES = [
    "", " ", "x", "-1", "0", "1e400", "nan", "9" * 30, "\u00e9", "\udcff", "a b", "a\nb", "http://[", "http://", "://",
    "http://a:99999", "ftp://x", "socks5://127.0.0.1:1", "http://\udcff", "/nonexistent", "null", "fifo", "/", "a.png",
    "~nobody/x", "~", "a" * 5000, "[", "C", "POSIX", "xx_YY.utf9", "ascii", "dumb", "*", "hf_" + "a" * 30, ",", "a,b",
]  # fmt: skip


def scene(folder: Path) -> None:
    """Bundles, data of every kind, a key and recipes."""
    import numpy as np
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec
    from PIL import Image

    folder.mkdir()
    for name, case in BUNDLES.items():
        shutil.copytree(FROZEN / case / "bundle", folder / name)
    chance = np.random.default_rng(0)
    y = np.arange(45) % 3
    x = (chance.random((45, 32, 32, 3)) * 60 + y[:, None, None, None] * 80).astype("uint8")
    np.savez(folder / "tiny.npz", x=x, y=y)
    Image.fromarray(x[0]).save(folder / "a.png")
    for label in "ab":
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(x[i]).save(folder / "photos" / label / f"{i}.png")
    rows = [(i * 0.5, i, "ab"[i % 2]) for i in range(20)]
    (folder / "t.csv").write_text("u,v,label\n" + "".join(f"{u},{v},{w}\n" for u, v, w in rows))
    (folder / "t.jsonl").write_text("".join(f'{{"text": "t {i}", "label": "{w}"}}\n' for _, i, w in rows))
    (folder / "t.txt").write_text("one text\nand another\n")
    (folder / "r.toml").write_text(RECIPE)
    (folder / "w.toml").write_text(WHOLE)
    secret = ec.generate_private_key(ec.SECP256R1())
    (folder / "key").write_bytes(secret.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))


def odd_files(folder: Path) -> None:
    """What no command expects: a pipe, devices, a loop of links, a name that is not UTF-8."""
    os.mkfifo(folder / "fifo")
    with contextlib.suppress(PermissionError):  # root alone makes devices
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(folder / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    (folder / "loop").symlink_to("loop")
    (folder / "empty").mkdir()
    (folder / "nul").write_bytes(b"\x00" * 100)
    (folder / "odd\udcfd").mkdir()
    shutil.copyfile(folder / "a.png", folder / "odd\udcfd" / "a\udcff.png")
    (folder / "zoo.lock").write_text("version = 1\n")


def commands() -> dict[str, click.Command]:
    """Every command, by its words."""
    from pocketzoo.cli.main import cli

    found: dict[str, click.Command] = {}

    def walk(command: click.Command, words: str) -> None:
        if isinstance(command, click.Group):
            for name in command.commands:
                walk(command.commands[name], f"{words} {name}".strip())
        else:
            found[words] = command

    walk(cli, "")
    return found


def draw(chance: random.Random, folder: Path, *among: str) -> list[str]:
    """A command with values of all kinds for some of its parameters; some of those that it needs are missing."""
    table = {name: command for name, command in commands().items() if name not in LONG}
    if chance.random() < 0.25:  # one that works, but for a word or two of it
        words = list(chance.choice(MEANT))
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.randrange(1, len(words) + 1)
            words[at : at + chance.choice((0, 1))] = [chance.choice(TEXTS)]
        return safe(words)
    name = chance.choice(among or list(table))
    front, back = name.split(), []
    for parameter in table[name].params:
        if not isinstance(parameter, click.Option):
            number = chance.choice((1, 2, 5)) if parameter.nargs == -1 else 1
            back += [value(parameter, chance) for _ in range(number) if chance.random() < 0.95]
        elif chance.random() < (0.95 if parameter.required else 0.15):
            for _ in range(chance.choice((1, 1, 2)) if parameter.multiple else 1):
                front.append(chance.choice([*parameter.opts, *parameter.secondary_opts]))
                if not parameter.is_flag:
                    front.append(value(parameter, chance))
    return safe(front + (["--"] if chance.random() < 0.3 else []) + back)


def safe(words: list[str]) -> list[str]:
    """Without what no process can be given, and without the places of others."""
    return [word.replace("\0", "") for word in words]


def value(parameter: click.Parameter, chance: random.Random) -> str:
    """One value of a parameter: mostly of its type, sometimes of none."""
    kind: Any = parameter.type
    if chance.random() < 0.6:
        if isinstance(kind, click.Choice):
            return str(chance.choice(list(kind.choices)))
        if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
            return chance.choice(NUMBERS)
        if parameter.name in ("model", "models", "bundle", "name", "backbone"):
            return chance.choice([*BUNDLES, "B", "B", "tinynet", "mlp"])
        if parameter.name == "data":
            return chance.choice(["tiny.npz", "t.csv", "t.jsonl", "photos", "digits", "t.txt"])
        if parameter.name in ("target", "targets"):
            return chance.choice(["cpu", "tensorrt", "tensorrt-rtx", "jetson-orin", "openvino"])
        if parameter.name in ("out", "plot", "log"):
            return chance.choice(["new", "new.onnx", "new.html", "new.svg", "new.png", "B", "full", "fifo"])
    return chance.choice(TEXTS)


def meant(chance: random.Random, *, crowd: bool = False) -> list[str]:
    """A command that works where nothing is done to it; of a crowd one that writes."""
    return list(chance.choice([words for words in MEANT if not crowd or words[0] in WRITE]))


def variables(chance: random.Random) -> dict[str, str]:
    """One to three variables."""
    return {chance.choice(VARIABLES): chance.choice(VALUES) for _ in range(chance.choice((1, 1, 2, 3)))}


def left(folder: Path, crowd: bool) -> list[str]:
    """What is wrong with what was left: temporaries, and bundles that do not verify."""
    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.core.files import collect_temporaries
    from pocketzoo.zoo.bundles.bundle import read_bundle

    found = []
    for place in {path.parent for path in folder.rglob(".*")}:
        collect_temporaries(place)  # as the next command does: those of who was interrupted at the wrong moment
    for path in folder.rglob(".*"):
        if path.name.endswith((".pocketzoo.tmp", ".tmp")):
            found.append("a temporary is left: " + path.relative_to(folder).as_posix())
    for path in list(folder.rglob("pocketzoo.json")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.stat().st_mode & 0o700:
            continue
        if any(not file.lstat().st_mode & 0o700 for file in path.parent.iterdir()):
            continue  # forbidden on purpose
        try:
            read_bundle(path.parent)
        except PocketzooError as error:
            found.append(f"a bundle is torn: {path.parent.relative_to(folder)}: {error.message[:200]}")
    for name in ("null", "full", "fifo"):
        if (folder / name).exists() and stat.S_ISREG((folder / name).lstat().st_mode):
            found.append(f"{name} was replaced by a file")
    return found
