from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pocketzoo import __version__
from pocketzoo.cli.endings import show_error
from pocketzoo.cli.main import WHERE, cli, show_warning
from pocketzoo.core.errors import PocketzooError

# The order of the work: look around, make, ship.
ORDER = ["list", "info", "plugins", "new-plugin", "doctor", "open", "search", "pull", "lock", "update", "outdated",
         "store", "data", "find-rate", "fit", "eval", "compress", "pair", "fit-agent", "play", "generate", "targets",
         "check", "export", "pack", "bench", "profile", "predict", "report", "sign", "verify", "push", "run",
         "demo"]  # fmt: skip


def test_commands_are_listed_in_the_order_of_the_work(run):
    out = run("--help").stdout
    listed = re.findall(r"^  ([a-z-]+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert listed == ORDER
    assert list(cli.commands) == ORDER


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", ["", *ORDER])
def test_help_is_one_screen(command, flag, run):
    result = run(*([command] if command else []), flag)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert len(lines) <= (40 if command else 44)  # a line for each command
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Usage: pocketzoo")


@pytest.mark.parametrize("command", ORDER)
def test_every_command_and_option_has_a_help_text(command):
    found = cli.commands[command]
    assert found.help
    assert found.help[0].isupper()
    assert found.help.splitlines()[0].endswith(".")
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help.rstrip("].").strip()


@pytest.mark.parametrize("command", ORDER)
def test_the_short_help_is_not_cut_off(command, run):
    line = next(x for x in run("--help").stdout.splitlines() if x.startswith(f"  {command} "))
    assert not line.endswith("...")


@pytest.mark.parametrize("command", ORDER)
def test_the_list_says_what_the_command_says_itself(command):
    first, _, _ = cli.commands[command].help.partition("\n\n")
    assert WHERE[command][1] == " ".join(first.split())


def test_options_that_mean_the_same_are_spelt_the_same():
    """--data, --seed, --skip-bad, --json, -o: one help text and one default wherever they are."""
    seen: dict[str, set] = {}
    for command in cli.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name in ("data", "seed", "skip_bad", "as_json"):
                seen.setdefault(parameter.name, set()).add((tuple(parameter.opts), parameter.help, parameter.default))
    assert set(seen) == {"data", "seed", "skip_bad", "as_json"}
    assert all(len(forms) == 1 for forms in seen.values()), seen


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_printed(flag, run):
    result = run(flag)
    assert (result.exit_code, result.stdout) == (0, f"pocketzoo {__version__}\n")


def test_no_command_shows_the_help(run):
    result = run()
    assert "Usage: pocketzoo" in result.output
    assert "demo" in result.output


@pytest.mark.parametrize("arguments", [["nonsense"], ["list", "--nonsense"], ["fit"], ["fit", "tinynet"],
                                       ["compress"], ["export"], ["bench"], ["predict"], ["predict", "tinynet"],
                                       ["list", "--kind", "nonsense"], ["report"], ["verify"],
                                       ["new-plugin"]])  # fmt: skip
def test_a_wrong_call_shows_the_usage_and_exits_with_two(arguments, run):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: pocketzoo" in result.stderr
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("message", "hint", "lines"),
    [
        ("it broke", "mend it", ["error: it broke", "hint:  mend it"]),
        ("two\nlines", "and\n  more", ["error: two lines", "hint:  and more"]),
        ("no hint", "", ["error: no hint"]),
        ("strange ü 漢字 %s {x}", "100% [bold]", ["error: strange ü 漢字 %s {x}", "hint:  100% [bold]"]),
    ],
)
def test_an_error_is_one_line_and_its_hint_another(message, hint, lines, capsys):
    show_error(PocketzooError(message, hint))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == lines


def test_a_module_is_a_command_as_well(shell):
    done = shell("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pocketzoo {__version__}\n", "")


def test_leaving_waits_for_no_thread_and_loses_no_output():
    script = (
        "import threading; from pocketzoo.cli.endings import leave; "
        "threading.Thread(target=threading.Event().wait).start(); print('said'); leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (3, "said\n")


def test_an_old_name_is_a_note_on_stderr(shell, tmp_path):
    recipe = tmp_path / "old.toml"
    recipe.write_text('[[step]]\nkind = "heal"\nratio = 3\n')
    done = shell("compress", "tinynet", "-r", recipe, "--data", "digits", "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[:2] == [
        "note:  'heal' was renamed to 'distill'; the old name works in this release only",
        "error: no field of DistillConfig is called 'ratio'",
    ]


def test_any_other_warning_is_shown_as_python_shows_it(capsys):
    show_warning(UserWarning("mind the gap"), UserWarning, "x.py", 3)
    assert capsys.readouterr().err == "x.py:3: UserWarning: mind the gap\n"


@pytest.mark.parametrize("before", [None, "0"])
def test_what_is_switched_off_for_a_command_is_as_it_was_after_it(before, monkeypatch):
    names = ("HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY", "POCKETZOO_NO_CACHE")
    seen = {}
    monkeypatch.setattr("pocketzoo.cli.catalog.doctor.callback", lambda **_: seen.update(os.environ))
    for name in names:
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    ended = CliRunner().invoke(cli, ["--offline", "--no-cache", "doctor"])
    assert ended.exit_code == 0, ended.output
    assert [seen[name] for name in names] == ["1"] * 3
    assert [os.environ.get(name) for name in names] == [before] * 3
