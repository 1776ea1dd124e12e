"""A new plugin is a whole package: it installs, is listed, passes its own test; what cannot be one is refused."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pocketzoo
from pocketzoo.core.errors import PluginError, StorageError, UnknownNameError
from pocketzoo.workflows.new_plugin import KINDS, TEMPLATE, TEMPLATES, new_plugin, templates
from pocketzoo.zoo.catalog import kinds
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(pocketzoo.__file__).parents[1]


def python(*arguments: object, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(p) for p in (site, ROOT) if p)
    # The suite's option comes by an entry point of pocketzoo; this tree may not be the one that is installed.
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_PLUGINS": "pocketzoo.testing.options"}
    for name in [name for name in environment if name.startswith(("PYTEST_XDIST", "PYTEST_CURRENT", "POCKETZOO_P"))]:
        del environment[name]
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_it_writes_a_package(tmp_path):
    folder = new_plugin("my-backbone", tmp_path / "made")
    assert folder == tmp_path / "made"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "README.md", "pyproject.toml", "my_backbone/__init__.py", "my_backbone/module.py", "tests/test_plugin.py"
    }  # fmt: skip
    for path in folder.rglob("*.*"):
        text = path.read_text("utf8") if path.is_file() else ""
        assert "@name@" not in text
        assert "@module@" not in text
        if path.suffix == ".py":
            assert ast.get_docstring(ast.parse(text))
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf8"))
    assert project["project"]["entry-points"]["pocketzoo"] == {"my-backbone": "my_backbone"}
    assert project["project"]["dependencies"] == [f"pocketzoo[compress]>={pocketzoo.__version__}"]


def test_every_template_is_used():
    used = {path for kind in (None, *KINDS) for path in templates(kind)}
    assert used | {TEMPLATE / "shared" / "work_on_it.md.in"} == {path for path in TEMPLATE.rglob("*") if path.is_file()}


# Kind -> what a package of it declares besides.
DECLARES = {
    None: {"backbone", "head"}, "backbone": {"backbone"}, "head": {"head"}, "task": {"task", "decoder", "head"},
    "processor": {"processor", "backbone"}, "backend": {"backend", "target"}, "compressor": {"compressor"},
    "target": {"target"},
}  # fmt: skip


@pytest.mark.parametrize("kind", DECLARES)
def test_a_package_of_each_kind_declares_what_it_says(kind, tmp_path, monkeypatch):
    module = f"zz_{kind or 'default'}"
    folder = new_plugin(module.replace("_", "-"), tmp_path / "made", kind=kind)
    monkeypatch.syspath_prepend(folder)
    with (folder / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["description"] == f"{TEMPLATES[kind or ''][0]} for pocketzoo"
    text = "".join(path.read_text("utf8") for path in folder.rglob("*.*") if path.is_file())
    assert not re.findall(r"@[a-z ]+@", text)
    assert "## Work on it" in (folder / "README.md").read_text("utf8")
    registry = Registry(create_manager(points=[], extra=[import_module(module)]))
    assert registry.plugins()[-1].reason == ""
    declared = [entry for entry in registry.find() if entry.plugin == module]
    assert {entry.kind for entry in declared} == DECLARES[kind]
    assert all(entry.name.startswith(module.replace("_", "-")) for entry in declared)


def test_there_is_a_package_for_what_plugins_are_for():
    assert set(KINDS) == set(DECLARES) - {None}
    assert set(KINDS) == set(kinds.KINDS) - {"decoder", "exporter", "dataset", "loader"}


def test_a_kind_that_is_none_is_refused(tmp_path, refused):
    with refused(UnknownNameError, "there is no package of a 'taks' to start from", hint="did you mean 'task'?"):
        new_plugin("my-task", tmp_path / "out", kind="taks")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "kind"), [("cpu", "target"), ("low-rank", "compressor"), ("linear", "head")])
def test_the_name_of_what_ships_is_refused(name, kind, tmp_path, refused):
    with refused(PluginError, "reserved by pocketzoo"):
        new_plugin(name, tmp_path / "out", kind=kind)


def test_by_default_the_folder_is_called_as_the_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_plugin("my-backbone") == Path("my-backbone")
    assert (tmp_path / "my-backbone" / "pyproject.toml").is_file()


def test_an_empty_folder_is_filled(tmp_path):
    assert new_plugin("my-backbone", tmp_path) == tmp_path
    assert (tmp_path / "README.md").is_file()


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_not_overwritten(there, tmp_path, refused):
    out = tmp_path / "out"
    if there == "folder":
        out.mkdir()
    keep = out / "keep.txt" if there == "folder" else out
    keep.write_text("mine")
    with refused(PluginError, f"{out} exists and is not empty", hint="-o"):
        new_plugin("my-backbone", out)
    assert keep.read_text() == "mine"
    assert list(tmp_path.rglob("*.toml")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, refused):
    (tmp_path / "file").touch()
    with refused(StorageError, "cannot write", hint="-o"):
        new_plugin("my-backbone", tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "cannot be called") for name in ("", "A", "my_backbone", "1net", "-a", "a-", "a--b", "a.b", "../a",
                                                  "a b", "net\n", "größe")),
        ("a" * 41, "too long"),
        ("class", "a Python keyword"),
        ("json", "a Python keyword"),
        ("tinynet", "reserved by pocketzoo"),
        ("pocketzoo", "reserved by pocketzoo"),
        ("torch", "installed already"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_used_is_refused(name, text, tmp_path, refused):
    with refused(PluginError, text):
        new_plugin(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(st.from_regex(r"zz[a-z0-9]{0,6}(-[a-z0-9]{1,5}){0,3}", fullmatch=True))
def test_any_other_name_makes_python_that_parses(tmp_path_factory, name):
    folder = new_plugin(name, tmp_path_factory.mktemp("out") / "p")
    for path in folder.rglob("*.py"):
        compile(path.read_text("utf8"), str(path), "exec")
    assert name in tomllib.loads((folder / "pyproject.toml").read_text("utf8"))["project"]["entry-points"]["pocketzoo"]


def test_the_command_writes_it_and_says_what_next(run, tmp_path):
    result = run("new-plugin", "my-backbone", "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"wrote {tmp_path / 'out'}" in result.stdout
    assert f'pip install --editable "{tmp_path / "out"}[test]"' in result.stdout
    again = run("new-plugin", "my-backbone", "-o", tmp_path / "out")
    assert again.exit_code == 1
    assert again.stderr.startswith("error: ")


@pytest.mark.slow
def test_it_installs_is_listed_and_passes_its_own_test(tmp_path):
    folder, site = new_plugin("my-backbone", tmp_path / "source"), tmp_path / "site"
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = python(*pip, "--no-index", "--target", site, folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = python("-m", "pocketzoo", "list", "my-backbone*", cwd=tmp_path, site=site)
    assert [line.split()[:3] for line in listed.stdout.splitlines()] == [
        ["backbone", "my-backbone", "my-backbone"],
        ["head", "my-backbone-max", "my-backbone"],
    ], listed.stderr
    plugins = python("-m", "pocketzoo", "plugins", cwd=tmp_path, site=site).stdout
    assert ["my-backbone", "my-backbone", "0.1.0", "ok"] in [line.split() for line in plugins.splitlines()]
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, site=site)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert tested.stdout.splitlines()[-1].startswith("1 passed")
    suite = ["-m", "pytest", "--pyargs", "pocketzoo.testing", "--plugin", "my-backbone", "-q", "-p", "no:cacheprovider"]
    checked = python(*suite, "-k", "not exports and not survives", cwd=tmp_path, site=site).stdout
    assert int(checked.splitlines()[-1].split(" passed")[0]) > 25, checked


def as_installed(folder: Path, name: str) -> Path:
    """What pip leaves behind, in the folder itself."""
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[pocketzoo]\n{name} = {name.replace('-', '_')}\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_each_kind_passes_its_own_tests_and_the_conformance_suite(kind, tmp_path):
    name = f"zz-{kind}"
    folder = as_installed(new_plugin(name, tmp_path / "source", kind=kind), name)
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, site=folder)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
    assert "skipped" not in tested.stdout.splitlines()[-1]


@pytest.mark.slow
def test_it_is_fitted_and_compressed_as_its_readme_says(tmp_path):
    """On digits, which are smaller and grey: the input spec turns any image into what it reads."""
    folder = new_plugin("my-backbone", tmp_path / "source")
    as_installed(folder, "my-backbone")
    code = (
        "import pocketzoo; from pocketzoo.compress.configs import *\n"
        "pocketzoo.fit('my-backbone', 'fitted', head='my-backbone-max', data='digits', epochs=3)\n"
        "steps = [PruneConfig(), Int8Config()]\n"
        "small = pocketzoo.compress('fitted', 'small', data='digits', steps=steps, samples=16)\n"
        "print(small.manifest.metrics)\n"
    )
    done = python("-c", code, cwd=tmp_path, site=folder)
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout
