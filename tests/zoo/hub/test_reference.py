"""What a user types for a model: every form, what is refused, and paths that must stay where they are unpacked."""

from __future__ import annotations

import string
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from pocketzoo.core.errors import BadReferenceError
from pocketzoo.zoo.hub.reference import HubRef, NameRef, PathRef, is_inside, parse

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf://acme/tinynet", HubRef("acme/tinynet")),
        ("hf://gpt2", HubRef("gpt2")),
        ("hf://acme/tinynet@main", HubRef("acme/tinynet", "main")),
        ("hf://acme/tinynet@v1.0", HubRef("acme/tinynet", "v1.0")),
        ("hf://acme/tinynet@feature/x", HubRef("acme/tinynet", "feature/x")),
        ("hf://acme/tinynet@refs/pr/1", HubRef("acme/tinynet", "refs/pr/1")),
        ("hf://acme/tinynet@v1.0+cu13", HubRef("acme/tinynet", "v1.0+cu13")),
        (f"hf://acme/tinynet@{COMMIT}", HubRef("acme/tinynet", COMMIT)),
        ("hf://acme/tinynet#head", HubRef("acme/tinynet", "main", "head")),
        ("hf://acme/tinynet@v1.0#onnx/m.onnx", HubRef("acme/tinynet", "v1.0", "onnx/m.onnx")),
        ("hf://acme/tinynet#a@b#c.onnx", HubRef("acme/tinynet", "main", "a@b#c.onnx")),
        ("hf://acme/tinynet#a b.onnx", HubRef("acme/tinynet", "main", "a b.onnx")),
        ("hf://A_c.m-e/t_i.n-y", HubRef("A_c.m-e/t_i.n-y")),
        ("hf://a/b", HubRef("a/b")),
        ("hf://_a/b_", HubRef("_a/b_")),
        (f"hf://{'a' * 96}/{'b' * 96}", HubRef(f"{'a' * 96}/{'b' * 96}")),
        ("file:model", PathRef(Path("model"))),
        ("file:/srv/model", PathRef(Path("/srv/model"))),
        ("file:///srv/model", PathRef(Path("/srv/model"))),
        ("file:../model", PathRef(Path("../model"))),
        ("file:hf://acme/tinynet", PathRef(Path("hf:/acme/tinynet"))),
        ("file:a#b@c", PathRef(Path("a#b@c"))),
        ("tinynet", NameRef("tinynet")),
        ("acme/tinynet", NameRef("acme/tinynet")),
        ("./model", NameRef("./model")),
        (" hf://acme/tinynet", NameRef(" hf://acme/tinynet")),
    ],
    ids=lambda x: x[:40] if isinstance(x, str) else "",
)
def test_every_form(text, reference):
    assert parse(text) == reference
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ("", "empty", "hf://org/name"),
        ("file:", "has no path", "file:PATH"),
        *(
            (f"hf:{rest}", "does not name a repository", "hf://org/name")
            for rest in (
                "", "/", "//", "///", "acme/tinynet", "/acme/tinynet", "///acme/tinynet", "//acme/", "///tinynet",
                "//a/b/c", "//../b", "//a/..", "//a/.", "//./b", "//a--b/c", "//a/b--c", "//a/b..c", "//-a/b",
                "//a-/b", "//a/.b", "//a/b.", "//a/b-", "//a b/c", "//a/b c", "//a/b\n", "//\na/b", "//a/b?x=1",
                "//a\\b", "//a/b%2f", "//a/b:c", "//a/é", "//a/b.git", "//@main", "//#head", "//a/b ",
                f"//{'a' * 97}/b", f"//a/{'b' * 97}",
            )
        ),
        *(
            (f"hf://a/b@{revision}", "has no revision", "a tag or a commit")
            for revision in (
                "", "..", "a..b", "../x", "/main", "-x", ".x", "a b", "a\n", "a@b", "a?b", "a%2fb", "a\\b", "a:b",
                "a~1", "a^", "x" * 256,
            )
        ),
        ("hf://a/b@#head", "has no revision", "a tag or a commit"),
        *(
            (f"hf://a/b#{part}", "has no part", "a file of the repository")
            for part in ("", "..", "../x", "a/../x", "/etc", "a//b", "a/", "C:/x", "a\\..\\x", "a\0", "a\n")
        ),
    ],
    ids=lambda x: repr(x)[:40],
)  # fmt: skip
def test_what_is_refused_says_what_to_write(refused, text, named, hint):
    with refused(BadReferenceError, named, repr(text) if text not in ("", "file:") else "", hint=hint):
        parse(text)


@pytest.mark.parametrize("revision", [COMMIT[:39], COMMIT + "0", COMMIT.upper(), "main", "v1", "g" * 40], ids=repr)
def test_only_a_whole_commit_pins(revision):
    assert parse(f"hf://a/b@{COMMIT}").pinned
    assert not parse(f"hf://a/b@{revision}").pinned
    assert parse(f"hf://a/b@{revision}#head").at(COMMIT) == HubRef("a/b", COMMIT, "head")


NAME = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=12)
PIECE = st.sampled_from(["a", "b.c", "..", ".", "", "C:", "x:y", "…", " ", ".. ", "...", "\\", "\0", "é", "con", "~"])
PATHS = st.one_of(st.lists(PIECE, min_size=1, max_size=5).map("/".join), st.text(max_size=20))


@given(st.builds("{}{}{}".format, NAME, st.sampled_from(["", "/"]), NAME))
@example("a/b.git")
def test_what_parses_is_a_name_the_hub_allows(repo_id):
    try:
        reference = parse(f"hf://{repo_id}")
    except BadReferenceError:
        return
    assert reference == HubRef(repo_id)
    validate_repo_id(repo_id)


@given(st.one_of(st.text(), st.builds("hf://{}/{}@{}#{}".format, NAME, NAME, NAME, PATHS), PATHS.map("file:{}".format)))
def test_what_parses_is_read_back_from_what_it_prints(text):
    try:
        reference = parse(text)
    except BadReferenceError:
        return
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    "path",
    ["a", "a.b", "a/b/c", ".gitattributes", "..a", "a..b", "a../b", "-", "~", "a b", "é/ü", "ab:c/d", "C/x", "1.2:3"],
    ids=repr,
)
def test_a_path_that_stays_inside(path):
    assert is_inside(path)


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "../a", "a/..", "a/../b", "a/../../b", "./a", "a/./b", "/a", "//a/b", "a//b", "a/",
        "..\\a", "a\\..\\..\\b", "\\a", "\\\\host\\share", "a\\", "C:", "C:/a", "C:a", "c:\\a", "a/C:/b", "a\\D:b",
        "\0", "a\0b", "a\nb", "a\rb", "a\tb", "\x1b[31m", "a\x7f", "a\x9b31m", "a\ud800",
        ".. /a", "... /a", "a/.. ", "...", " ", "a/ /b",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_path_that_could_leave(path):
    assert not is_inside(path)


@given(PATHS)
def test_a_path_that_is_inside_stays_there_on_every_system(path):
    if not is_inside(path):
        return
    path.encode()  # no lone surrogates
    for flavour in (PurePosixPath, PureWindowsPath):
        for joined in (flavour("root") / path, flavour("root").joinpath(*path.replace("\\", "/").split("/"))):
            assert joined.parts[0] == "root"
            assert len(joined.parts) >= 2
            assert ".." not in joined.parts
            assert not joined.is_absolute()
