"""Safetensors are read in one place, and what is none is refused there, whatever library would choke on it."""

from __future__ import annotations

import ast
import contextlib
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError
from pocketzoo.core.reading.tensor_files import parse_arrays, read_arrays, read_tensor_file, read_tensors

PACKAGE = Path(__file__).parents[3] / "pocketzoo"
HERE = "core/reading/tensor_files.py"


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(kind: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


WRONG = {
    "empty": b"",
    "a pickle": pickle.dumps({"a": 1}, 2),
    "an archive": b"PK\x03\x04" + b"\0" * 60,
    "a header longer than the file": struct.pack("<Q", 1 << 62) + b"{}",
    "no JSON": file_of(b"{"),
    "a list": file_of([]),
    "nested deeply": file_of(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "of half a character": file_of(b'{"\\ud83d":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    "beyond its end": file_of({"a": entry(offsets=(0, 400))}, b"\0" * 4),
    "of another size": file_of({"a": entry(shape=(3,))}, b"\0" * 4),
    "of overflowing size": file_of({"a": entry(shape=(2**62, 2**62))}, b"\0" * 4),
    "of negative size": file_of({"a": entry(shape=(-1,))}, b"\0" * 4),
    "with a hole": file_of({"a": entry(), "b": entry(offsets=(8, 12))}, b"\0" * 12),
    "with an overlap": file_of({"a": entry(), "b": entry(offsets=(0, 4))}, b"\0" * 4),
    "with more behind": file_of({"a": entry()}, b"\0" * 8),
    "of an unknown type": file_of({"a": entry("PICKLE")}, b"\0" * 4),
}


@pytest.mark.parametrize("read", [read_tensor_file, read_tensors, read_arrays], ids=lambda read: read.__name__)
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_none_is_refused(kind, read, tmp_path, refused):
    (tmp_path / "w").write_bytes(WRONG[kind])
    with refused(UnsafeFileError, "weights of x is not a safetensors file", hint="other formats can run code"):
        read(tmp_path / "w", "weights of x")
    with pytest.raises(UnsafeFileError):
        parse_arrays(WRONG[kind])


@pytest.mark.parametrize("read", [read_tensor_file, read_tensors, read_arrays], ids=lambda read: read.__name__)
@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F8_E4M3", "F8_E8M0", "BF16", "F16", "C64", "BOOL", "U16"])
def test_every_type_of_the_format_is_read_or_refused_by_us(kind, read, tmp_path):
    bits = {"F4": 4, "F6_E2M3": 6, "BF16": 16, "F16": 16, "U16": 16, "C64": 64}.get(kind, 8)
    (tmp_path / "w").write_bytes(file_of({"a": entry(kind, (8,), (0, bits))}, b"\0" * bits))
    with contextlib.suppress(UnsupportedModelError, UnsafeFileError):
        assert read(tmp_path / "w")


def test_what_was_written_is_read(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
    save_file(tensors, tmp_path / "w", metadata={"who": "me"})
    file = read_tensor_file(tmp_path / "w")
    assert file.texts == {"who": "me"}
    for read in (file.tensors, read_tensors(tmp_path / "w"), read_arrays(tmp_path / "w"), parse_arrays(save(tensors))):
        assert read.keys() == tensors.keys()
        assert all(np.array_equal(np.asarray(read[name]), tensors[name].numpy()) for name in tensors)


def test_no_other_file_reads_safetensors():
    """Writing is anyone's: imports of ``save`` and ``save_file`` are fine."""
    others = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == "safetensors"]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "safetensors":
                names = [alias.name for alias in node.names if not alias.name.startswith("save")]
            others += [(path.relative_to(PACKAGE).as_posix(), name) for name in names]
    assert {place for place, _ in others} == {HERE}
