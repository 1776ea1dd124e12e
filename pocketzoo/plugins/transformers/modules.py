"""Models of the transformers library as modules with one input and one output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# Read when transformers is imported: without it, a thread would ask a web service to convert weights.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

import torch
from torch import Tensor, nn
from transformers import T5EncoderModel, T5ForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from pocketzoo.core.errors import UnsupportedModelError, message_of
from pocketzoo.plugins.transformers.setting_values import HINT
from pocketzoo.plugins.transformers.settings import structure_of

_quiet: Any = logging  # its functions have no types


def _settings(config: Mapping[str, Any]) -> Any:
    """The library's config, from the settings that it may be given: the one place where it is given any.

    Raises:
        UnsupportedModelError: there are others, or the library does not take these.
    """
    structure = structure_of(config)
    with _refusing():
        return CONFIG_MAPPING[config["model_type"]].from_dict(structure)


@contextmanager
def _refusing() -> Iterator[None]:
    """What the library raises over a config as an error for users: sizes that do not go together raise all sorts."""
    try:
        yield
    except Exception as error:
        reason = " ".join(message_of(error).split())
        raise UnsupportedModelError(f"transformers does not take its config.json: {reason[:200]}", HINT) from error


def _class_and_config(config: Mapping[str, Any]) -> tuple[Any, Any]:
    settings = _settings(config)
    if config["model_type"] == "t5":  # its encoder alone; the decoder is a head
        return T5EncoderModel, settings
    kind = MODEL_MAPPING[type(settings)]
    return (kind[0] if isinstance(kind, tuple) else kind), settings


def _empty(config: Mapping[str, Any]) -> nn.Module:
    """The installed library's own class for a config, not trained. Attention is plain operators, which compress."""
    kind, settings = _class_and_config(config)
    with _refusing():
        model: nn.Module = kind._from_config(settings, **PLAIN)
    if config["model_type"] in OPTIONAL_POOLER:  # weights that nothing here reads
        setattr(model, "pooler", None)  # noqa: B010 - the type checker knows no attribute of this name
    return model.eval()


PLAIN: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}  # whatever a repository was stored as
OPTIONAL_POOLER = {"albert", "bert", "camembert", "deit", "mpnet", "roberta", "vit", "xlm-roberta"}


