"""The grammar of names: of whatever is registered, and of what becomes part of a file's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pocketzoo.core.errors import ExportError

LONGEST = 80  # characters: a file name holds 255 bytes, and may be made of three names
RULE = f"use letters, digits, '.', '_' and '-', with a letter or digit first, {LONGEST} characters at most"

# What file systems refuse or read as something else is left out: separators, hidden files, options of commands, control
# characters, what is not ASCII (two spellings of one letter), a dot at the end, ".." and the devices of Windows.
_DEVICES = r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)"
_DEVICE = re.compile(_DEVICES, re.IGNORECASE)
_NAME = re.compile(
    rf"(?!{_DEVICES})"
    r"(?!.*\.\.)"
    rf"(?=.{{1,{LONGEST}}}$)"
    r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?",
    re.ASCII | re.IGNORECASE,
)
_WORD = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?", re.ASCII)
WORD_RULE = "use lower-case letters, digits, '_' and '-', 32 characters at most, such as int4"
_SUFFIX = re.compile(r"(?:\.[a-z0-9][a-z0-9_-]{0,15}){1,2}", re.ASCII)
SUFFIX_RULE = "give a dot and lower-case letters or digits, such as .onnx"


def is_name(text: object) -> bool:
    """Whether something may be called so: ``efficientnet-lite0``, ``resnet18.a1_in1k``, ``ViT-B_16``."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_word(text: object) -> bool:
    """Whether it is one word without dots, such as a precision: between the dots of a file name it stays one part."""
    return isinstance(text, str) and _WORD.fullmatch(text) is not None


def is_suffix(text: object) -> bool:
    """Whether the name of a file may end so."""
    return isinstance(text, str) and _SUFFIX.fullmatch(text) is not None


def as_file_name(text: str) -> str:
    """A text that nobody checked, such as a model's name in a bundle from elsewhere, as the name of a file or folder.

    Letters of any language and spaces stay; what could be a path, an option or a hidden file becomes "-".
    """
    safe = "".join(each if each.isprintable() and each not in '<>:"/\\|?*' else "-" for each in text)
    safe = safe.strip(". -")[:LONGEST] or "model"
    return f"{safe}-" if _DEVICE.match(safe) else safe


# What others read a file as by the end of its name. A folder is called so by nobody who means a folder.
_FILES = frozenset(
    [
        "bin",
        "bmp",
        "bz2",
        "cfg",
        "cpp",
        "csv",
        "dlc",
        "engine",
        "gguf",
        "gif",
        "gz",
        "h5",
        "hef",
        "htm",
        "html",
        "ini",
        "jpeg",
        "jpg",
        "js",
        "json",
        "jsonl",
        "log",
        "md",
        "mlmodel",
        "mnn",
        "ncnn",
        "npy",
        "npz",
        "om",
        "onnx",
        "ort",
        "param",
        "parquet",
        "pb",
        "pbtxt",
        "pdf",
        "pem",
        "pickle",
        "pkl",
        "plan",
        "png",
        "ppm",
        "pt",
        "pt2",
        "pte",
        "pth",
        "pub",
        "py",
        "rknn",
        "safetensors",
        "sh",
        "sig",
        "so",
        "svg",
        "tar",
        "tflite",
        "tgz",
        "tif",
        "tiff",
        "toml",
        "torchscript",
        "trt",
        "tsv",
        "txt",
        "wav",
        "webp",
        "whl",
        "xml",
        "xz",
        "yaml",
        "yml",
        "zip",
    ]
)
_KIND = re.compile(r"\.[^\W_]*[^\W\d_][^\W_]*")  # a suffix that has a letter: of "v1.5" it is a version


def check_suffix(place: Path, suffixes: Iterable[str], what: str) -> None:
    """That a file is not called as if it were something else: it ends in one of ``suffixes``, or in none at all.

    Raises:
        ExportError: ``place`` ends in something else; the hint is a name that it can have.
    """
    known = list(suffixes)
    name = place.name.lower()
    if not any(name.endswith(suffix) for suffix in known) and _KIND.fullmatch(place.suffix):
        raise ExportError(
            f"{place} ends in {place.suffix}, and {what} is written", f"call it {place.with_suffix(known[0])}"
        )


def check_folder_name(place: Path, what: str) -> None:
    """That a folder is not called as if it were a file.

    Raises:
        ExportError: ``place`` ends as files of some format do; the hint is a name that it can have.
    """
    if place.suffix[1:].lower() in _FILES and not place.is_dir():
        raise ExportError(f"{place} ends in {place.suffix}, and {what} is a folder", f"call it {place.with_suffix('')}")
