"""Write text with a language model's graphs: token by token, by onnxruntime, without torch once they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketzoo.errors import DataError, RecipeError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle
from pocketzoo.zoo.decoding import Ids, Logits, beam_search, greedy
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.runner import OnnxRunner
from pocketzoo.zoo.specs import GenerationSpec, TextSpec
from pocketzoo.zoo.text import TextEncoder


@dataclass(frozen=True, slots=True)
class Written:
    """A text and what a model wrote."""

    prompt: str
    text: str  # the prompt and what follows it, or the answer to it
    ids: tuple[int, ...]  # the tokens that were written, the one that ends it included


def generate(
    model: str | Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Written]:
    """Continue texts, or answer them where the model is an encoder-decoder; one after the other.

    With one beam the likeliest token is taken each time, with more it is beam search (see ``zoo.decoding``). The tokens
    are those that ``generate`` of transformers gives for the same settings. The graphs are made when a bundle is first
    used so, and stay in it; from then on no torch is needed.

    Raises:
        UnknownNameError: no such model.
        UnsupportedModelError: the model writes no text.
        DataError: a prompt has no tokens, or fills all that the model can attend to.
        RecipeError: a setting cannot be what it is.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("beams", beams)):
        if value < 1:
            raise RecipeError(f"{name} cannot be {value}", "give 1 or more")
    registry = registry or default_registry()
    bundle = open_model(model, registry=registry, progress=progress)
    if not bundle.parts():
        from pocketzoo.zoo.parts import with_parts

        bundle = with_parts(bundle, registry, progress)
    spec, settings = bundle.manifest.input, bundle.manifest.generation
    assert isinstance(spec, TextSpec)
    assert settings is not None
    if settings.not_followed:
        progress.say(f"not followed, though its repository sets them: {', '.join(settings.not_followed)}")
    encode = TextEncoder(spec, bundle.travelled())
    found = []
    with GraphWriter(bundle) as writer:
        for prompt in progress.track(prompts, "writing", len(prompts)):
            ids = encode([prompt])
            longest = _room(settings, ids, max_new_tokens, bundle.manifest.name, progress)
            if beams == 1:
                written = greedy(writer, ids, longest=longest, end=settings.end)
            else:
                written = beam_search(
                    writer,
                    ids,
                    beams=beams,
                    longest=longest,
                    end=settings.end,
                    length_penalty=length_penalty,
                    early_stopping=early_stopping,
                )
            shown = written if settings.start else [*ids[0].tolist(), *written]
            found.append(Written(prompt, encode.tokenizer.decode(shown), tuple(written)))
    return found


def _room(settings: GenerationSpec, ids: Ids, wanted: int, name: str, progress: Progress) -> int:
    """How many tokens can be written."""
    if not settings.positions:
        return wanted
    room = settings.positions - int(ids.shape[1])
    if room < 1:
        raise DataError(f"the text has {ids.shape[1]} tokens, and {name} reads {settings.positions}", "shorten it")
    if room < wanted:
        progress.say(f"{name} reads {settings.positions} tokens: it writes {room} at the most")
    return min(room, wanted)


class GraphWriter:
    """The parts of a bundle as something that writes. A context manager that gives memory back."""

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        parts, settings = bundle.parts(), bundle.manifest.generation
        assert settings is not None
        self.start = settings.start
        self.encoder = OnnxRunner(parts["encoder"], threads=threads) if "encoder" in parts else None
        self.decoder = OnnxRunner(parts["decoder"], threads=threads)
        self.past: dict[str, npt.NDArray[Any]] = {}
        self.memory: dict[str, npt.NDArray[Any]] = {}

    def begin(self, ids: Ids) -> Logits:
        """Read a text (1, T)."""
        self.memory = self.encoder.infer({"input_ids": ids}) if self.encoder else {}
        empty = {name: shape for name, shape in self.decoder.inputs.items() if name.startswith("past.")}
        self.past = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in empty.items()}
        return self.add(np.array([self.start], np.int64) if self.encoder else ids)

    def keep(self, rows: Ids) -> None:
        """Go on with these of the texts."""
        self.past, self.memory = _rows(self.past, rows), _rows(self.memory, rows)

    def add(self, ids: Ids) -> Logits:
        """One token (B, 1) more for each."""
        out = self.decoder.infer({"input_ids": ids, **self.past, **self.memory})
        self.past = {name: out[name.replace("past.", "present.", 1)] for name in self.past}
        return out["logits"]

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in (self.encoder, self.decoder):
            if runner is not None:
                runner.close()


def _rows(tensors: Mapping[str, npt.NDArray[Any]], rows: Ids) -> dict[str, npt.NDArray[Any]]:
    return {name: np.take(value, rows, 0) for name, value in tensors.items()}
