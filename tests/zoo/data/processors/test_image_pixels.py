"""Images of more pixels than anyone has are refused by their header, with the variable that lets them in."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.processors.image_preprocessing import decode_image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    """A PNG of that size with none of its pixels."""
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header(tmp_path, refused):
    (tmp_path / "x.png").write_bytes(header(50_000, 50_000))
    with refused(DataError, "x.png has more than 178,956,970 pixels", hint="POCKETZOO_MAX_PIXELS"):
        decode_image(tmp_path / "x.png", "x.png", 3)


def test_the_limit_is_the_variables(tmp_path, monkeypatch, refused):
    Image.new("L", (10, 10)).save(tmp_path / "x.png")
    monkeypatch.setenv("POCKETZOO_MAX_PIXELS", "99")
    with refused(DataError, "x.png has 100 pixels, more than 99", hint="POCKETZOO_MAX_PIXELS"):
        decode_image(tmp_path / "x.png", "x.png", 3)
    monkeypatch.setenv("POCKETZOO_MAX_PIXELS", "100")
    assert decode_image(tmp_path / "x.png", "x.png", 3).size == (10, 10)
