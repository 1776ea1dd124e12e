"""What the command line prints, word for word, where it does not depend on the machine: help, listings, errors.

tests/golden has the texts. After a change on purpose, write them anew and look at the difference:

    python -m pytest -n 0 tests/test_golden.py --update-golden
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from frozenbundles import FROZEN
from PIL import Image

from pocketzoo.cli.main import cli
from pocketzoo.zoo.bundles.manifest import FORMAT
from pocketzoo.zoo.catalog.registry import default_registry

NOW = FROZEN / f"format{FORMAT}"
BUNDLES = {"digits": "image-classifier", "small": "compressed", "houses": "regression", "writer": "gpt2",
           "player": "agent", "sentences": "text-encoder", "theirs": "foreign"}  # fmt: skip
RECIPES = {
    "ratio.toml": '[[step]]\nkind = "prune"\nratoi = 0.3\n',
    "kind.toml": '[[step]]\nkind = "purne"\n',
    "range.toml": '[[step]]\nkind = "prune"\nratio = 3\n',
    "order.toml": '[[step]]\nkind = "int8"\n[[step]]\nkind = "prune"\n',
    "table.toml": '[[steps]]\nkind = "prune"\n',
    "empty.toml": "",
    "words.toml": "kind: prune\n",
}
# A line each; they are run in a folder with BUNDLES, RECIPES, data.npz, houses.csv, digit.png, theirs.onnx, notes.txt.
MISTAKES = """
list nonsense*
list *net --kind bakbone
info tinynte
info gone/model
new-plugin My_Plugin
open
open gone.onnx -o new
open theirs.onnx --size 3x4x5 -o new
open theirs.onnx --axis t=long -o new
open theirs.onnx --set x=half -o new
open theirs.onnx --mean 0.5 -o new
open theirs.onnx --decoder classes -o new
open theirs.onnx --task image-clasification -o new
open theirs.onnx --axis time=3 -o new
open theirs.onnx --set y=3 -o new
info small --size 32
pull tinynet
pull hf://acme/tiny/more
pull hf://acme/tiny@main#part --locked
lock nonsense
update
outdated
store ls extra
data preview gone -o sheet.png
data preview
find-rate tinynte --data data.npz
fit tinynte --data data.npz -o out
fit tinynet --head liner --data data.npz -o out
fit tinynet --cut stage2 --data data.npz -o out
fit tinynet --data digts -o out
fit tinynet --data gone -o out
fit tinynet --data notes.txt -o notes.txt
fit tinynet --data data.npz -o out --epochs 0
fit tinynet --data data.npz -o out --head-option hidden
fit tinynet --data data.npz -o out --head mlp --head-option hiden=3
fit tinynet --data data.npz -o out --input-size 3x
fit small --data data.npz -o out
fit tinynet --data houses.csv -o out
eval gone --data data.npz
eval digits --data gone.npz
eval digits --data data.npz --target cup
eval sentences --data data.npz
eval houses --data data.npz
compress digits -o out --data data.npz
compress digits --int8 --data data.npz
compress small -o out --int8 --data data.npz
compress digits -o out --prune 1.5 --data data.npz
compress digits -o out --low-rank 0 --data data.npz
compress digits -o out --int8 --data data.npz --target tensort
compress digits -o out --int8 --data data.npz --max-drop 1
compress theirs.onnx -o out --prune 0.3 --data data.npz
compress digits -o out -r ratio.toml --data data.npz
compress digits -o out -r kind.toml --data data.npz
compress digits -o out -r range.toml --data data.npz
compress digits -o out -r order.toml --data data.npz
compress digits -o out -r table.toml --data data.npz
compress digits -o out -r empty.toml --data data.npz
compress digits -o out -r words.toml --data data.npz
compress digits -o out -r gone.toml --data data.npz
compress digits -o notes.txt --int8 --data data.npz
pair theirs.onnx -o out
pair theirs.onnx theirs.onnx -o out
fit-agent Nowhere-v0 -o out
play digits
play player --episodes 0
play houses
generate digits "the model"
generate writer "the model" --beams 0
check gone --target tensorrt
check digits --target tensort
check notes.txt --target tensorrt
export digits --to onx -o m.onnx
export digits --target cup -o m.onnx
export gone -o m.onnx
export digits --to onnx -o notes.txt/m.onnx
pack digits -o notes.txt
pack gone -o out
bench digits gone
bench digits --batch 0
bench digits houses
profile gone
predict digits gone.png
predict digits notes.txt
predict digits digit.png --target rtx
predict sentences digit.png
predict small digit.png --provider cdua
report gone -o r.html
sign digits --key gone.pem
verify gone
verify digits --key gone.pem
push gone acme/out
run gone
run ratio.toml
plugins tinynet
doctor --fix
search small --limit none
targets cpu
demo digits
nonsense
"""
# What these answer depends on the machine or takes training: only the keys are held, and what kind of value each has.
MEASURED = """
fit mlp --backbone-option input=1,28,28 --data data.npz --epochs 1 -o fitted
fit mlp --backbone-option input=3 --head regression --data houses.csv --epochs 1 -o valued
find-rate mlp --backbone-option input=1,28,28 --data data.npz --steps 20
eval digits --data data.npz
eval houses --data houses.csv
compress digits --int8 --data data.npz --accept --keep-slower -o less
compress digits --int8 --data data.npz --dry-run
bench digits small --data data.npz --seconds 0 --batch 1 --no-memory
bench writer --seconds 0 --batch 1 --no-memory
profile small --seconds 0 --no-torch
profile fitted --seconds 0 --torch
predict small shown.png --top 2
play player --episodes 1
generate writer "the model" --max-new-tokens 2
export small -o m.onnx
pack small -o packed
doctor
"""
MACHINE = ("builds", "runs", "why", "fix")  # of a target: what this machine can do for it


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """A current folder with bundles, recipes and data, a home of its own, no plugin that is installed; 80 columns."""
    for name, case in BUNDLES.items():
        shutil.copytree(NOW / case / "bundle", tmp_path / name)
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text)
    for source in ("image-classifier/data.npz", "regression/houses.csv", "foreign/theirs.onnx"):
        shutil.copy(NOW / source, tmp_path)
    (tmp_path / "notes.txt").write_text("buy bread\n")
    (tmp_path / "digit.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POCKETZOO_PLUGINS", "")
    monkeypatch.setenv("COLUMNS", "80")
    default_registry.cache_clear()  # which keeps what it found when it was first asked
    yield tmp_path
    default_registry.cache_clear()


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command with those of its group behind it."""
    yield words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        else:
            yield *words, name


