from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import pytest

import pocketzoo
from pocketzoo.cli.listed_facts import FACTS
from pocketzoo.core.typed import to_plain
from pocketzoo.deploy.device.doctor import doctor
from pocketzoo.zoo.catalog.registry import KINDS, list_specs


def test_the_list_is_what_the_library_lists(run):
    result = run("list", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == [
        {"kind": e.kind, "name": e.name, "summary": e.spec.summary, "plugin": e.plugin} for e in pocketzoo.list()
    ]
    plain = run("list").stdout.splitlines()
    assert len(plain) == len(pocketzoo.list())
    assert ["backbone", "tinynet", "tinynet"] in [line.split()[:3] for line in plain]


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_can_be_listed(kind, run):
    found = json.loads(run("list", "--kind", kind, "--json").stdout)
    assert [f["name"] for f in found] == [e.name for e in list_specs(kind=kind)]
    assert {f["kind"] for f in found} == {kind}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_listed_with_its_facts_under_a_heading(kind, run):
    heading, *lines = run("list", "--kind", kind).stdout.splitlines()
    entries = list_specs(kind=kind)
    assert heading.split()[:2] == [kind, "plugin"]
    assert heading.endswith("summary")
    assert [line.split()[:2] for line in lines] == [[e.name, e.plugin] for e in entries]
    assert all(line.endswith(e.spec.summary) for line, e in zip(lines, entries, strict=True))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("task", ["regression", "values", "numbers", "yes"]), ("processor", ["image", "InputSpec", ".png"]),
     ("compressor", ["int8", "graph", "Int8Config"]), ("target", ["cpu", "fp32", "int8"]),
     ("decoder", ["class-scores", "image-classification"]), ("backbone", ["tinynet", "28", "map", "yes", "MIT"])],
)  # fmt: skip
def test_the_facts_of_a_kind_are_those_by_which_one_is_chosen(kind, words, run):
    (line,) = run("list", words[0], "--kind", kind).stdout.splitlines()[1:]
    assert set(words) <= set(line.split())


def test_there_are_facts_for_every_kind():
    assert set(FACTS) == set(KINDS)


@pytest.mark.parametrize("pattern", ["tiny*", "*tensorrt*", "int8", "[pl]*"])
def test_patterns_are_globs(pattern, run):
    found = json.loads(run("list", pattern, "--json").stdout)
    assert [(f["kind"], f["name"]) for f in found] == [(e.kind, e.name) for e in list_specs(pattern)]
    assert found


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("pattern", ["*", "nothing*"])
def test_listing_leaves_the_cycle_collector_as_it_was(enabled, pattern, run):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        run("list", pattern)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_part_of_a_name_is_answered_with_the_glob_that_finds_it(run):
    result = run("list", "tiny")
    assert result.exit_code == 1
    assert 'pocketzoo list "*tiny*"' in result.stderr
    assert run("list", "*tiny*").exit_code == 0
    assert run("list", "no such").stderr.splitlines()[1] == "hint:  see all of it: pocketzoo list"


@pytest.mark.parametrize("name", ["embedding", "linear", "tinynet"])
def test_info_has_no_line_for_what_there_is_none_of(name, run):
    assert "None" not in run("info", name).stdout


def test_info_shows_where_a_backbone_can_be_cut_and_what_it_gives_there(run):
    cuts = pocketzoo.info("tinynet")["backbone"]["cuts"]
    lines = [line.split(maxsplit=1) for line in run("info", "tinynet").stdout.splitlines()]
    for cut in cuts:
        assert [f"backbone.cuts.{cut['layer']}", " x ".join(map(str, cut["features"]["shape"]))] in lines


@pytest.mark.parametrize("name", ["tinynet", "linear", "prune", "int8", "cpu", "tensorrt-rtx", "onnx", "digits"])
def test_info_is_what_the_library_knows(name, run):
    result = run("info", name, "--json")
    assert json.loads(result.stdout) == json.loads(json.dumps(to_plain(pocketzoo.info(name))))
    plain = run("info", name)
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[0].split() == ["name", name]


def test_info_of_a_bundle_is_its_manifest(run, compressed):
    found = json.loads(run("info", compressed.path, "--json").stdout)
    last = to_plain(compressed.manifest.measurements[-1].measured)
    facts = {"bundle": str(compressed.path), **to_plain(compressed.manifest), "measured": last}
    assert found == json.loads(json.dumps(facts))
    plain = run("info", compressed.path).stdout
    assert "prune, low-rank, int8" in plain
    assert f"{compressed.manifest.parameters}" in plain
    assert len(plain.splitlines()) < 120  # plans and layers are left out


def test_plugins_are_what_the_library_lists(run):
    found = json.loads(run("plugins", "--json").stdout)
    assert found == [to_plain(p) for p in pocketzoo.plugins()]
    lines = run("plugins").stdout.splitlines()
    assert len(lines) == len(found)
    assert lines[0].split() == ["tinynet", "pocketzoo", "ok"]


BROKEN = "raise RuntimeError('a broken plugin')\n"


@pytest.fixture
def broken_plugin(tmp_path):
    folder = tmp_path / "site"
    info = folder / "broken-2.0.dist-info"
    info.mkdir(parents=True)
    (folder / "brokenplugin.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[pocketzoo]\nbroken = brokenplugin\n")
    return folder


def test_a_broken_plugin_is_shown_with_its_reason_and_takes_nothing_away(shell, broken_plugin):
    done = shell("plugins", "--json", path=broken_plugin)
    assert (done.returncode, done.stderr) == (0, "")
    found = {p["name"]: p for p in json.loads(done.stdout)}
    assert found["broken"] == {
        "name": "broken",
        "origin": "broken 2.0",
        "reason": "RuntimeError: a broken plugin",
        "partly": False,
    }
    plain = shell("plugins", path=broken_plugin).stdout
    assert "not in use: RuntimeError: a broken plugin" in plain
    assert shell("list", "tinynet", path=broken_plugin).returncode == 0


def test_a_plugin_can_be_turned_off(shell, broken_plugin):
    done = shell("plugins", "--json", path=broken_plugin, POCKETZOO_PLUGINS="")
    found = {p["name"]: p["reason"] for p in json.loads(done.stdout)}
    assert found["broken"] == "turned off by POCKETZOO_PLUGINS"


def test_doctor_prints_its_checks(run):
    found = json.loads(run("doctor", "--json").stdout)
    assert found == [to_plain(c) for c in doctor()]
    lines = run("doctor").stdout.splitlines()
    assert len(lines) == len(found)
    for line, check in zip(lines, found, strict=True):
        assert line.startswith("ok " if check["works"] else "-- ")
        assert check["name"] in line
        assert check["fix"] in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_characters_does_not_end_the_program(encoding, fitted_copy):
    from pocketzoo.zoo.bundles.manifest import MANIFEST

    path = fitted_copy.path / MANIFEST
    path.write_text(path.read_text("utf8").replace('"labels": [\n  "0"', '"labels": [\n  "Straße 漢字"'), "utf8")
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "pocketzoo", "info", str(fitted_copy.path)]
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Stra" in done.stdout


def test_a_closed_pipe_is_no_error(fitted):
    command = f"{sys.executable} -m pocketzoo info {fitted.path} --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
