"""Completion in the shell: the script that sets it up, and the names it offers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pocketzoo.cli.main import cli
from pocketzoo.cli.options import data_option
from pocketzoo.zoo.catalog.registry import list_specs
from pocketzoo.zoo.data.load_data import split_columns

SCRIPT = Path(sys.executable).with_name("pocketzoo")
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the script pocketzoo is not installed here")


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ((), "photos"),
        (("--group-by", "folder"), "photos?group=folder"),
        (("--group-by", "pattern=(.+)_[0-9]+"), "photos?group=pattern%3D%28.%2B%29_%5B0-9%5D%2B"),
        (("--label-column", "y", "--group-by", "column=day"), "photos?label=y&group=column%3Dday"),
    ],
)
def test_a_command_gets_what_a_source_is_with_its_data(given, reference):
    @click.command()
    @data_option(required=True)
    def command(data: str) -> None:
        click.echo(data)

    done = CliRunner().invoke(command, ["--data", "photos", *given])
    assert done.output == f"{reference}\n"
    path, columns = split_columns(reference)
    assert path == "photos"
    assert columns.group == (given[-1] if given else "")


def complete(words: str, **environment: str) -> list[str]:
    """What bash is offered after ``words``, the last of which is being typed."""
    env = {**os.environ, "_POCKETZOO_COMPLETE": "bash_complete", "COMP_WORDS": words,
           "COMP_CWORD": str(len(words.split(" ")) - 1), **environment}  # fmt: skip
    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=env, check=False)
    assert "Traceback" not in done.stderr
    return [line.split(",", 1)[1] for line in done.stdout.splitlines() if line.startswith("plain,")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_sets_completion_up(shell):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version, and there is no bash")
    env = {**os.environ, "_POCKETZOO_COMPLETE": f"{shell}_source"}
    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=env, check=True)
    assert "_POCKETZOO_COMPLETE" in done.stdout
    assert "pocketzoo" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pocketzoo info tin", ["tinynet", "tinynet-fashion-mnist"]),
        ("pocketzoo fit tiny", ["tinynet"]),
        ("pocketzoo compress tiny", ["tinynet"]),
        ("pocketzoo predict tiny", ["tinynet"]),
        ("pocketzoo bench tinynet tiny", ["tinynet"]),
        ("pocketzoo fit tinynet --head lin", ["linear"]),
        ("pocketzoo fit tinynet --data dig", ["digits"]),
        ("pocketzoo compress x --target tensorrt-r", ["tensorrt-rtx"]),
        ("pocketzoo check x --target jetson-o", ["jetson-orin"]),
        ("pocketzoo export x --to on", ["onnx"]),
        ("pocketzoo export x --target cp", ["cpu"]),
        ("pocketzoo info nothing-like-this", []),
        ("pocketzoo comp", ["compress"]),
        ("pocketzoo list --kind comp", ["compressor"]),
    ],
)
def test_names_are_offered(words, offered):
    assert complete(words, POCKETZOO_PLUGINS="") == offered


@pytest.mark.parametrize("command", ["eval x --target cp", "predict x y.png --target cp"])
def test_targets_are_offered_wherever_one_can_be_given(command):
    assert complete(f"pocketzoo {command}", POCKETZOO_PLUGINS="") == ["cpu"]


def test_commands_are_offered_in_the_order_of_the_work():
    assert complete("pocketzoo ")[:3] == ["list", "info", "plugins"]


def test_info_offers_names_of_every_kind():
    offered = set(complete("pocketzoo info ", POCKETZOO_PLUGINS=""))
    assert {"tinynet", "linear", "prune", "onnx", "cpu", "digits"} <= offered
    assert offered <= {e.name for e in list_specs()}


def test_files_are_offered_as_well():
    """A bundle is a path: the shell completes that itself when told "file"."""
    env = {**os.environ, "_POCKETZOO_COMPLETE": "bash_complete", "COMP_WORDS": "pocketzoo info ./b", "COMP_CWORD": "2"}
    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.splitlines() == ["file,./b"]


def test_two_plugins_with_one_name_do_not_disturb_the_shell(tmp_path):
    folder = tmp_path / "site"
    info = folder / "twin-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "twin.py").write_text("from pocketzoo.plugins.targets import pocketzoo_targets\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pocketzoo]\ntwin = twin\n")
    assert complete("pocketzoo export x --target cp", PYTHONPATH=str(folder), POCKETZOO_PLUGINS="twin") == []
    assert complete("pocketzoo fit tiny", PYTHONPATH=str(folder), POCKETZOO_PLUGINS="twin") == ["tinynet"]


@pytest.mark.parametrize(
    "line",
    [
        ("export", "BUNDLE", "-o", "x.engine"),
        ("export", "BUNDLE", "--to", "triton", "-o", "x.onnx"),
        ("report", "BUNDLE", "-o", "x.onnx"),
        ("profile", "BUNDLE", "--no-torch", "--seconds", "0", "-o", "x.json"),
        ("bench", "BUNDLE", "--plot", "x.onnx"),
        ("pack", "BUNDLE", "-o", "x.onnx"),
        ("sign", "BUNDLE", "--key", "key", "-o", "x.onnx"),
        ("fit", "tinynet", "--data", "digits", "-o", "x.safetensors"),
        ("compress", "BUNDLE", "--int8", "--data", "digits", "-o", "x.onnx"),
        ("pair", "a=BUNDLE", "b=BUNDLE", "-o", "x.onnx"),
        ("run", "digits-recommender", "-o", "x.html"),
        ("demo", "-o", "x.html"),
        ("new-plugin", "my-plugin", "-o", "x.py"),
        ("find-rate", "tinynet", "--data", "digits", "-o", "x.onnx"),
        ("data", "preview", "digits", "-o", "x.onnx"),
    ],
    ids=" ".join,
)
def test_nothing_is_written_by_a_name_that_says_otherwise(line, fitted, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*(word.replace("BUNDLE", str(fitted.path)) for word in line))
    assert (done.exit_code, len(done.stderr.strip().splitlines())) == (1, 2), done.stderr
    assert line[-1] in done.stderr
    assert list(tmp_path.iterdir()) == []


def whole_numbers() -> list[tuple[str, click.Parameter]]:
    """Every option that takes a whole number, with its command."""
    found: list[tuple[str, click.Parameter]] = []

    def walk(command: click.Command, words: str) -> None:
        for name, each in getattr(command, "commands", {}).items():
            walk(each, f"{words} {name}".strip())
        found.extend((words, p) for p in command.params if isinstance(p.type, click.types.IntParamType))

    walk(cli, "")
    return found


@pytest.mark.parametrize(("command", "option"), whole_numbers(), ids=lambda value: getattr(value, "name", value))
def test_no_whole_number_is_larger_than_libraries_count(command, option):
    numbers = (2**31, 2**63) if option.name != "max_params" else (2**63,)
    for number in (*numbers, 10**30):
        with pytest.raises(click.BadParameter, match="is not at most"):
            option.type.convert(str(number), option, None)
    with pytest.raises(click.BadParameter):
        option.type.convert("-1", option, None)