def test_help(run, place, golden):
    golden("help.txt", "\n".join(block(run, *words, "--help") for words in commands(cli)))


def test_mistakes(run, place, golden):
    """Each ends in what is wrong and what to do, or in the usage; and writes nothing."""
    before = sorted(place.rglob("*"))
    lines = [line for line in MISTAKES.splitlines() if line]
    assert {line.split()[0] for line in lines} == {*cli.commands, "nonsense"}
    golden("mistakes.txt", "\n".join(block(run, *shlex.split(line), code=True) for line in lines))
    assert [path for path in sorted(place.rglob("*")) if "home" not in path.parts] == before


def block(run: Any, *arguments: str, code: bool = False) -> str:
    """A command as it is typed, and what it prints; "/" is the current folder."""
    done = run(*arguments)
    typed = " ".join(["$ pocketzoo", *(f'"{a}"' if " " in a or not a else a for a in arguments)])
    ends = f"[exit {done.exit_code}]\n" if code else ""
    return f"{typed}\n{done.stdout}{done.stderr}{ends}".replace(f"{Path.cwd()}/", "/")


def printed(run: Any, *arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, ""), arguments
    return json.loads(done.stdout)


def test_listings(run, place, golden):
    found = {
        "plugins": [each for each in printed(run, "plugins") if each["origin"] == "pocketzoo"],
        "list": printed(run, "list"),
        "list tiny* --kind backbone": printed(run, "list", "tiny*", "--kind", "backbone"),
        "targets": [{**each, **dict.fromkeys(MACHINE, "...")} for each in printed(run, "targets")],
        "store ls": printed(run, "store", "ls"),
        "check small --target cpu": printed(run, "check", "small", "--target", "cpu"),
    }
    golden("listings.json", as_text(found))


def test_infos(run, place, golden):
    """Of every registered name; targets are listed whole elsewhere."""
    names = [(each["kind"], each["name"]) for each in printed(run, "list") if each["kind"] != "target"]
    golden("infos.json", as_text({f"{kind} {name}": printed(run, "info", name) for kind, name in names}))


def test_bundles(run, place, golden):
    """What is said of bundles."""
    lines = [["info", name] for name in BUNDLES] + [["verify", name] for name in BUNDLES]
    lines.append(["info", "--provenance", "small"])
    golden("bundles.txt", "\n".join(block(run, *line) for line in lines))


@pytest.mark.slow
def test_what_is_measured_has_the_same_keys(run, place, golden):
    Image.fromarray(np.load("data.npz")["x"][0]).save("shown.png")
    found = {}
    for line in filter(None, MEASURED.splitlines()):
        done = run(*shlex.split(line), "--json")
        assert done.exit_code == 0, (line, done.stderr)
        found[line] = form(json.loads(done.stdout))
    golden("forms.json", as_text(found))


def form(value: Any) -> Any:
    """The kinds of the values in JSON; a list is what its elements are, each once."""
    if isinstance(value, dict):
        return {key: form(each) for key, each in value.items()}
    if isinstance(value, list):
        return [json.loads(each) for each in dict.fromkeys(json.dumps(form(each)) for each in value)]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def as_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
