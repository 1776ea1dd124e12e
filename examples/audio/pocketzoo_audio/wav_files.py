"""WAV files as samples from -1 to 1, one channel: RIFF, read with numpy.

8, 16, 24 and 32 bits, and floats of 32 and 64; several channels are averaged. What is compressed is refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketzoo.api import DataError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
CODECS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 49: "GSM", 80: "MPEG", 85: "MP3", 255: "AAC"}
OPEN_ENDED = (0xFFFFFFFF, 0x7FFFF000, 0)  # sizes that programs write which do not know it yet: up to the file's end
UNREADABLE = "remove it, or use --skip-bad"
Samples = npt.NDArray[np.float32]


def read_wav(data: bytes, name: str) -> tuple[Samples, int]:
    """Samples of one channel, and how many there are in a second; ``name`` is what errors call the file.

    Raises:
        DataError: it is not a WAV file, is damaged, or of a kind that is not read.
    """
    form: tuple[int, int, int, int] | None = None
    for chunk, body in _chunks(data, name):
        if chunk == b"fmt ":
            form = _form(body, name)
        elif chunk == b"data":
            if form is None:
                raise _damaged(name, "its samples come before their format")
            codec, channels, rate, bits = form
            return _samples(body, codec, channels, bits, name), rate
    raise _damaged(name, "it has no samples")


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DataError(f"cannot read the sound {name}: it is not a WAV file", UNREADABLE)
    place = 12
    while place + 8 <= len(data):
        chunk, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        place += 8
        if chunk == b"data" and size in OPEN_ENDED:
            size = len(data) - place
        if place + size > len(data):
            raise _damaged(name, f"it ends {place + size - len(data)} bytes too early")
        yield chunk, data[place : place + size]
        place += size + size % 2  # chunks begin at even places


def _form(body: bytes, name: str) -> tuple[int, int, int, int]:
    """Codec, channels, samples per second, bits of a sample."""
    if len(body) < 16:
        raise _damaged(name, "its format is too short")
    codec, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if codec == EXTENSIBLE:
        if len(body) < 26:
            raise _damaged(name, "its format is too short")
        codec = struct.unpack_from("<H", body, 24)[0]  # the first field of a GUID
    if codec not in (PCM, FLOAT):
        said = CODECS.get(codec, f"of codec {codec}")
        raise DataError(f"cannot read the sound {name}: it is {said}", "convert it to 16-bit PCM")
    if bits not in ((8, 16, 24, 32) if codec == PCM else (32, 64)):
        raise DataError(f"cannot read the sound {name}: it has {bits} bits per sample", "convert it to 16-bit PCM")
    if not channels or not rate:
        raise _damaged(name, f"it has {channels} channels at {rate} Hz")
    return codec, channels, rate, bits


def _samples(body: bytes, codec: int, channels: int, bits: int, name: str) -> Samples:
    width = bits // 8
    count = len(body) // (width * channels)
    raw = np.frombuffer(body, np.uint8, count * channels * width)
    if codec == FLOAT:
        values = raw.view(f"<f{width}").astype(np.float64)
        if not np.isfinite(values).all():
            raise _damaged(name, "it has samples that are not finite")
    elif bits == 8:
        values = (raw.astype(np.float64) - 128) / 128
    elif bits == 24:  # as the upper three bytes of 32
        wide = np.zeros((count * channels, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        values = wide.view("<i4")[:, 0] / 2.0**31
    else:
        values = raw.view(f"<i{width}") / 2.0 ** (bits - 1)
    if not count:
        raise _damaged(name, "it has no samples")
    return values.reshape(count, channels).mean(1).astype(np.float32)


def write_wav(x: Samples, rate: int) -> bytes:
    """Samples of one channel from -1 to 1 as a file of 16 bits."""
    body = np.round(np.clip(x, -1, 1) * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", PCM, 1, rate, 2 * rate, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tones(rate: int, folder: Path) -> list[object]:
    """Sounds that were made up, in every form that the processor reads."""
    seconds = np.arange(rate // 2) / rate
    waves = [(0.5 * np.sin(2 * np.pi * hertz * seconds)).astype(np.float32) for hertz in (200, 400, 800, 1600)]
    paths = [folder / "low.wav", folder / "lower.wav"]
    for path, wave in zip(paths, waves[:2], strict=True):
        path.write_bytes(write_wav(wave, rate))
    return [*paths, str(paths[0]), write_wav(waves[2], rate), waves[3]]


def _damaged(name: str, why: str) -> DataError:
    return DataError(f"cannot read the sound {name}: {why}", UNREADABLE)
