"""Nothing foreign reaches a terminal as it is, and a plugin that ends the program is an error of two lines."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

import pocketzoo.cli
from pocketzoo.cli.echo import echo
from pocketzoo.cli.endings import endings
from pocketzoo.cli.main import cli
from pocketzoo.cli.render import print_columns, print_json

EVIL = "a\x1b[31m\u202eb\x9bc\x07\rd\U000e0041\n99% dog"


def test_one_file_writes_and_no_other():
    for path in Path(pocketzoo.cli.__file__).parent.glob("*.py"):
        if path.name != "echo.py":
            assert not re.search(r"click\.s?echo\(|(?<![.\w])print\(", path.read_text("utf8")), path.name


def test_columns_and_lines_are_written_out(capsys):
    print_columns([[EVIL, "x"]])
    echo(EVIL, mark="error:", color="red")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == r"a\x1b[31m\u202eb\x9bc\x07\x0dd\U000e0041\n99% dog  x"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\U000e0041]", out)


def test_json_keeps_its_strings(capsys):
    print_json({"label": EVIL, EVIL: 1})
    out = capsys.readouterr().out
    assert json.loads(out) == {"label": EVIL, EVIL: 1}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\U000e0041]", out)


@pytest.mark.parametrize("line", [["check", EVIL, "--target", "cpu"], ["info", EVIL], [EVIL], ["list", f"--{EVIL}"]])
def test_what_was_typed_is_written_out_in_errors(line):
    done = CliRunner().invoke(cli, line)
    assert done.exit_code in (1, 2)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\U000e0041]", done.output)


@pytest.mark.parametrize("code", [0, 3, "bye", None])
def test_a_plugin_that_ends_the_program_is_broken(code, capsys):
    theirs = types.ModuleType("their_plugin")
    exec("import sys\ndef forward(code): sys.exit(code)", vars(theirs))
    with pytest.raises(SystemExit) as ended, endings():
        theirs.forward(code)
    assert ended.value.code == 1
    assert "their_plugin ended the program" in capsys.readouterr().err


def test_our_own_exit_codes_stay():
    with pytest.raises(SystemExit) as ended, endings():
        exec("import sys; sys.exit(3)", {"__name__": "pocketzoo.cli.targets", "sys": sys})
    assert ended.value.code == 3
