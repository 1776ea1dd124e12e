"""Keys of what is kept: one function that makes a digest of everything that a result depends on.

A key that names less than that gives an old answer to a new question. So whatever is kept (prepared models, features,
finished steps, engines, the choice of a runtime) goes by ``cache_key``, which takes facts by their values: files by
what is in them, arrays with dtype and shape, dataclasses with their type. What it cannot read by value is an error of
ours, never a ``repr`` that may leave something out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from uuid import uuid4

from pocketzoo.core.content_digests import content_digest, content_digests
from pocketzoo.core.version import __version__

_ONLY_HERE = uuid4().hex  # stands for what cannot be read by value: another process has another
_WITHIN: ContextVar[frozenset[int]] = ContextVar("_WITHIN", default=frozenset())  # ids of the code that is taken in


def cache_key(purpose: str, **facts: Any) -> str:
    """sha256, hex, of ``facts`` and of our own version; keys of different purposes never meet.

    Facts are plain data, dataclasses, arrays, tensors, and paths: of a file its content counts, of a folder the names
    and contents of all that is in it. A function is known by its name, and by what it holds (defaults, a closure, the
    object of a method): what it does belongs to the version, or to the ``plugin_source`` of the plugin that has it. One
    that holds what cannot be read by value has a key in this process alone.

    Raises:
        TypeError: a value of which this does not know what it consists of.
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    _update(digest, (purpose, __version__, facts))
    return digest.hexdigest()


def digest_of(*values: Any) -> str:
    """sha256, hex, of values alone: data has the same digest in every version.

    Raises:
        TypeError: a value of which this does not know what it consists of.
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    _update(digest, values)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    """Take in a value: its kind, its length, and what is in it, so that no two run into one."""
    if value is None or isinstance(value, (bool, int, float, complex)):
        _put(digest, type(value).__name__, repr(value).encode())
    elif isinstance(value, str):
        _put(digest, "str", value.encode("utf8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _put(digest, "bytes", value)
    elif isinstance(value, Path):
        _path(digest, value)
    elif isinstance(value, Enum):
        _put(digest, "enum", f"{type(value).__qualname__}.{value.name}".encode())
    elif is_dataclass(value) and not isinstance(value, type):
        _put(digest, "record", type(value).__qualname__.encode())
        _update(digest, {f.name: getattr(value, f.name) for f in fields(value)})
    elif isinstance(value, Mapping):
        _put(digest, "mapping", str(len(value)).encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            _update(digest, key)
            _update(digest, value[key])
    elif isinstance(value, Set):
        _put(digest, "set", "".join(sorted(map(digest_of, value))).encode())
    elif isinstance(value, (list, tuple)):
        _sequence(digest, value)
    elif isinstance(value, partial):
        _put(digest, "partial", b"")
        _update(digest, (value.func, value.args, value.keywords))
    elif isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType)):
        _put(digest, "code", f"{value.__module__}.{value.__qualname__}".encode())
        if not isinstance(value, type):
            _held(digest, value, _holdings(value))
    elif hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor; numpy has no bfloat16
        import torch

        tensor = value.detach().cpu().contiguous()
        _put(digest, "tensor", f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        _put(digest, "bytes", tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    elif hasattr(value, "dtype") and hasattr(value, "tobytes"):
        _array(digest, value)
    elif hasattr(value, "mode") and hasattr(value, "tobytes"):  # an image of Pillow's
        _put(digest, "image", f"{value.mode} {value.size} {value.getpalette()}".encode())
        _put(digest, "bytes", value.tobytes())
        _put(digest, "orientation", repr(value.getexif().get(0x0112)).encode())
    elif callable(value) and hasattr(value, "__dict__"):
        _put(digest, "callable", f"{type(value).__module__}.{type(value).__qualname__}".encode())
        _held(digest, value, vars(value))
    else:
        raise TypeError(f"a key cannot hold {value!r} of {type(value).__module__}.{type(value).__qualname__}")


def _holdings(code: Any) -> list[Any]:
    """What a function carries along besides its code."""
    if isinstance(code, MethodType):
        owner: Any = code.__self__
        known = [type(owner), vars(owner)] if hasattr(owner, "__dict__") and not isinstance(owner, type) else owner
        return [known, _holdings(code.__func__)]
    if not isinstance(code, FunctionType):
        return []
    cells = []
    for cell in code.__closure__ or ():
        with suppress(ValueError):  # a cell that is still empty
            cells.append(cell.cell_contents)
    return [list(code.__defaults__ or ()), code.__kwdefaults__ or {}, cells]


def _held(digest: Any, owner: Any, values: Any) -> None:
    """Take in what code holds; where that cannot be read, the owner is nobody else's."""
    if id(owner) in (within := _WITHIN.get()):  # it holds itself: a function that calls itself
        return
    token = _WITHIN.set(within | {id(owner)})
    try:
        part = digest_of(values)
    except (TypeError, RecursionError, OSError):
        part = f"{_ONLY_HERE} {id(owner)}"
    finally:
        _WITHIN.reset(token)
    _put(digest, "held", part.encode())


def _sequence(digest: Any, values: list[Any] | tuple[Any, ...]) -> None:
    _put(digest, "sequence", str(len(values)).encode())
    if values and all(isinstance(value, Path) and value.is_file() for value in values):
        for each in content_digests(values):  # looked up together
            _put(digest, "file", each.encode())
        return
    for value in values:
        _update(digest, value)


def _path(digest: Any, path: Path) -> None:
    if not path.is_dir():
        _put(digest, "file", content_digest(path).encode())
        return
    files = sorted(each for each in path.rglob("*") if each.is_file())
    _put(digest, "folder", str(len(files)).encode())
    for file, content in zip(files, content_digests(files), strict=True):
        _put(digest, "name", file.relative_to(path).as_posix().encode("utf8", "surrogateescape"))
        _put(digest, "file", content.encode())


def _array(digest: Any, array: Any) -> None:
    if array.dtype.kind == "O":
        _put(digest, "objects", f"{array.shape}".encode())
        _update(digest, array.ravel().tolist())
        return
    _put(digest, "array", f"{array.dtype.str} {array.shape}".encode())
    _put(digest, "bytes", array.tobytes())


def _put(digest: Any, kind: str, data: bytes | bytearray | memoryview) -> None:
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    digest.update(f"{kind}:{size}:".encode())
    digest.update(data)
