"""The grammar of names: what exists fits, and whatever fits is one harmless part of a path on any file system."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import ExportError
from pocketzoo.core.names import LONGEST, as_file_name, check_folder_name, check_suffix, is_name, is_suffix, is_word


@pytest.mark.parametrize(
    "name",
    [
        "tinynet", "efficientnet-lite0", "resnet18.a1_in1k", "vit_base_patch16_224.augreg_in21k_ft_in1k", "ViT-B_16",
        "ResNet50_Weights.IMAGENET1K_V2", "tensorrt-10", "image-classification", "int8", "_test", "7b", "a",
        "connect", "communicator", "nullable", "com", "lpt", "com10", "x" * LONGEST,
    ],
)  # fmt: skip
def test_names_that_exist_fit(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", " a", "a ", "a/b", "a\\b", "/a", "..", ".", ".a", "a..b", "../a", "a.", "-a", "--help", "~a",
        "a\n", "\na", "a\0", "a\tb", "a\x7f", "größe", "\u0430", "a*", "a?", "a[0]", "a:b", "a|b", "a;b", "$a", "`a`",
        "a'b", 'a"b', "<a>", "a&b", "a%b", "a,b", "a@b", "a+b", "hf://a/b", "con", "CON", "nul.onnx", "Aux", "com1",
        "LPT9.x", "x" * (LONGEST + 1), None, 3, b"a", ("a",), 1.5, True,
    ],
)  # fmt: skip
def test_what_could_be_something_else_in_a_path_does_not_fit(name):
    assert not is_name(name)


@given(st.from_regex(re.compile(r"[A-Za-z0-9._\-/\\ ]{0,90}"), fullmatch=True) | st.text(max_size=90))
def test_what_fits_is_one_part_of_a_path(name):
    if is_name(name):
        for kind in (PurePosixPath, PureWindowsPath):
            assert kind(name).parts == (name,)
            assert not kind(name).is_absolute()
            assert kind(f"model.int8.{name}.onnx").parts == (f"model.int8.{name}.onnx",)
        assert not PureWindowsPath(name).is_reserved()
        assert name.isascii()
        assert name.isprintable()
        assert not name.startswith((".", "-"))


@pytest.mark.parametrize(
    ("word", "fits"),
    [("int8", True), ("int4", True), ("2-4", True), ("w4a16", True), ("float32", True), ("x" * 32, True),
     ("x" * 33, False), ("", False), ("a.b", False), ("INT8", False), ("-a", False), ("a-", False), ("a/b", False),
     ("..", False), ("a b", False), ("a\n", False), (8, False), (None, False)],
)  # fmt: skip
def test_a_word_is_one_part_between_dots(word, fits):
    assert is_word(word) == fits


@pytest.mark.parametrize(
    ("suffix", "fits"),
    [(".onnx", True), (".engine", True), (".tar.gz", True), (".xml", True), (".ort", True), ("", False),
     ("onnx", False), (".", False), ("..", False), ("../x", False), (".a/b", False), (".ONNX", False),
     (".a.b.c", False), ("._triton", False), (".a\n", False), (None, False), (3, False)],
)  # fmt: skip
def test_a_suffix_is_a_dot_and_letters(suffix, fits):
    assert is_suffix(suffix) == fits


@pytest.mark.parametrize(
    ("text", "name"),
    [("tinynet", "tinynet"), ("my model (2)", "my model (2)"), ("größe", "größe"), ("../../etc/x", "etc-x"),
     ("a/b", "a-b"), ("a\\b", "a-b"), (".hidden", "hidden"), ("--to", "to"), ("", "model"), ("...", "model"),
     ("a\nb\0", "a-b"), ("con", "con-"), ("NUL.x", "NUL.x-"), ("C:x", "C-x"), ("x" * 200, "x" * LONGEST)],
)  # fmt: skip
def test_a_text_becomes_a_file_name(text, name):
    assert as_file_name(text) == name


@given(st.text(max_size=100) | st.from_regex(re.compile(r"[./\\a: ]{0,12}"), fullmatch=True))
def test_any_text_becomes_one_part_of_a_path(text):
    name = as_file_name(text)
    for kind in (PurePosixPath, PureWindowsPath):
        assert kind(name).parts == (name,)
    assert not PureWindowsPath(name).is_reserved()
    assert name.isprintable()
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize(
    ("name", "suffixes", "hint"),
    [
        ("x.engine", [".onnx"], "call it x.onnx"),
        ("x.onnx", [".html", ".htm"], "call it x.html"),
        ("a.b.ONNX", [".engine"], "call it a.b.engine"),
        ("x.whatever", [".onnx"], "call it x.onnx"),
        ("x.onnx", [".engine", ".plan"], "call it x.engine"),
    ],
)
def test_a_file_is_not_called_as_if_it_were_another(name, suffixes, hint, refused):
    with refused(ExportError, f"{name} ends in .", "and a file is written", hint=hint):
        check_suffix(Path(name), suffixes, "a file")


@pytest.mark.parametrize("name", ["x", "x.onnx", "X.ONNX", "v1.5", "a.b/x", ".hidden"])
def test_other_names_of_files_are_fine(name):
    check_suffix(Path(name), [".onnx"], "a file")


@pytest.mark.parametrize("name", ["x.onnx", "m.pt", "model.safetensors", "report.HTML"])
def test_a_folder_is_not_called_as_if_it_were_a_file(name, refused, tmp_path):
    with refused(ExportError, "ends in .", "and a bundle is a folder", hint=f"call it {tmp_path / Path(name).stem}"):
        check_folder_name(tmp_path / name, "a bundle")
    (tmp_path / name).mkdir()
    check_folder_name(tmp_path / name, "a bundle")  # it is one, whatever it is called


@pytest.mark.parametrize("name", ["x", "resnet18.a1_in1k", "v1.5", "my.model", ".hidden"])
def test_other_names_of_folders_are_fine(name):
    check_folder_name(Path(name), "a bundle")
