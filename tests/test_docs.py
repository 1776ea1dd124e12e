"""What the pages under docs/ tell users to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from pocketzoo.cli.main import cli
from pocketzoo.workflows.new_plugin import KINDS, new_plugin

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
COMMANDS = [
    (page.name, line.split("    #")[0].strip())
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("pocketzoo ")
]


def test_pages_show_commands():
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_and_its_options_exist(page, line):
    words = shlex.split(line)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf8")):
        assert (page.parent / link).exists(), link


PLUGINS = next(page for page in PAGES if page.name == "plugins.md").read_text("utf8")
# <!-- kind name file --> and the code of that file, as new-plugin writes it.
SHOWN = re.findall(r"<!-- (\S+) (\S+) (\S+) -->\n\n```python\n(.*?)```", PLUGINS, re.DOTALL)


@pytest.mark.parametrize(("kind", "name", "file", "code"), SHOWN, ids=[shown[2] for shown in SHOWN])
def test_the_code_of_plugins_is_what_new_plugin_writes(kind, name, file, code, tmp_path):
    """Which tests/workflows/test_new_plugin.py installs, and runs the conformance suite over."""
    folder = new_plugin(name, tmp_path / "made", kind=None if kind == "default" else kind)
    assert code == (folder / file).read_text("utf8")


def test_every_kind_of_plugin_is_shown():
    assert {kind for kind, *_ in SHOWN} == {"default", *KINDS} - {"backbone", "head"}
    assert PLUGINS.count("```python") == len(SHOWN), "code that no test runs"
