"""Images of the formats that Pillow knows and pocketzoo does not open, as bytes, by the name of the format."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from PIL import Image


def eps() -> bytes:
    """One that Pillow gives to Ghostscript."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n"


def eps_with_preview() -> bytes:
    """The same behind the binary header of DOS."""
    return struct.pack("<7IHH", 0xC6D3D0C5, 32, len(eps()), 0, 0, 0, 0, 0xFFFF, 0) + eps()


def saved(kind: str) -> Callable[[], bytes]:
    def made() -> bytes:
        out = io.BytesIO()
        Image.new("1" if kind in ("MSP", "XBM") else "RGB", (16, 16)).save(out, kind)
        return out.getvalue()

    return made


FOREIGN: dict[str, Callable[[], bytes]] = {
    "EPS": eps,
    "EPS with a preview": eps_with_preview,
    **{kind: saved(kind) for kind in ("BMP", "DDS", "GIF", "ICO", "MSP", "PCX", "PPM", "SGI", "TGA", "TIFF", "XBM")},
}
