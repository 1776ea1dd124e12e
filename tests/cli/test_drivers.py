"""Every command that takes a bundle, on a bundle of each driver: it works, or says in two lines why not."""

from __future__ import annotations

import json
import shlex
import shutil

import click
import numpy as np
import pytest
from artifactgraphs import STATES, WIDTH, encoders, listener, random

from pocketzoo.cli.main import cli
from pocketzoo.zoo.models.import_onnx import open_graph

DRIVERS = ("single", "stateful", "dual", "generate")
OK = ""
NO_TASK = "has no task"
NO_MODULE = "imported as an ONNX graph"
NO_TEXT = "does not generate text"
SEVERAL = "runs several graphs"
# What is typed, and for each driver what it says where it does not work.
TABLE: dict[str, tuple[str, str, str, str]] = {
    "info {b}": (OK, OK, OK, OK),
    "info {b} --provenance": (OK, OK, OK, OK),
    "verify {b}": (OK, OK, OK, OK),
    "eval {b} --data {data}": (NO_TASK, NO_TASK, NO_TASK, OK),
    "compress {b} --int8 --data {data} --dry-run": (OK, OK, OK, OK),
    "compress {b} --int8 --data {data} --keep-slower --accept --target tensorrt-rtx -o small": (OK, OK, OK, OK),
    "check {b} --target tensorrt-rtx": (OK, OK, OK, OK),
    "check small --target cpu": (OK, OK, OK, OK),
    "export {b} -o graph.onnx": (OK, OK, OK, OK),
    "export small -o small.onnx --target tensorrt-rtx": (OK, OK, OK, OK),
    "export {b} --precision fp16 --target tensorrt-rtx --data {data} -o half.onnx": (OK, OK, OK, OK),
    "export {b} --precision bf16 --target tensorrt-rtx -o brain.onnx": (OK, OK, OK, OK),
    "export small --precision fp8 --target tensorrt-rtx -o small8.onnx": (
        OK, OK, "small's image has no layer with kernels in fp8", OK,
    ),
    "export {b} --to triton -o repository": (OK, OK, OK, OK),
    "export {b} --to trtexec -o commands": (OK, OK, OK, OK),
    "pack {b} -o packed": (OK, OK, OK, OK),
    "verify packed": (OK, OK, OK, OK),
    "bench {b} small --seconds 0 --batch 1 --no-memory --save": (OK, OK, OK, OK),
    "bench {b} --seconds 0 --batch 1 --no-memory --runtime torch": (NO_MODULE, NO_MODULE, NO_MODULE, OK),
    "profile {b} --seconds 0 --no-torch": (OK, OK, OK, OK),
    "profile small --seconds 0 --no-torch --target tensorrt-rtx": (OK, OK, OK, OK),
    "predict {b} {file}": (OK, OK, OK, "writes text"),
    "report {b} small -o report.html": (OK, OK, OK, OK),
    "generate {b} abc --max-new-tokens 2": (NO_MODULE, NO_TEXT, NO_TEXT, OK),
    "play {b}": (NO_TASK, NO_TASK, NO_TASK, "text"),
    "fit {b} --data {data} -o fitted": ("is a bundle; fit takes a backbone",) * 4,
    "find-rate {b} --data {data}": ("is a bundle; fit takes a backbone",) * 4,
    "pair {b} {b}2 -o both": ("both have an input", SEVERAL, SEVERAL, SEVERAL),
    "sign {b} --key gone.pem": ("gone.pem is not a private key",) * 4,
    "push {b} acme/model": (*("license",) * 3, "needs a token"),
}  # fmt: skip
ELSEWHERE = {
    "list", "plugins", "new-plugin", "doctor", "open", "search", "pull", "lock", "update", "outdated", "store", "data",
    "fit-agent", "targets", "run", "demo",
}  # fmt: skip


def test_every_command_is_in_the_table():
    assert {line.split()[0] for line in TABLE} | ELSEWHERE == set(cli.commands)
    takes = {name for name in ELSEWHERE for p in cli.commands[name].params if isinstance(p, click.Argument)}
    assert takes <= {"list", "new-plugin", "open", "search", "pull", "lock", "update", "fit-agent", "run"}, (
        "none is a bundle"
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POCKETZOO_PLUGINS", "")
    return tmp_path


def made(driver: str, place, run, languages) -> tuple[str, str]:
    """The bundle as a folder of the driver's name; its data, and an argument of predict."""
    rows = range(24)
    if driver == "generate":
        shutil.copytree(languages["gpt2"], driver)
        (place / "texts.csv").write_text("text,label\n" + "\n".join(f"the model of {'ab' * (i % 5)},a" for i in rows))
        return "texts.csv", "words"
    if driver == "stateful":
        listener(place / "listener.onnx")
        shutil.copytree(open_graph(place / "listener.onnx", states=STATES).path, driver)
        np.savez("data.npz", piece=np.stack([random(6, WIDTH, seed=i) for i in rows]))
        return "data.npz", "data.npz"
    encoders(place)
    images, words = ([random(*shape, seed=i) for i in rows] for shape in ((1, 8, 8), (20,)))
    if driver == "dual":
        assert run("pair", "image.onnx", "words.onnx", "-o", driver).exit_code == 0
        np.savez("data.npz", image=np.stack(images), words=np.stack(words))
    else:
        shutil.copytree(open_graph(place / "words.onnx").path, driver)
        np.savez("data.npz", x=np.stack(words))
    return "data.npz", "data.npz"


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_each_command_works_or_says_why_not(driver, place, run, language_bundles):
    data, file = made(driver, place, run, language_bundles)
    shutil.copytree(driver, f"{driver}2")
    wrong = []
    for line, says in TABLE.items():
        typed = line.format(b=driver, data=data, file=file)
        done = run(*shlex.split(typed))
        expected = says[DRIVERS.index(driver)]
        lines = [each for each in done.stderr.splitlines() if each.startswith(("error:", "hint:"))]
        two = done.exit_code == 1 and [each.split(":")[0] for each in lines] == ["error", "hint"]
        if (done.exit_code == 0) != (expected == OK) or (expected and not (two and expected in lines[0])):
            wrong.append((typed, done.exit_code, done.stderr[-300:]))
    assert not wrong, "\n".join(map(str, wrong))
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    graphs = {"dual": ["image", "words"], "generate": []}.get(driver, ["model"])
    for name in ("graph", "half", "brain"):
        for graph in graphs:
            assert (f"{name}.onnx" if graph == "model" else f"{name}.{graph}.onnx") in files
    if driver == "dual":
        assert {"repository/dual-image/config.pbtxt", "repository/dual-words/1/model.onnx"} <= files
        assert {"commands/image/build.sh", "commands/words/model.onnx"} <= files
    if driver == "stateful":
        assert "sequence_batching" in (place / "repository/listener/config.pbtxt").read_text("utf8")
    assert json.loads(run("info", "packed", "--json").stdout)["driver"] == driver
