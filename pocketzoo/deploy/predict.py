"""Pictures to their most likely classes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pocketzoo.deploy.classes import softmax
from pocketzoo.errors import DataError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle
from pocketzoo.zoo.preprocess import UNREADABLE, Array, prepare
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.runner import OnnxRunner
from pocketzoo.zoo.specs import InputSpec
from pocketzoo.zoo.text import TextEncoder


@dataclass(frozen=True, slots=True)
class Prediction:
    """The top classes of one picture with their probabilities (softmax), best first; or the numbers it is given."""

    file: str
    top: tuple[tuple[str, float], ...]
    values: tuple[float, ...] = ()


def predict(
    model: str | Path,
    files: Sequence[str | Path],
    *,
    top: int = 5,
    target: str = "cpu",
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Prediction]:
    """Classify pictures, or texts, one by one with a bundle or registered model.

    For a model that reads texts, ``files`` are files of text or the texts themselves.

    Raises:
        UnknownNameError: no such model or target.
        DataError: a file is missing or is no picture, or the model gives neither classes nor numbers for it.
    """
    if not files:
        raise DataError("there is nothing to predict", "name one or more pictures")
    registry = registry or default_registry()
    registry.get("target", target)
    bundle = open_model(model, registry=registry, progress=progress)
    labels = bundle.manifest.labels
    gives = bundle.manifest.gives
    if gives not in ("logits", "values") or (gives == "logits" and not labels):
        has = "has no classes" if gives in ("logits", "embedding") else f"gives {gives}, no classes"
        raise DataError(f"{bundle.manifest.name} {has}", "fit a head with classes: pocketzoo fit ...")
    read = _reader(bundle, progress)
    found = []
    with OnnxRunner(bundle.graph(target)) as runner:
        for file in progress.track(files, "predicting", len(files)):
            x = read(file)  # (1, *size)
            if gives == "values":
                found.append(Prediction(str(file), (), tuple(map(float, runner.logits(x)[0]))))
                continue
            shares = softmax(runner.logits(x)[0])
            best = shares.argsort()[::-1][:top]
            found.append(Prediction(str(file), tuple((labels[i], float(shares[i])) for i in best)))
    return found


def _reader(bundle: Bundle, progress: Progress) -> Callable[[str | Path], npt.NDArray[Any]]:
    spec = bundle.manifest.input
    if isinstance(spec, InputSpec):
        pictures = spec
        return lambda file: _picture(Path(file), pictures)[None]
    encode = TextEncoder(spec, bundle.travelled())
    most = spec.max_length

    def read(file: str | Path) -> npt.NDArray[Any]:
        text = _text(file)
        if encode.cut([text]):
            progress.say(f"{str(file)[:60]!r} has more than {most} tokens; the rest is not read")
        return encode([text])

    return read


def _text(text: str | Path) -> str:
    with contextlib.suppress(OSError, ValueError):  # too long for a file's name, or with a zero inside: a text
        if Path(text).is_file():
            return Path(text).read_text("utf8")
    return str(text)


def _picture(file: Path, spec: InputSpec) -> Array:
    try:
        return prepare(file, spec)
    except DataError as error:
        if error.hint != UNREADABLE:
            raise
        raise DataError(error.message, "give PNG, JPEG or WebP files") from error  # nothing to skip it in
