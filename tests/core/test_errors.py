from __future__ import annotations

import copy
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core import errors
from pocketzoo.core.errors import PocketzooError, nearest

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
    assert str(error) == error.message
    assert f"{error}" == error.message


@pytest.mark.parametrize("kind", FAMILY)
def test_a_hint_may_be_missing(kind):
    assert kind("what").hint == ""


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
        assert (twin.message, twin.hint, str(twin)) == ("what", "next", "what")


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
    assert (str(error), error.message, error.hint) == (message, message, hint)


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
