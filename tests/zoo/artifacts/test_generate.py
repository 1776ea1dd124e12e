"""Text written by generation graphs. That it is what transformers writes: tests/workflows/test_generate.py."""

from __future__ import annotations

import numpy as np
import pytest
from artifactgraphs import start

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends
from pocketzoo.zoo.artifacts.end_score import EndScore, likeness, milliseconds_a_step
from pocketzoo.zoo.artifacts.generate import LONGEST, TEXTS, Generation, present_of
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.specs import GenerationSpec
from pocketzoo.zoo.tasks.token_search import greedy


@pytest.mark.parametrize(
    ("length", "positions"), [(5, 0), (5, 40), (24, 40), (25, 40), (40, 40), (3, 2), (100, LONGEST)]
)
def test_the_end_of_a_text_leaves_room_to_write(length, positions):
    end = Generation(Artifact(graphs={}, driver="generate", generation=GenerationSpec(end=(), positions=positions)))
    cut = end.sample({"input_ids": np.arange(length)[None]})["input_ids"]
    wanted = length if not positions else min(length, max(positions - LONGEST, 1))
    assert cut.tolist() == [list(range(length - wanted, length))]


class Scripted:
    """Writes what it is told to, and notes what it is asked."""

    def __init__(self, *scripts: list[int]) -> None:
        self.scripts, self.asked = iter(scripts), []

    def infer(self, inputs):
        self.asked.append({name: array.tolist() for name, array in inputs.items()})
        return {"tokens": np.array([next(self.scripts)])}


WRITING = Generation(Artifact(graphs={}, driver="generate", generation=GenerationSpec(end=(8,))))


def test_each_token_is_compared_after_the_references_own():
    """The first text ends after three tokens, of which two are the same; the second is the same to the end."""
    reference, other = Scripted([1, 2, 8], [3, 8]), Scripted([1, 5, 8], [3, 8])
    texts = [{"input_ids": np.array([[4, 4]])}, {"input_ids": np.array([[6]])}]
    alike = likeness(WRITING, reference, other, texts)
    assert alike == EndScore(samples=2, steps=5, agreement=4 / 5, same=1 / 2)
    assert reference.asked == [{"input_ids": [[4, 4]]}, {"input_ids": [[6]]}]
    assert other.asked == [
        {"input_ids": [[4, 4]], "tokens": [[1, 2, 8]]},
        {"input_ids": [[6]], "tokens": [[3, 8]]},
    ]


def test_of_no_texts_nothing_is_the_same():
    assert likeness(WRITING, Scripted(), Scripted(), []) == EndScore(samples=0, steps=0, agreement=0.0, same=0.0)
    assert (TEXTS, LONGEST, WRITING.most, WRITING.alone) == (16, 16, 16, True)


# -- on a model


def artifact_of(family, language_bundles):
    bundle = read_bundle(language_bundles[family])
    graphs = {"model": bundle.path / "model.onnx"}
    for name in ("encoder", "decoder"):
        if (bundle.path / f"{name}.onnx").is_file():
            graphs[name] = bundle.path / f"{name}.onnx"
    return Artifact(graphs=graphs, driver="generate", generation=bundle.manifest.generation)


