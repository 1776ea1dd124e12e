"""The driver ``generate``: a decoder with a KV cache, and an encoder where it has one, write after a text.

The graphs are those of ``zoo/models/generation_graphs.py``. The graph ``model`` beside them reads a whole text at once:
it is what ``eval`` scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import (
    Artifact,
    Composite,
    End,
    Lengths,
    Repeated,
    Start,
    check_names,
    start_all,
    written,
)
from pocketzoo.zoo.artifacts.single import SingleEnd
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.catalog.specs import GenerationSpec
from pocketzoo.zoo.tasks.token_search import Ids, Logits, greedy

ENCODER, DECODER = "encoder", "decoder"
IDS, TOKENS = "input_ids", "tokens"
TEXTS, LONGEST = 16, 16  # that are compared: texts, and tokens after each at most
GENERATION = "generation"


class TextGenerator(Composite):
    """The graphs as something that writes. As a runner it writes greedily after one text: ``tokens`` (1, N).

    Given ``tokens`` (1, N) as an input it says which it would have written in place of each, after those before it: so
    one token that differs counts once, and does not make all after it count.
    """

    def __init__(self, runners: Mapping[str, Runner], settings: GenerationSpec, longest: int = LONGEST) -> None:
        """Take over the runner of each graph."""
        super().__init__(runners)
        self.settings, self.longest = settings, longest
        self.encoder, self.decoder = self.runners.get(ENCODER), self.runners[DECODER]
        self.past: dict[str, npt.NDArray[Any]] = {}
        self.memory: Arrays = {}

    @property
    def signature(self) -> ModelSignature:
        """Of one text and what is written after it."""
        return ModelSignature(
            inputs=(TensorSpec(name=IDS, shape=(1, "sequence"), dtype="int64", batch=None),),
            outputs=(TensorSpec(name=TOKENS, shape=(1, TOKENS), dtype="int64", batch=None),),
        )

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """Write after a text, or answer to tokens that are given.

        Raises:
            DataError: more than one text: those of a batch are filled up to one length, which changes what is written.
        """
        check_names(inputs, [IDS], [TOKENS])
        ids = inputs[IDS]
        if len(ids) != 1:
            raise DataError(f"{len(ids)} texts are given at once", "give one text after the other")
        if TOKENS in inputs:
            tokens = self._in_place_of(ids, inputs[TOKENS][0].tolist())
        else:
            tokens = greedy(self, ids, longest=self.longest, end=self.settings.end)
        return written({TOKENS: np.array([tokens], np.int64)}, out)

    def _in_place_of(self, ids: Ids, tokens: list[int]) -> list[int]:
        predicted = [int(self.begin(ids)[0].argmax())]
        for token in tokens[:-1]:
            predicted.append(int(self.add(np.array([[token]], np.int64))[0].argmax()))
        return predicted[: len(tokens)]

    def begin(self, ids: Ids) -> Logits:
        """Read a text (1, T); logits (1, vocabulary) of what comes next."""
        self.memory = self.encoder.infer({IDS: ids}) if self.encoder else {}
        self.past = empty_past(self.decoder.signature)
        return self.add(np.array([self.settings.start], np.int64) if self.encoder else ids)

    def keep(self, rows: Ids) -> None:
        """Go on with these of the texts."""
        self.past, self.memory = _rows(self.past, rows), _rows(self.memory, rows)

    def add(self, ids: Ids) -> Logits:
        """One token (B, 1) more for each; logits (B, vocabulary) of what comes next."""
        outputs = self.decoder.infer({IDS: ids, **self.past, **self.memory})
        self.past = {name: outputs[present_of(name)] for name in self.past}
        return outputs["logits"]

    def again(self) -> None:
        """One token after what was read, which is then forgotten: to be timed."""
        past = self.past
        self.add(np.zeros((1, 1), np.int64))
        self.past = past

    def __enter__(self) -> TextGenerator:
        return self


class WholeText(SingleEnd):
    """What the graph that reads a whole text at once gives: next-token logits, which are scored without writing."""


class Generation(End):
    """What is written after texts, token by token."""

    name = GENERATION
    unit = "token"
    alone = True
    most = TEXTS

    @property
    def graphs(self) -> tuple[str, ...]:
        return tuple(name for name in (ENCODER, DECODER) if name in self.artifact.graphs)

    @property
    def settings(self) -> GenerationSpec:
        """How the model writes."""
        if self.artifact.generation is None:
            raise BundleError("nothing says which tokens end a text", "export the generation graphs again")
        return self.artifact.generation

    def open(self, start: Start) -> TextGenerator:
        settings = self.settings
        self.artifact.graph(DECODER)
        return TextGenerator(start_all({name: self.artifact.graphs[name] for name in self.graphs}, start), settings)

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        """A feed a text. A decoder reads all tokens at once: its layers read the same of each as one after the other;
        after an encoder, those are what the graphs themselves answer, which is written once.
        """
        if graph == ENCODER:
            return Repeated(lambda: ({IDS: sample[IDS]} for sample in samples))
        answers: list[list[int]] = []

        def feeds() -> Iterator[Arrays]:
            with self.open(start) as writer:
                past = empty_past(writer.decoder.signature)
                for i, sample in enumerate(samples):
                    ids = sample[IDS]
                    if writer.encoder is None:
                        yield {IDS: ids, **past}
                        continue
                    if len(answers) == i:
                        answers.append(greedy(writer, ids, longest=LONGEST, end=self.settings.end))
                    begun = np.array([[*self.settings.start, *answers[i][:-1]]], np.int64)
                    yield {IDS: begun, **past, **writer.encoder.infer({IDS: ids})}

        return Repeated(feeds)

    def sample(self, inputs: Arrays) -> Arrays:
        """The end of a text, after which there is room to write."""
        ids, positions = inputs[IDS], self.settings.positions
        return {IDS: ids[:, -max(positions - LONGEST, 1) :] if positions else ids}

    def following(self, inputs: Arrays, reference: Arrays) -> Arrays:
        return {**inputs, TOKENS: reference[TOKENS]}

    def timed(self, runner: Runner, inputs: Arrays) -> tuple[Callable[[], object], int]:
        assert isinstance(runner, TextGenerator)  # which ``open`` gave
        runner.begin(inputs[IDS])
        return runner.again, 1

    def lengths(self, graph: str, longest: int) -> Lengths:
        """A text as a whole, whose past is empty, and each token after it."""
        longest = min(self.settings.positions or longest, longest)
        shapes: dict[str, tuple[int, int, int]] = {"batch": (1, 1, 8)}
        if graph == DECODER:
            shapes |= {"sequence": (1, 1, longest), "past": (0, longest // 4, longest)}
        if ENCODER in self.artifact.graphs:
            shapes["tokens"] = (1, max(longest // 8, 1), longest)
        return shapes


def ends(artifact: Artifact) -> tuple[End, ...]:
    """The whole text at once, where there is a graph for that, and what is written."""
    whole = (WholeText(artifact),) if MODEL in artifact.graphs else ()
    return (*whole, Generation(artifact))


def empty_past(decoder: ModelSignature) -> dict[str, npt.NDArray[Any]]:
    """The KV cache of one text before its first token."""
    return {
        spec.name: np.zeros(
            [dim if isinstance(dim, int) else int(i == 0) for i, dim in enumerate(spec.shape)], spec.dtype
        )
        for spec in decoder.inputs
        if spec.name.startswith("past.")
    }


def present_of(past: str) -> str:
    """The output that is an input of this name at the next call."""
    return past.replace("past.", "present.", 1)


def _rows(tensors: Arrays, rows: Ids) -> dict[str, npt.NDArray[Any]]:
    return {name: np.take(value, rows, 0) for name, value in tensors.items()}
