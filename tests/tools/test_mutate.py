"""The tool that breaks code on purpose, on a toy project whose gaps are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mutants import mutants_of  # noqa: E402
from mutate import EQUIVALENT, draw  # noqa: E402

TOY = '''"""Toy."""


def larger(a: int, b: int) -> int:
    """Of two: 1 or 2."""
    return max(a, b)


def lonely(a):
    return twice(a)
'''
TEST = """
from toy.zoo.pair import larger

def test_larger():
    assert (larger(1, 2), larger(2, 1)) == (2, 2)
"""


def changes(source: str) -> dict[str, set[str]]:
    """Operator -> lines after the change."""
    found: dict[str, set[str]] = {}
    for mutant in mutants_of("x.py", source.encode()):
        found.setdefault(mutant.operator, set()).add(mutant.after)
    return found


@pytest.mark.parametrize(
    ("source", "operator", "after"),
    [
        ("a < b", "comparison", {"(a <= b)", "(a >= b)"}),
        ("a == b", "comparison", {"(a != b)"}),
        ("a is not None", "comparison", {"(a is None)"}),
        ("a in b", "comparison", {"(a not in b)"}),
        ("a + b * c", "arithmetic", {"(a - b * c)", "a + (b / c)"}),
        ("a += 2", "arithmetic", {"a -= 2"}),
        ("a and b", "and <-> or", {"(a or b)"}),
        ("not a", "drop not", {"a"}),
        ("f(-a)", "drop minus", {"f(a)"}),
        ("x = 2", "constant", {"x = 3", "x = 1"}),
        ("x = True", "constant", {"x = False"}),
        ("x = 0.5", "constant", {"x = (1.5)", "x = (-0.5)"}),
        ("f(a, b)", "swap arguments", {"(f(b, a))"}),
        ("f(a, b=c, d=e)", "drop argument", {"(f(a, d=e))", "(f(a, b=c))"}),
        ("{'a': b, 'c': d}", "drop entry", {"({'c': d})", "({'a': b})"}),
        ("a[b:c]", "slice", {"(a[b + 1:c])", "(a[b:c + 1])"}),
        ("a[:, b:]", "slice", {"(a[:, b + 1:])"}),
        ("min(a, b)", "min -> max", {"(max(a, b))"}),
        ("a.any()", "any -> all", {"(a.all())"}),
        ("f(a)", "remove statement", {"pass"}),
        ("if a: b()", "negate condition", {"if (not (a)): b()"}),
        ("[a for a in b if a]", "negate condition", {"[a for a in b if (not (a))]"}),
        ("for a in b:\n    continue", "continue -> break", {"break"}),
        ("def f():\n    return a", "return nothing", {"return None"}),
        ("def f():\n    a()\n    b()", "return early", {"return None"}),
    ],
)
def test_what_each_operator_makes(source, operator, after):
    assert changes(source).get(operator) == after


@pytest.mark.parametrize(
    "source",
    [
        '"""1 + 2"""',
        "import a",
        "def f(a: 1 | 2) -> 3: ...",
        "x: 1 | 2",
        "if TYPE_CHECKING:\n    x = 1",
        'x = f"{1 + 2}"',
        "@f(1)\ndef g(): ...",
        "X = Y[1]",
        "__all__ = [1]",
        'x = "a"',
    ],
)
def test_what_only_readers_see_is_left_alone(source):
    assert changes(source) == {}


def test_zip_may_be_lax():
    """Its ``strict`` is an assertion: nothing depends on it where the code is right."""
    assert changes("x = zip(a, b, strict=True)") == {"swap arguments": {"x = (zip(b, a, strict=True))"}}


def test_the_bytes_around_a_change_stay():
    source = "# é\nx = 'é', 3  # why\n".encode()
    assert {m.applied(source).decode() for m in mutants_of("x.py", source)} == {
        "# é\nx = 'é', 4  # why\n",
        "# é\nx = 'é', 2  # why\n",
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """toy/zoo/pair.py with a test that leaves one change unnoticed, and nothing for what is not called."""
    (tmp_path / "toy" / "zoo").mkdir(parents=True)
    (tmp_path / "tests" / "zoo").mkdir(parents=True)
    (tmp_path / "toy" / "zoo" / "pair.py").write_text(TOY)
    (tmp_path / "tests" / "zoo" / "test_pair.py").write_text(TEST)
    (tmp_path / "toy" / "zoo" / "bare.py").write_text("def twice(a):\n    return a * 2\n")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow: long"]\n')
    return tmp_path


def test_a_seed_draws_the_same_and_another_draws_others(project):
    one, same, other = (draw(project, "toy", 6, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert len(one) == 6
    assert len(draw(project, "toy", 1000, 1)) == len({(m.start, m.end, m.file) for m in draw(project, "toy", 1000, 1)})
    assert {m.file for m in draw(project, "toy", 1000, 1, "zoo/bare*")} == {"zoo/bare.py"}


def run(project: Path, *options: str) -> dict:
    out = project / "mutants.json"
    line = [sys.executable, str(ROOT / "tools" / "mutate.py"), "--root", str(project), "--package", "toy"]
    done = subprocess.run([*line, "--out", str(out), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def test_exactly_what_the_tests_miss_survives(project):
    """``larger`` is held by its test, but for the order of what is given to ``max``; ``lonely`` is never called."""
    found = run(project, "--count", "1000", "--seed", "1", "--only", "zoo/pair.py")
    wanted = {
        (6, "return (min(a, b))"): "noticed",
        (6, "return (max(b, a))"): "survived",
        (6, "return None"): "noticed",
        (10, "return None"): "survived",
    }
    drawn = {(row["line"], row["after"]): row["verdict"] for row in found["mutants"]}
    assert drawn.items() <= wanted.items()
    assert (10, "return None") in drawn
    assert found["noticed"] + found["survived"] == found["count"] == len(drawn) == 3
    assert found["share_noticed"] == round(found["noticed"] / found["count"], 4)
    assert (project / "toy" / "zoo" / "pair.py").read_text() == TOY, "mutants are tried in a copy"
    # Again, with one that is judged to change nothing, which is not counted; what was noticed is not run once more.
    (row,) = [row for row in found["mutants"] if row["line"] == 10]
    same = {**{k: row[k] for k in ("file", "operator", "before", "after")}, "why": "idle"}
    (project / "same.json").write_text(json.dumps([same]))
    again = run(project, "--again", "--equivalent", str(project / "same.json"))
    assert (again["equivalent"], again["noticed"]) == (1, found["noticed"])
    assert again["share_noticed"] == round(again["noticed"] / (again["count"] - 1), 4)


def test_a_file_without_tests_is_untested(project):
    found = run(project, "--only", "zoo/bare.py", "--count", "2")
    assert (found["untested"], found["share_noticed"]) == (2, 0.0)


def test_tests_that_fail_by_themselves_say_nothing(project):
    (project / "tests" / "zoo" / "test_pair.py").write_text("def test_no():\n    assert False\n")
    found = run(project, "--only", "zoo/pair.py", "--count", "1")
    (row,) = found["mutants"]
    assert (row["verdict"], found["untested"]) == ("untested", 1)
    assert row["why"].startswith("its tests fail before anything is changed: FAILED tests/zoo/test_pair.py::test_no")


def test_mutants_that_are_called_equivalent_are_of_code_that_is_there():
    normal = {}
    for row in json.loads(EQUIVALENT.read_text("utf8")):
        path = ROOT / "pocketzoo" / row["file"]
        assert path.is_file(), row["file"]
        source = normal.setdefault(path, " ".join(path.read_text("utf8").split()))
        assert " ".join(row["before"].split()) in source, row
