"""The whole command line as a reader of the fuzzer: files that it is given, and its own words."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from campaign import ROOT

FROZEN = ROOT / "tests" / "frozen" / "format2"
NUMBERS = b"u,v,label\n" + b"".join(b"%d.5,%d,%d\n" % (i, i * 2, i % 2) for i in range(10))
CODES = (None, 0, 1, 2, 3, 130)
TOML = b'summary = "x"\nbackbone = "tinynet"\n[fit]\nepochs = 1\n[export]\nto = ["onnx"]\n'


def command(folder: Path) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Files that the command line is given, and words of it, through all of the real one."""
    from pocketzoo.cli.main import cli

    for name, case in (("R", "regression"), ("T", "text-encoder"), ("A", "agent")):
        if not (folder / name).exists():
            shutil.copytree(FROZEN / case / "bundle", folder / name)
    places = {name: folder / name for name in ("x.txt", "x.csv", "x.jsonl", "r.toml", "zoo.lock", "labels.txt")}
    graph = FROZEN / "foreign" / "bundle" / "model.onnx"
    lines: list[tuple[str, list[str]]] = [
        ("x.txt", ["predict", "T", "x.txt"]), ("x.txt", ["predict", "R", "x.txt"]),
        ("x.csv", ["predict", "R", "x.csv"]),
        ("x.jsonl", ["predict", "R", "x.jsonl", "--json"]), ("x.csv", ["eval", "R", "--data", "x.csv"]),
        ("x.txt", ["eval", "R", "--data", "x.txt"]), ("r.toml", ["run", "r.toml", "--dry-run", "--data", "digits"]),
        ("zoo.lock", ["store", "prune", "--keep", "zoo.lock"]), ("zoo.lock", ["--offline", "pull", "--locked"]),
        ("", ["list", "?"]), ("", ["info", "?"]), ("", ["predict", "R", "--row", "?"]), ("", ["predict", "T", "?"]),
        ("", ["export", "R", "--to", "?"]), ("", ["new-plugin", "?", "-o", "plugin"]), ("", ["search", "--limit", "?"]),
        ("labels.txt", ["compress", str(graph), "--int8", "--dry-run", "--data", "x.csv", "--labels", "labels.txt"]),
    ]  # fmt: skip
    os.chdir(folder)
    null = open(os.devnull, "w")  # noqa: SIM115 - of this process

    def read(data: bytes) -> object:
        place, words = lines[data[0] % len(lines)] if data else lines[0]
        if place:
            places[place].write_bytes(data[1:])
        text = os.fsdecode(data[1:200]).replace("\0", "")
        with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            try:
                cli([text if word == "?" else word for word in words], prog_name="pocketzoo")
            except SystemExit as end:
                if end.code not in CODES:
                    raise RuntimeError(f"{words} ended with {end.code!r}") from end
        shutil.rmtree(folder / "plugin", ignore_errors=True)
        return None

    contents = {"x.txt": b"a text\n", "x.csv": NUMBERS, "x.jsonl": b'{"u": 1, "v": 2}\n', "r.toml": TOML,
                "labels.txt": b"a\nb\n", "zoo.lock": b"version = 1\n", "": b"1,2,3"}  # fmt: skip
    encodings = ("utf8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "shift_jis", "utf-32")
    valid = [bytes([i]) + contents[place] for i, (place, _) in enumerate(lines)]
    return valid + [bytes([i]) + "u,v,l\n\u00e9,1,2\n".encode(e, "replace") for i in range(6) for e in encodings], read
