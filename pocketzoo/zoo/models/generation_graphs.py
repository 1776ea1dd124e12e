"""Export a language model as generation graphs: a decoder with a KV cache, and an encoder where it has one.

The decoder reads ``input_ids`` (B, T) and ``past.LAYER.key`` and ``.value`` (B, heads, tokens before, channels), and
gives ``logits`` (B, vocabulary) after the last token and ``present...``, the past of the next step. One graph serves
the text as a whole, with a past of length 0, and each token after it. An encoder outputs what the layers of the decoder
attend to in the text, ``memory...`` (B, heads, tokens of the text, channels); it is computed once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name, read_bundle, updating
from pocketzoo.zoo.bundles.manifest import GENERATE, SINGLE
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.models.build import module_of
from pocketzoo.zoo.models.export_graph import graph_from_part
from pocketzoo.zoo.models.resolver import Resolver, Structure

OTHER = ((2, 3, 5), (1, 4, 0), (3, 1, 2), (1, 1, 0))  # batch, tokens, tokens before: what decoders are checked at


class Encoder(nn.Module):
    """Texts (B, T) to all that a decoder attends to in them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.head.memory(self.backbone(ids)))


class CausalDecoder(nn.Module):
    """The decoder of a model that continues a text: tokens and the past to logits and all keys and values."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, ids: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        features, present = self.backbone.step(ids, past)
        return self.head(features[:, -1:])[:, 0], *present


class CrossAttentionDecoder(nn.Module):
    """The decoder of a model that answers a text: the same, with what the encoder gave."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, ids: Tensor, past: list[Tensor], memory: list[Tensor]) -> tuple[Tensor, ...]:
        logits, present = self.head.step(ids, past, memory)
        return logits, *present


@keywords_renamed(registry="resolver")
def with_generation_graphs(
    bundle: Bundle,
    resolver: Registry | Resolver,
    progress: Progress = SILENT,
    place: Path | None = None,
    *,
    force: bool = False,
) -> Bundle:
    """The bundle with the generation graphs; made and put into it, or a copy at ``place``, where it has none.

    Raises:
        SignatureError: it is signed, and neither a ``place`` nor ``force`` is given.
        UnsupportedModelError: its model cannot generate text.
        ExportError: torch cannot export a graph, or it outputs something else.
    """
    if bundle.manifest.driver != SINGLE:
        return bundle
    return add_generation_graphs(bundle, Resolver.of(resolver).structure(bundle), progress, place, force=force)


def add_generation_graphs(
    bundle: Bundle,
    structure: Structure,
    progress: Progress = SILENT,
    place: Path | None = None,
    *,
    force: bool = False,
) -> Bundle:
    """``with_generation_graphs`` of a bundle that has none, whose structure is resolved."""
    manifest, spec = bundle.manifest, structure.parts.backbone
    if spec.generation is None:
        raise UnsupportedModelError(
            f"{manifest.name} is for {manifest.task or 'something else'} and cannot generate text",
            "use a language model",
        )
    if not structure.generates_text:
        raise UnsupportedModelError(
            f"{manifest.name} has a head that does not generate text",
            "fit a language-model head: --head language-model",
        )
    module: Any = module_of(bundle, structure)
    answers = hasattr(module.head, "memory")
    progress.say("exporting and checking the generation graphs (once)")
    if len(bundle.encodings()) > 1:
        progress.say("they are float32; compress the model again to have them compressed too")
    with updating(bundle, place, force=force, progress=progress) as draft:
        decoder = draft.mark(graph_name(graph="decoder"), precision="float32", graph="decoder")
        if answers:
            memory = _write_encoder(module, manifest.model.outputs, draft)
            _write_decoder(CrossAttentionDecoder(module), manifest.model.outputs, decoder, memory)
        else:
            _write_decoder(CausalDecoder(module), manifest.model.outputs, decoder, None)
        assert draft.manifest is not None
        draft.manifest = replace(draft.manifest, driver=GENERATE, generation=spec.generation)
    return read_bundle(place or bundle.path)


def _write_encoder(module: Any, vocabulary: int, draft: Draft) -> list[Tensor]:
    """Write the encoder's graph; what it gives for two texts of three tokens."""
    encoder = Encoder(module).eval()
    texts = [_ids(vocabulary, batch, tokens) for batch, tokens in ((2, 3), (1, 7), (3, 1))]
    with torch.no_grad():
        memory = list(encoder(texts[0]))
    graph_from_part(
        encoder,
        [(ids,) for ids in texts],
        ({0: "batch", 1: "tokens"},),
        (["input_ids"], names("memory", len(memory))),
        draft.mark(graph_name(graph="encoder"), precision="float32", graph="encoder"),
    )
    return memory


def _write_decoder(decoder: nn.Module, vocabulary: int, place: Path, memory: list[Tensor] | None) -> None:
    decoder = decoder.eval()
    ids = torch.zeros(2, 1, dtype=torch.int64)
    with torch.no_grad():  # which shapes keys and values have is found, as they may be compressed
        _, *past = decoder(ids, None, memory) if memory is not None else decoder(ids, None)
    generator = torch.Generator().manual_seed(0)
    examples: list[tuple[Any, ...]] = []
    for batch, tokens, before in OTHER:
        arguments: tuple[Any, ...] = (
            torch.randint(0, vocabulary, (batch, tokens), generator=generator),
            [torch.randn(batch, t.shape[1], before, t.shape[3], generator=generator) for t in past],
        )
        if memory is not None:
            text = 4 + batch
            arguments += ([torch.randn(batch, t.shape[1], text, t.shape[3], generator=generator) for t in memory],)
        examples.append(arguments)
    axes: tuple[Any, ...] = ({0: "batch", 1: "sequence"}, [{0: "batch", 2: "past"} for _ in past])
    inputs = ["input_ids", *names("past", len(past))]
    if memory is not None:
        axes += ([{0: "batch", 2: "tokens"} for _ in memory],)
        inputs += names("memory", len(memory))
    graph_from_part(decoder, examples, axes, (inputs, ["logits", *names("present", len(past))]), place)


def names(what: str, count: int) -> list[str]:
    """Names of keys and values: ``past.0.key``, ``past.0.value``, ``past.1.key``, ..."""
    return [f"{what}.{i // 2}.{'value' if i % 2 else 'key'}" for i in range(count)]


def _ids(vocabulary: int, batch: int, tokens: int) -> Tensor:
    """Tokens but the first, which is mostly the one that texts are filled up with."""
    return torch.randint(1, vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(batch))
