"""Samples for the .onnx files that public packages ship: what calibrates comes from other sources than what tests.

Texts are sentences of one library in one family of fonts over some photos, and those of another in another family over
others; sounds are notes of other pitches with other overtones, and other words of a speech synthesizer; files are those
of other packages. Each function gives samples (N, ...) by input, the first half of the sources where ``held_back`` is
false.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from documents import sentences_of
from photos import photos as photos_of
from PIL import Image, ImageDraw, ImageFont

Array = npt.NDArray[np.generic]
Samples = dict[str, Array]

FONTS = Path("/usr/share/fonts/truetype")
PHOTOS = 16  # of a side, as many as memory need hold
FAMILIES = {
    False: ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold"),
    True: ("LiberationSans-Regular", "LiberationSerif-Regular", "LiberationMono-Regular", "LiberationSans-Bold"),
}
SPOKEN = {False: "scipy", True: "skimage"}  # whose sentences are written and spoken
PACKAGES = {False: ("sklearn", "torch", "PIL"), True: ("scipy", "skimage", "onnx")}  # whose files are told apart
IMAGENET = (np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]))
RATE, WINDOW = 22050, 43844  # of music: samples a second, samples at once
SPEECH_RATE, FRAME, CONTEXT = 16000, 512, 64


@cache
def texts(*, held_back: bool) -> list[str]:
    """Sentences in plain characters."""
    return [text for text in sentences_of(SPOKEN[held_back]) if text.isascii()]


@cache
def fonts(*, held_back: bool) -> list[Path]:
    """The files of one family."""
    found = [path for name in FAMILIES[held_back] for path in sorted(FONTS.rglob(f"{name}.ttf"))]
    if not found:
        raise SystemExit("there are no fonts; next: apt install fonts-dejavu-core fonts-liberation")
    return found


@cache
def photos(*, held_back: bool) -> list[Image.Image]:
    """Photos of one side."""
    return [Image.open(path).convert("RGB") for path in photos_of("test" if held_back else "calibration", PHOTOS)]


def page(generator: np.random.Generator, side: int, *, held_back: bool) -> Image.Image:
    """A square with some lines of text, on paper or on a photo."""
    if generator.random() < 0.4:
        choices = photos(held_back=held_back)
        photo = choices[generator.integers(len(choices))]
        least = min(photo.size)
        left, top = (int(generator.integers(0, length - least + 1)) for length in photo.size)
        image = photo.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.BICUBIC)
        ink = (255, 255, 255) if np.asarray(image).mean() < 128 else (0, 0, 0)
    else:
        paper = int(generator.integers(200, 256))
        image, ink = Image.new("RGB", (side, side), (paper, paper, paper - 8)), (20, 20, int(generator.integers(90)))
    draw, lines, faces = ImageDraw.Draw(image), texts(held_back=held_back), fonts(held_back=held_back)
    y = int(generator.integers(8, 50))
    while y < side - 40:
        size = int(generator.integers(14, 34))
        face = ImageFont.truetype(faces[generator.integers(len(faces))], size)
        line = lines[generator.integers(len(lines))]
        draw.text((int(generator.integers(4, 60)), y), line[: int(generator.integers(8, 40))], ink, font=face)
        y += int(size * generator.uniform(1.2, 2.5))
    return image


def line(generator: np.random.Generator, *, held_back: bool) -> Image.Image:
    """A line of text, cut to its own size."""
    lines, faces = texts(held_back=held_back), fonts(held_back=held_back)
    words = lines[generator.integers(len(lines))].split()
    start = int(generator.integers(max(len(words) - 3, 1)))
    text = " ".join(words[start : start + int(generator.integers(1, 4))])[:28]
    face = ImageFont.truetype(faces[generator.integers(len(faces))], int(generator.integers(20, 44)))
    left, top, right, bottom = face.getbbox(text)
    pad = int(generator.integers(2, 7))
    paper, ink = int(generator.integers(170, 256)), int(generator.integers(0, 90))
    image = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), (paper, paper, paper))
    ImageDraw.Draw(image).text((pad - left, pad - top), text, (ink, ink, ink), font=face)
    pixels = np.asarray(image, np.float32) + generator.normal(0, generator.uniform(0, 8), (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _normalized(image: Image.Image, mean: Array | float, std: Array | float) -> Array:
    """Channels first, blue before red as these models were trained."""
    pixels = np.asarray(image, np.float32)[..., ::-1] / np.float32(255)
    return ((pixels - mean) / std).transpose(2, 0, 1).astype(np.float32)


def detector(count: int, *, held_back: bool) -> Samples:
    """Pages of 480 x 480."""
    generator = np.random.default_rng(1 + held_back)
    pages = [page(generator, 480, held_back=held_back) for _ in range(count)]
    return {"x": np.stack([_normalized(each, *IMAGENET) for each in pages])}


def _line_input(image: Image.Image, width: int) -> Array:
    """48 high, at most ``width`` wide, and zeros beside it."""
    own = min(width, max(1, round(48 * image.width / image.height)))
    out = np.zeros((3, 48, width), np.float32)
    out[:, :, :own] = _normalized(image.resize((own, 48), Image.Resampling.BILINEAR), 0.5, 0.5)
    return out


def recognizer(count: int, *, held_back: bool) -> Samples:
    """Lines of 48 x 320."""
    generator = np.random.default_rng(3 + held_back)
    return {"x": np.stack([_line_input(line(generator, held_back=held_back), 320) for _ in range(count)])}


def direction(count: int, *, held_back: bool) -> Samples:
    """Lines of 48 x 192, every other one upside down."""
    generator = np.random.default_rng(5 + held_back)
    lines = [line(generator, held_back=held_back).rotate(180 * (i % 2)) for i in range(count)]
    return {"x": np.stack([_line_input(each, 192) for each in lines])}


def orientation(count: int, *, held_back: bool) -> Samples:
    """Pages of 224 x 224, each turned by another quarter."""
    generator = np.random.default_rng(7 + held_back)
    pages = [page(generator, 480, held_back=held_back).rotate(90 * (i % 4)) for i in range(count)]
    small = [each.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240)) for each in pages]
    return {"x": np.stack([_normalized(each, *IMAGENET) for each in small])}


def _notes(generator: np.random.Generator, *, held_back: bool) -> Array:
    """A window of some notes, each struck and fading, with overtones."""
    time, sound = np.arange(WINDOW) / RATE, np.zeros(WINDOW)
    pitches = np.arange(36, 84)[held_back::2]
    for _ in range(generator.integers(2, 9)):
        frequency = 440.0 * 2.0 ** ((generator.choice(pitches) - 69) / 12)
        start = generator.uniform(0, 1.6)
        own = np.maximum(time - start, 0.0)
        fade = (own > 0) * np.exp(-own * generator.uniform(1.0, 5.0)) * np.minimum(own * 100, 1.0)
        for overtone in range(1, 8):
            # Struck strings lose their overtones alike; reeds have the odd ones.
            loud = overtone**-1.3 if not held_back else (1.0 if overtone % 2 else 0.25) * overtone**-1.1
            if frequency * overtone < RATE / 2:
                sound += loud * fade * np.sin(2 * np.pi * frequency * overtone * own) * generator.uniform(0.7, 1.0)
    sound += generator.normal(0, 10 ** generator.uniform(-4, -2.3), WINDOW)
    return (sound / np.abs(sound).max() * generator.uniform(0.2, 0.9)).astype(np.float32)


def speech(seconds: float, rate: int, *, held_back: bool) -> Array:
    """Spoken sentences with some quiet between, from -1 to 1."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit("espeak-ng is not installed; next: apt install espeak-ng")
    generator, parts, length = np.random.default_rng(11 + held_back), list[Array](), 0
    lines, scratch = texts(held_back=held_back), Path(f"{Path.home()}/.cache/pocketzoo-benchmarks/spoken.wav")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    while length < seconds * rate:
        voice = ["en-us+f3", "en-gb"][held_back]
        text = lines[generator.integers(len(lines))]
        subprocess.run([program, "-v", voice, "-w", str(scratch), "--", text], check=True, capture_output=True)
        with wave.open(str(scratch)) as file:
            spoken = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768.0
            own = file.getframerate()
        places = np.arange(0, len(spoken) * rate // own) * own / rate
        quiet = np.zeros(int(generator.uniform(0.2, 1.0) * rate))
        parts += [np.interp(places, np.arange(len(spoken)), spoken), quiet]
        length += sum(map(len, parts[-2:]))
    scratch.unlink()
    sound = np.concatenate(parts)[: int(seconds * rate)]
    return np.asarray(sound + generator.normal(0, 0.002, len(sound)), np.float32)


def music(count: int, *, held_back: bool) -> Samples:
    """Notes, and every fourth window speech."""
    generator = np.random.default_rng(9 + held_back)
    spoken = speech(count // 4 * WINDOW / RATE + 1, RATE, held_back=held_back)
    windows = [
        spoken[i // 4 * WINDOW :][:WINDOW] if i % 4 == 3 else _notes(generator, held_back=held_back)
        for i in range(count)
    ]
    return {"serving_default_input_2:0": np.stack(windows)[..., None].astype(np.float32)}


def files(count: int, *, held_back: bool) -> Samples:
    """The first and the last 1024 bytes of files, 256 where one has less."""
    generator, paths = np.random.default_rng(13 + held_back), list[Path]()
    for package in PACKAGES[held_back]:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        found = sorted(path for path in Path(spec.submodule_search_locations[0]).rglob("*.*") if path.is_file())
        kinds: dict[str, list[Path]] = {}
        for path in found:
            kinds.setdefault(path.suffix, []).append(path)
        for same in kinds.values():  # or all were Python
            paths += [same[i] for i in generator.permutation(len(same))[:40]]
    chosen = [paths[i] for i in generator.permutation(len(paths))[:count]]
    return {"bytes": np.stack([_ends(path.read_bytes()) for path in chosen])}


def _ends(content: bytes) -> Array:
    content, out = content.strip(), np.full(2048, 256, np.int32)
    first, last = content[:1024], content[-1024:]
    out[: len(first)] = np.frombuffer(first, np.uint8)
    if last:
        out[2048 - len(last) :] = np.frombuffer(last, np.uint8)
    return out


def crops(count: int, *, held_back: bool) -> Samples:
    """Squares cut from photos, 320 x 320."""
    generator, choices, found = np.random.default_rng(15 + held_back), photos(held_back=held_back), []
    for _ in range(count):
        photo = choices[generator.integers(len(choices))]
        side = int(min(photo.size) * generator.uniform(0.4, 1.0))
        left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
        cut = photo.crop((left, top, left + side, top + side)).resize((320, 320), Image.Resampling.BILINEAR)
        found.append(np.asarray(cut, np.float32).transpose(2, 0, 1) / np.float32(255))
    return {"images": np.stack(found)}


def speech_frames(count: int, *, held_back: bool) -> Samples:
    """Frames (N, 1, 576) of speech one after the other, each with the end of the one before it."""
    sound = speech((count + 1) * FRAME / SPEECH_RATE, SPEECH_RATE, held_back=held_back)
    sound = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    return {"input": np.stack([sound[i * FRAME : i * FRAME + FRAME + CONTEXT] for i in range(count)])}


def with_states(samples: Samples, session: Any) -> Samples:
    """The state (2, N, 128) before each frame, as the session itself leaves it."""
    state, states = np.zeros((2, 1, 128), np.float32), []
    for frame in samples["input"]:
        states.append(state)
        state = session.run(["stateN"], {"input": frame[None], "state": state})[0]
    return {"input": samples["input"], "state": np.concatenate(states, 1)}


def one_by_one(samples: Samples) -> Iterator[Samples]:
    """Batches of one; of a state the second axis counts samples."""
    for i in range(len(next(iter(samples.values())))):
        yield {name: v[:, i : i + 1] if name == "state" else v[i : i + 1] for name, v in samples.items()}
