"""Models of the transformers library with one input and one output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

# Read when transformers is imported: without it, a thread would ask a web service to convert weights.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from pocketzoo.errors import UnsupportedModelError

_quiet: Any = logging  # its functions have no types


def _class_and_config(config: Mapping[str, Any]) -> tuple[Any, Any]:
    settings: Any = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    kind = MODEL_MAPPING[type(settings)]
    return (kind[0] if isinstance(kind, tuple) else kind), settings


def _empty(config: Mapping[str, Any]) -> nn.Module:
    """The installed library's own class for a config, not trained. Attention is plain operators, which compress."""
    kind, settings = _class_and_config(config)
    model: nn.Module = kind._from_config(settings, attn_implementation="eager")
    if config["model_type"] in OPTIONAL_POOLER:  # weights that nothing here reads
        setattr(model, "pooler", None)  # noqa: B010 - the type checker knows no attribute of this name
    return model.eval()


OPTIONAL_POOLER = {"albert", "bert", "camembert", "deit", "mpnet", "roberta", "vit", "xlm-roberta"}


class Text(nn.Module):
    """Token ids (B, T) to features (B, T, C), zero where the text has ended."""

    def __init__(self, config: Mapping[str, Any], pad: int) -> None:
        super().__init__()
        self.model, self.pad = _empty(config), pad
        self.options = {"use_cache": False} if "use_cache" in config else {}

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != self.pad).long()
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask, **self.options).last_hidden_state
        return hidden * mask[:, :, None].to(hidden.dtype)


class Vision(nn.Module):
    """Pictures (B, C, H, W) to a map (B, C, H, W) or a sequence (B, T, C)."""

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
    shown = _quiet.is_progress_bar_enabled()
    _quiet.disable_progress_bar()
    verbosity = _quiet.get_verbosity()
    _quiet.set_verbosity_error()
    try:
        model, report = kind.from_pretrained(
            None,
            config=settings,
            state_dict=state,
            output_loading_info=True,
            dtype="float32",
        )
    finally:
        _quiet.set_verbosity(verbosity)
        if shown:
            _quiet.enable_progress_bar()
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing or report["mismatched_keys"]:
        first = missing[0] if missing else report["mismatched_keys"][0]
        raise UnsupportedModelError(f"the weights lack {first}", "the repository's config and weights do not fit")
    own = _empty(config).state_dict()
    return {f"model.{key}": value for key, value in model.state_dict().items() if key in own}