class Text(nn.Module):
    """Token ids (B, T) to features (B, T, C), zero where the text has ended.

    Padding is each id that is ``pad``, or with ``padding`` "end" those after the last other one. ``pad`` may be the
    first id after the vocabulary.
    """

    def __init__(self, config: Mapping[str, Any], pad: int, padding: str = "anywhere") -> None:
        super().__init__()
        self.model, self.pad, self.padding = _empty(config), pad, padding
        own = config.get("pad_token_id")
        self.beyond = pad >= int(config["vocab_size"])
        self.looked_up = own if isinstance(own, int) and 0 <= own < pad else 0  # in place of one after the vocabulary
        self.options = {"use_cache": False} if "use_cache" in config and config["model_type"] != "t5" else {}

    def forward(self, ids: Tensor) -> Tensor:
        tokens = ids != self.pad
        mask = tokens.long()
        if self.padding == "end":
            places = torch.arange(ids.shape[1], device=ids.device)
            mask = (places <= (places * mask).amax(1, keepdim=True)).long()
        if self.beyond:
            ids = torch.where(tokens, ids, self.looked_up)
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask, **self.options).last_hidden_state
        return hidden * mask[:, :, None].to(hidden.dtype)

    def step(self, ids: Tensor, past: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Features (B, T, C) of tokens that follow those whose keys and values are ``past``; all keys and values.

        Keys and values are (B, heads, tokens, channels), of each layer one after the other. Of one family of models
        alone, the decoders; no text of the batch may have padding.
        """
        cache: Any = _cache(past)
        before = past[0].shape[2] if past else 0
        positions = torch.arange(ids.shape[1], device=ids.device) + before
        out = self.model(
            input_ids=ids,
            attention_mask=_causal(ids, before),
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state, _keys_and_values(cache)


class Answerer(nn.Module):
    """The decoder of an encoder-decoder: features (B, T, C) of a text to the first token of the answer (B, vocabulary).

    ``memory`` and ``step`` write the others.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _settings(config)
        kind: Any = T5ForConditionalGeneration
        with _refusing():
            whole = kind._from_config(settings, **PLAIN)
        self.decoder, self.lm_head = whole.decoder, whole.lm_head
        self.scale = settings.d_model**-0.5 if settings.scale_decoder_outputs else 1.0
        self.start = int(config.get("decoder_start_token_id", config.get("pad_token_id", 0)))
        self.width = settings.d_kv

    def forward(self, x: Tensor) -> Tensor:
        present = x.abs().amax(-1) > 0  # (B, T)
        mask = torch.where(present, 0.0, torch.finfo(x.dtype).min)[:, None, None]
        start = torch.full((x.shape[0], 1), self.start, dtype=torch.int64, device=x.device)
        logits, _ = self.step(start, None, self.memory(x), mask)
        return logits

    def memory(self, x: Tensor) -> list[Tensor]:
        """Keys and values that each layer attends to in the text, computed once: (B, heads, T, channels)."""
        keys_and_values = []
        for block in self.decoder.block:
            attention = block.layer[1].EncDecAttention
            for layer in (attention.k, attention.v):
                keys_and_values.append(layer(x).view(*x.shape[:2], -1, self.width).transpose(1, 2))
        return keys_and_values

    def step(
        self, ids: Tensor, past: Sequence[Tensor] | None, memory: Sequence[Tensor], mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, vocabulary) after the last of ``ids`` (B, T), which follow ``past``; all keys and values.

        ``mask`` (B, 1, 1, tokens of the text) is added to the attention to it: 0 where it may look.
        """
        own: Any = _cache(past)
        cache: Any = EncoderDecoderCache(own, _cache(memory))
        before = past[0].shape[2] if past else 0
        if mask is None:
            mask = torch.zeros(ids.shape[0], 1, 1, memory[0].shape[2], device=ids.device)
        out = self.decoder(
            input_ids=ids,
            attention_mask=_causal(ids, before),
            encoder_hidden_states=memory[0]
            .transpose(1, 2)
            .flatten(2),  # whose length alone is read: all is in the cache
            encoder_attention_mask=mask.expand(-1, -1, ids.shape[1], -1),
            past_key_values=cache,
            use_cache=True,
        )
        logits: Tensor = self.lm_head(out.last_hidden_state[:, -1] * self.scale)
        return logits, _keys_and_values(own)


def _cache(tensors: Sequence[Tensor] | None) -> Any:
    """The library's cache of keys and values that are given one after the other."""
    return DynamicCache(ddp_cache_data=list(zip(tensors[::2], tensors[1::2], strict=True)) if tensors else None)


def _keys_and_values(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _causal(ids: Tensor, before: int) -> Tensor:
    """What is added to attention (B, 1, T, before + T): a token sees itself and those in front of it."""
    rows = torch.arange(ids.shape[1], device=ids.device) + before
    columns = torch.arange(ids.shape[1] + before, device=ids.device)
    mask = torch.where(columns[None] <= rows[:, None], 0.0, torch.finfo(torch.float32).min)
    return mask.expand(ids.shape[0], 1, -1, -1)


class Vision(nn.Module):
    """Images (B, C, H, W) to a map (B, C, H, W) or a sequence (B, T, C)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = _empty(config)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model(pixel_values=x).last_hidden_state
        return features


def convert_state(config: Mapping[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a repository as the state of ``Text`` or ``Vision``: renamed as the library would, heads left out.

    Raises:
        UnsupportedModelError: a weight of the model is missing.
    """
    kind, settings = _class_and_config(config)
    model = _renamed(kind, settings, state)
    own = _empty(config).state_dict()
    return {f"model.{key}": value for key, value in model.state_dict().items() if key in own}


def convert_answerer(config: Mapping[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a repository as the state of ``Answerer``.

    Raises:
        UnsupportedModelError: a weight of the model is missing.
    """
    settings = _settings(config)
    own = Answerer(config).state_dict()
    whole = _renamed(T5ForConditionalGeneration, settings, state).state_dict()
    return {key: value for key, value in whole.items() if key in own}


def _renamed(kind: Any, settings: Any, state: dict[str, Tensor]) -> nn.Module:
    """The library's model with these weights, which it renames itself.

    Raises:
        UnsupportedModelError: one is missing.
    """
    shown = _quiet.is_progress_bar_enabled()
    _quiet.disable_progress_bar()
    verbosity = _quiet.get_verbosity()
    _quiet.set_verbosity_error()
    try:
        with _refusing():
            model, report = kind.from_pretrained(
                None,
                config=settings,
                state_dict=state,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **PLAIN,
            )
    finally:
        _quiet.set_verbosity(verbosity)
        if shown:
            _quiet.enable_progress_bar()
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    hint = "the repository's config and weights do not fit"
    if missing:
        raise UnsupportedModelError(f"the weights lack {missing[0]}", hint)
    if wrong := sorted(report["mismatched_keys"]):
        raise UnsupportedModelError(f"the weights have {wrong[0][0]} of another shape than the config", hint)
    renamed: nn.Module = model
    return renamed
