from __future__ import annotations

import ast
import copy
import pickle
import string
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core import errors
from pocketzoo.core.errors import PocketzooError, message_of, nearest

FAMILY = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, PocketzooError)]
WORDS = st.text(string.ascii_lowercase + "-_0123456789", min_size=1, max_size=20)

# Who catches the built-in type catches ours as well.
ALSO = {
    errors.UnknownNameError: KeyError,
    errors.MissingDependencyError: ImportError,
    errors.RecipeError: ValueError,
    errors.DataError: ValueError,
    errors.HeadMismatchError: ValueError,
    errors.HubError: OSError,
    errors.StorageError: OSError,
    errors.ExportMismatchError: errors.ExportError,
}


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_says_what_and_what_next(kind):
    error = kind("no head is called 'liner'", "did you mean 'linear'?")
    assert (error.message, error.hint) == ("no head is called 'liner'", "did you mean 'linear'?")
    assert str(error) == f"{error}" == "no head is called 'liner'\ndid you mean 'linear'?"
    assert message_of(error) == error.message


@pytest.mark.parametrize("kind", FAMILY)
def test_a_hint_may_be_missing(kind):
    error = kind("what")
    assert (error.hint, str(error), message_of(error)) == ("", "what", "what")


@pytest.mark.parametrize("kind", FAMILY)
def test_the_last_lines_of_a_traceback_are_what_and_what_next(kind):
    try:
        raise kind("what", "next")
    except PocketzooError as error:
        lines = traceback.format_exception(error)
    assert "".join(lines).splitlines()[-2:] == [f"pocketzoo.core.errors.{kind.__name__}: what", "next"]


@pytest.mark.parametrize("error", [ValueError("what"), KeyError("what"), OSError(2, "what"), SystemExit("what")])
def test_the_message_of_any_other_error_is_its_text(error):
    assert message_of(error) == str(error)


@pytest.mark.parametrize("kind", FAMILY)
def test_a_quoted_error_leaves_its_hint_out(kind):
    wrapped = errors.BundleError(f"pocketzoo.json is damaged: {message_of(kind('what', 'next'))}", "restore it")
    assert str(wrapped) == "pocketzoo.json is damaged: what\nrestore it"


PACKAGE = Path(errors.__file__).parents[1]
# Handlers whose try runs nothing of ours and no plugin's code, so that no error of this family gets there.
FOREIGN = (
    "deploy/half_precision_export.py", "measure/profile.py",
    "zoo/backends/onnxruntime/bounded_session.py", "zoo/backends/onnxruntime/runner.py",
    "zoo/bundles/signing.py", "zoo/data/npz_files.py", "zoo/data/processors/text_encoder.py", "zoo/graphs/safety.py",
    "zoo/hub/shard_index.py", "zoo/backends/onnxruntime/batched_graph.py", "zoo/graphs/files/external_data.py",
)  # fmt: skip
CATCHES = {base.__name__ for kind in FAMILY for base in kind.__mro__} - {"object"}


def quoted(handler: ast.ExceptHandler) -> list[int]:
    """Lines that put the whole text of what was caught into another text."""
    names = [n for each in handler.body for n in ast.walk(each)]
    shown = [n.value for n in names if isinstance(n, ast.FormattedValue)]
    calls = [n for n in names if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    shown += [n.args[0] for n in calls if n.func.id in ("str", "repr") and n.args]
    return [n.lineno for n in shown if isinstance(n, ast.Name) and n.id == handler.name]


def test_no_handler_quotes_an_error_of_ours_with_its_hint():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if not isinstance(node, ast.ExceptHandler) or node.name is None:
                continue
            kinds = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            if kinds & CATCHES and quoted(node):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(FOREIGN), "say message_of(error), or take out what is no such place any more"


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_can_be_caught_as_the_family(kind):
    with pytest.raises(PocketzooError) as caught:
        raise kind("what", "next")
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_survives_copying_and_pickling(kind):
    """pytest-xdist and multiprocessing send errors from one process to another."""
    error = kind("what", "next")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert (twin.message, twin.hint, str(twin)) == ("what", "next", "what\nnext")


@pytest.mark.parametrize(("kind", "builtin"), ALSO.items())
def test_an_error_is_also_the_builtin_one(kind, builtin):
    assert issubclass(kind, builtin)


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_has_a_docstring_of_one_sentence(kind):
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0].endswith(".")


@given(st.text(), st.text())
def test_any_text_comes_through(message, hint):
    error = errors.UnknownNameError(message, hint)  # a KeyError would print its argument in quotes
    assert (str(error), error.message, error.hint) == (f"{message}\n{hint}" if hint else message, message, hint)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("liner", ["linear", "mlp"], "did you mean 'linear'?"),
        ("tinynte", ["tinynet"], "did you mean 'tinynet'?"),
        ("lowrank", ["prune", "low-rank", "int8"], "did you mean 'low-rank'?"),
        ("zzz", ["linear", "mlp"], "known: linear, mlp"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "nothing is registered here"),
        ("", ["a"], "known: a"),
        ("zzz", [f"a{i:02}" for i in range(12)], "known: " + ", ".join(f"a{i:02}" for i in range(12))),
        ("zzz", [f"a{i:02}" for i in range(13)], "known: " + ", ".join(f"a{i:02}" for i in range(12)) + ", ..."),
    ],
)
def test_nearest(name, known, hint):
    assert nearest(name, known) == hint


def test_nearest_takes_any_iterable():
    assert nearest("liner", iter({"linear": 1})) == "did you mean 'linear'?"


@given(st.lists(WORDS, unique=True, max_size=30), WORDS)
def test_nearest_never_names_what_is_not_known(known, name):
    hint = nearest(name, known)
    if hint.startswith("did you mean"):
        assert hint.split("'")[1] in known
    elif known:
        named = hint.removeprefix("known: ").removesuffix(", ...").split(", ")
        assert named == sorted(known)[:12]
    else:
        assert hint == "nothing is registered here"


@given(st.lists(WORDS, unique=True, min_size=1, max_size=30), st.data())
def test_nearest_finds_a_known_name_itself(known, data):
    name = data.draw(st.sampled_from(known))
    assert nearest(name, known) == f"did you mean {name!r}?"


@given(st.lists(WORDS.filter(lambda w: len(w) > 5), unique=True, min_size=1, max_size=1), st.integers(0, 4))
def test_nearest_finds_a_name_with_two_letters_swapped(known, at):
    (name,) = known
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert nearest(swapped, known) == f"did you mean {name!r}?"