FAMILIES = ["gpt2", pytest.param("t5", marks=pytest.mark.slow)]
TEXTS_READ = [{"input_ids": np.array([ids], np.int64)} for ids in ([2, 5, 6, 3], [2, 7, 3])]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_read_what_they_read_when_they_write(family, language_bundles):
    """A feed a text: a decoder reads all tokens at once, with nothing before them; behind an encoder, its answers."""
    artifact = artifact_of(family, language_bundles)
    whole, end = ends(artifact)
    assert (whole.name, whole.graphs, end.name, end.graphs) == (
        "", ("model",), "generation", tuple(name for name in ("encoder", "decoder") if name in artifact.graphs)
    )  # fmt: skip
    with end.open(start) as writer:
        answers = [greedy(writer, text["input_ids"], longest=LONGEST, end=end.settings.end) for text in TEXTS_READ]
    for name in end.graphs:
        calls = end.calls(name, TEXTS_READ, start)
        feeds = list(calls)
        assert len(feeds) == len(list(calls)) == len(TEXTS_READ), "iterable more than once"
        for feed, text, answer in zip(feeds, TEXTS_READ, answers, strict=True):
            with start(artifact.graphs[name]) as runner:
                assert set(feed) == {spec.name for spec in runner.signature.inputs}
                outputs = runner.infer(feed)
            assert all(np.isfinite(array).all() for array in outputs.values())
            past = {name: array.shape for name, array in feed.items() if name.startswith("past.")}
            assert bool(past) == (name == "decoder")
            assert all((shape[0], shape[2]) == (1, 0) for shape in past.values())
            if name == "decoder" and "encoder" in artifact.graphs:
                assert feed["input_ids"].tolist() == [[*end.settings.start, *answer[:-1]]]
            else:
                assert feed["input_ids"].tolist() == text["input_ids"].tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_as_a_runner_it_writes_and_answers_to_what_was_written(family, language_bundles):
    """Given its own tokens it would have written the same; given others, what follows those."""
    end = ends(artifact_of(family, language_bundles))[-1]
    text = TEXTS_READ[0]
    with end.open(start) as writer:
        tokens = writer.infer(text)["tokens"]
        assert tokens[0].tolist() == greedy(writer, text["input_ids"], longest=LONGEST, end=end.settings.end)
        assert np.array_equal(writer.infer({**text, "tokens": tokens})["tokens"], tokens)
        cut = writer.infer({**text, "tokens": tokens[:, :1]})["tokens"]
        assert cut.tolist() == tokens[:, :1].tolist()
        other = (tokens + 1) % 8
        answered = writer.infer({**text, "tokens": other})["tokens"]
        assert answered[0, 0] == tokens[0, 0], "before the first nothing differs"
        with pytest.raises(DataError, match="2 texts are given at once"):
            writer.infer({"input_ids": np.zeros((2, 3), np.int64)})
        with pytest.raises(DataError, match="no input 'words'"):
            writer.infer({"words": np.zeros((1, 3), np.int64)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_is_like_itself_and_is_timed_by_the_token(language_bundles):
    end = ends(artifact_of("gpt2", language_bundles))[-1]
    with end.open(start) as writer:
        alike = likeness(end, writer, writer, TEXTS_READ)
        assert (alike.agreement, alike.same, alike.samples) == (1.0, 1.0, 2)
        writer.begin(TEXTS_READ[0]["input_ids"])
        lengths = {name: array.shape for name, array in writer.past.items()}
        (milliseconds,) = milliseconds_a_step(end, [writer], TEXTS_READ[0], 0.0)
        assert milliseconds > 0
        assert {name: array.shape for name, array in writer.past.items()} == lengths, "what is timed is forgotten"


@pytest.mark.parametrize("encoder", [False, True])
def test_engines_are_built_for_a_text_as_a_whole_and_each_token_after_it(encoder):
    graphs = {"decoder": None, **({"encoder": None} if encoder else {})}
    settings = GenerationSpec(end=(), positions=64)
    end = Generation(Artifact(graphs=graphs, driver="generate", generation=settings))
    decoder = end.lengths("decoder", 512)
    assert decoder["past"] == (0, 16, 64)
    assert decoder["sequence"] == (1, 1, 64)
    assert ("tokens" in decoder) == encoder
    if encoder:
        assert end.lengths("encoder", 512) == {"batch": (1, 1, 8), "tokens": (1, 8, 64)}


def test_what_a_key_or_value_is_called_afterwards():
    assert present_of("past.3.key") == "present.3.key"
    assert present_of("past.past.value") == "present.past.value"
