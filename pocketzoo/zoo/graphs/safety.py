"""Reject graphs that refer to external files or custom operators, from their bytes alone. No onnx needed.

A graph is data, but it can name files for its weights and operators that other code brings. Only the fields that lead
there are looked at; numbers are skipped over, so a large graph takes no longer than it has nodes. Field numbers are
those of onnx.proto, wire types those of "Encoding" in the documentation of Protocol Buffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import UnsafeFileError

# The operators of the standard, and those that onnxruntime brings itself.
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
DEEPEST = 64  # graphs in attributes of nodes of graphs ...

# Message -> field number -> the message in it. What is not listed here cannot lead to a node or a tensor.
_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}
# Message -> field number -> what the text in it is called.
_TEXTS = {
    "Node": {4: "op_type", 7: "domain"},
    "Function": {1: "name", 10: "domain"},
    "Entry": {1: "key", 2: "value"},
}


@dataclass(frozen=True, slots=True)
class References:
    """What a graph needs besides itself."""

    operators: frozenset[tuple[str, str]]  # (domain, name), without those that the file defines
    files: frozenset[str]  # as they are written in it


class _NotOnnxError(ValueError):
    pass


def references(path: Path) -> References:
    """Read what a graph refers to.

    Raises:
        UnsafeFileError: it is not an ONNX file: what cannot be read here may be read otherwise by others.
    """
    operators: set[tuple[str, str]] = set()
    defined: set[tuple[str, str]] = set()
    files: set[str] = set()
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        _walk(data, "Model", operators, defined, files, 0)
    except (ValueError, IndexError) as error:  # of mmap for an empty file, of text that is not UTF-8, of an early end
        raise UnsafeFileError(f"{path} is not an ONNX graph: {error}", "rebuild the graph") from error
    return References(frozenset(operators - defined), frozenset(files))


def check_graph(path: Path, *, files: Collection[str] = (), domains: Collection[str] = KNOWN_DOMAINS) -> None:
    """Refuse a graph that needs anything but itself, ``files`` that were checked, and operators of known ``domains``.

    Raises:
        UnsafeFileError: it names another file, or an operator that needs foreign code; or is not a graph.
    """
    contents = references(path)
    if outside := sorted(contents.files - set(files)):
        what = "an absolute path" if outside[0].startswith(("/", "\\")) or outside[0][1:2] == ":" else "another file"
        what = "a path outside the folder" if ".." in outside[0].replace("\\", "/").split("/") else what
        raise UnsafeFileError(
            f"{path} keeps weights in {outside[0]!r}, {what}",
            "save it as one file: onnx.save(onnx.load(path), 'one.onnx')",
        )
    if foreign := sorted(operator for operator in contents.operators if operator[0] not in domains):
        raise UnsafeFileError(
            f"{path} needs the operator {'.'.join(foreign[0])}, which is not standard and could run foreign code",
            "export it again with standard operators",
        )


def _walk(
    data: memoryview,
    message: str,
    operators: set[tuple[str, str]],
    defined: set[tuple[str, str]],
    files: set[str],
    depth: int,
) -> dict[str, str]:
    """Go through one message; returns its texts."""
    if depth > 4 * DEEPEST:
        raise _NotOnnxError("it is nested too deep")
    inside, names = _INSIDE[message], _TEXTS.get(message, {})
    texts: dict[str, str] = {}
    for number, value in _fields(data):
        if number in names:
            texts[names[number]] = str(value, "utf8")
        elif number in inside:
            entry = _walk(value, inside[number], operators, defined, files, depth + 1)
            if inside[number] == "Entry" and entry.get("key") == "location":
                files.add(entry.get("value", ""))
    if message == "Node":
        operators.add((texts.get("domain", ""), texts.get("op_type", "")))
    elif message == "Function":
        defined.add((texts.get("domain", ""), texts.get("name", "")))
    return texts


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that hold bytes, by their numbers; the others are skipped."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if kind == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise _NotOnnxError("it is cut short")
            yield number, data[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:  # groups, which onnx.proto has none of
            raise _NotOnnxError(f"a field has the wire type {kind}")
    if at != end:
        raise _NotOnnxError("it is cut short")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _NotOnnxError("a number is too long")
