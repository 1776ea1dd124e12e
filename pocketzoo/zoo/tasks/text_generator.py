"""Run generation graphs to produce text, and compare two sets of them. onnxruntime and numpy, no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.timing import time_in_turn
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.tasks.token_search import Ids, Logits, greedy

TEXTS, TOKENS = 16, 16  # that are compared: texts, and tokens after each at most


class GraphWriter:
    """Parts of a model as something that writes. A context manager that gives memory back."""

    def __init__(self, parts: Mapping[str, Path], start: Sequence[int] = (), *, threads: int = 0) -> None:
        """``parts`` are graphs by name (see ``zoo/models/generation_graphs.py``); an answer begins with ``start``."""
        self.start = tuple(start)
        self.encoder = OnnxRunner(parts["encoder"], threads=threads) if "encoder" in parts else None
        self.decoder = OnnxRunner(parts["decoder"], threads=threads)
        self.past: dict[str, npt.NDArray[Any]] = {}
        self.memory: dict[str, npt.NDArray[Any]] = {}

    def begin(self, ids: Ids) -> Logits:
        """Read a text (1, T)."""
        self.memory = self.encoder.infer({"input_ids": ids}) if self.encoder else {}
        self.past = empty_cache(self.decoder.signature)
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


def empty_cache(signature: ModelSignature) -> dict[str, npt.NDArray[Any]]:
    """The keys and values of no token, (1, heads, 0, channels), by the inputs of a decoder that take them."""
    shapes: Any = {spec.name: spec.shape for spec in signature.inputs if spec.name.startswith("past.")}
    return {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}


def _rows(tensors: Mapping[str, npt.NDArray[Any]], rows: Ids) -> dict[str, npt.NDArray[Any]]:
    return {name: np.take(value, rows, 0) for name, value in tensors.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What one model generates, compared with a reference."""

    texts: int
    tokens: int  # that the reference wrote after them
    agreement: float  # fraction of these tokens that the other would have written there too
    same_texts: float  # fraction of the texts it writes as the reference does to the end


def with_room(texts: Iterable[Ids], positions: int) -> Iterator[Ids]:
    """The ends of texts (1, T) after which a model of so many positions can write ``TOKENS``; 0 is any number."""
    for ids in texts:
        yield ids[:, -max(positions - TOKENS, 1) :] if positions else ids


def alike(reference: GraphWriter, other: GraphWriter, texts: Iterable[Ids], end: Collection[int]) -> Likeness:
    """Let ``reference`` write greedily after each text (1, T) and ask ``other`` for each token after the same text.

    So one token that differs counts once, and does not make all after it count.
    """
    count = tokens = right = whole = 0
    for ids in texts:
        written = greedy(reference, ids, longest=TOKENS, end=end)
        predicted = [int(other.begin(ids)[0].argmax())]
        for token in written[:-1]:
            predicted.append(int(other.add(np.array([[token]], np.int64))[0].argmax()))
        same = sum(a == b for a, b in zip(written, predicted, strict=True))
        count, tokens, right, whole = count + 1, tokens + len(written), right + same, whole + (same == len(written))
    return Likeness(texts=count, tokens=tokens, agreement=right / max(tokens, 1), same_texts=whole / max(count, 1))


def milliseconds_a_token(writers: Sequence[GraphWriter], ids: Ids, seconds: float) -> list[float]:
    """The median time of each writer for one token after the text ``ids`` (1, T), run in turn."""
    for writer in writers:
        writer.begin(ids)
    spent = time_in_turn([partial(_once, writer) for writer in writers], seconds)
    return [float(np.median(times.wall)) for times in spent]


def _once(writer: GraphWriter) -> None:
    past = writer.past
    writer.add(np.zeros((1, 1), np.int64))
    writer.past = past
