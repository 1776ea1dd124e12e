"""The ``generate`` function: text from a language model's graphs, on onnxruntime, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketzoo.core.errors import DataError, RecipeError, SignatureError, StorageError, UnsupportedModelError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.artifacts.drivers import artifact_of, end_of
from pocketzoo.zoo.artifacts.generate import GENERATION, Generation
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.bundle_lock import check_unsigned, check_writable
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import GenerationSpec
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.token_search import Ids, beam_search, greedy


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and the text generated from it."""

    prompt: str
    text: str  # the prompt and what follows it, or the answer to it
    ids: tuple[int, ...]  # the tokens that were written, the one that ends it included


@survives_exit
def generate(
    model: str | Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    target: str = "cpu",
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Written]:
    """Generate text from each prompt: a language model continues it, an encoder-decoder answers it.

    One beam is greedy search, more is beam search. The tokens equal those of ``generate`` of transformers for the same
    settings. The generation graphs are exported on first use and kept in the bundle, unless that is signed or
    read-only; after that no torch is needed. Of an int8 bundle those encoded for ``target`` are used.

    Raises:
        UnknownNameError: no such model or target.
        UnsupportedModelError: the model writes no text.
        DataError: a prompt has no tokens, or fills all that the model can attend to.
        RecipeError: a setting cannot be what it is.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("beams", beams)):
        if value < 1:
            raise RecipeError(f"{name} cannot be {value}", "give 1 or more")
    resolver = Resolver.of(registry)
    resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    with ExitStack() as stack:
        end = end_of(artifact_of(bundle, target), GENERATION)
        if end is None:
            bundle = stack.enter_context(_with_graphs(bundle, resolver, progress))
            end = end_of(artifact_of(bundle, target), GENERATION)
        if not isinstance(end, Generation):
            raise UnsupportedModelError(f"{bundle.manifest.name} does not generate text", "use a language model")
        spec, settings = processor_of(bundle, resolver.registry).text, end.settings
        if spec is None:
            raise UnsupportedModelError(f"{bundle.manifest.name} does not read text", "use a language model")
        if settings.not_followed:
            progress.say(f"ignored generation settings of the repository: {', '.join(settings.not_followed)}")
        encode = TextEncoder(spec, bundle.source_files())
        texts = []
        with end.open(OnnxRunner) as writer:
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
                texts.append(Written(prompt, encode.tokenizer.decode(shown), tuple(written)))
        return texts


@contextmanager
def _with_graphs(bundle: Bundle, resolver: Resolver, progress: Progress) -> Iterator[Bundle]:
    """The bundle with its generation graphs, kept in it; where it is not to be changed, in a copy that goes."""
    from pocketzoo.zoo.models.generation_graphs import with_generation_graphs  # it needs torch

    try:
        check_unsigned(bundle.path, force=False)
        check_writable(bundle.path)
    except (SignatureError, StorageError) as error:
        progress.say(f"{error.message}: the generation graphs are not kept")
        with scratch_folder() as folder:
            yield with_generation_graphs(bundle, resolver, progress, folder / "with-all-graphs")
    else:
        yield with_generation_graphs(bundle, resolver, progress)


def _room(settings: GenerationSpec, ids: Ids, longest: int, name: str, progress: Progress) -> int:
    """How many tokens can be written."""
    if not settings.positions:
        return longest
    room = settings.positions - int(ids.shape[1])
    if room < 1:
        raise DataError(
            f"the text has {ids.shape[1]} tokens, the context length of {name} is {settings.positions}", "shorten it"
        )
    if room < longest:
        progress.say(f"{name} has a context length of {settings.positions}: generating at most {room} tokens")
    return min(room, longest)
